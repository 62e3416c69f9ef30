"""Figures inside the page: matplotlib's SVG, changed as a tree of elements.

Text takes the font and the color of the page, so that a dark page has light figures. Each marker
has its values as a title, which the page's script shows for the pointer and for the arrow keys.
matplotlib names the group of each curve by an id that `figures` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from experiments.reporting.curves import Point
from experiments.reporting.figures import CURVE, Panel, Style, draw, save

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_INK = "#0a0b0c"  # stands for the page's text color while matplotlib draws, which knows no other
_HREF = f"{{{_XLINK}}}href"


def inline_svg(panel: Panel, look: Mapping[str, Style], *, salt: str, about: str) -> str:
    """Return an `<svg>` element for a page, with nothing to fetch and no fixed size.

    Args:
        panel: The axes.
        look: Style of each curve.
        salt: Distinguishes the ids of this figure from those of others on the page.
        about: Read aloud in place of the picture.
    """
    figure = draw([panel], look, ink=_INK)
    root = ElementTree.fromstring(
        save(figure, "svg", font="none", salt=salt, facecolor="none").decode()
    )
    for number, (label, curve) in enumerate(panel.curves.items()):
        group = root.find(f".//*[@id='{CURVE}{number}']")
        assert group is not None, "matplotlib left out a curve"
        group.set("class", "curve")
        markers = list(group.iter(f"{{{_SVG}}}use"))
        assert len(markers) in (0, len(curve)), "a marker is missing"
        for marker, point in zip(markers, curve, strict=False):
            ElementTree.SubElement(marker, f"{{{_SVG}}}title").text = _title(label, point, panel)
    _without_unused_ids(root)
    for element in root.iter():
        for key in ("style", "fill", "stroke"):
            if _INK in (value := element.get(key, "")):
                element.set(key, value.replace(_INK, "currentColor"))
    for key in ("width", "height"):
        root.attrib.pop(key)
    root.set("role", "img")
    root.set("tabindex", "0")
    root.set("aria-label", about)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _without_unused_ids(root: Element) -> None:
    """Remove the ids that nothing refers to: they repeat in every figure."""
    used = set()
    for element in root.iter():
        used.add(element.get(_HREF, "").removeprefix("#"))
        for value in element.attrib.values():
            used.update(re.findall(r"url\(#([^)]+)\)", value))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)


def _title(label: str, point: Point, panel: Panel) -> str:
    e = point.estimate
    if interval := e.shown_interval:
        seeds = f" [{interval[0]:.4g}, {interval[1]:.4g}], {e.num_seeds} seeds"
    else:
        seeds = f" ({', '.join(f'{value:.4g}' for value in e.values)})" if len(e.values) > 1 else ""
    return f"{label}: {e.mean:.4g}{seeds}, at {point.x:.4g} {panel.x_label}"
