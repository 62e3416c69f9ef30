"""CVAT for images 1.1: one XML file for a whole task, with boxes, tags, polygons and masks.

Corners are edges of pixels, counted from 0. A mask is cut to its box; its run lengths go along the
rows and begin with what is not covered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.etree import ElementTree

import numpy as np

from experiments.data.labels import (
    NO_CLASS,
    Box,
    Found,
    Item,
    Label,
    Problem,
    Rules,
    UnusableFile,
    number,
    stated_size,
)
from experiments.handoff.masks import Region, from_polygons, from_runs, runs_of


def read(root: ElementTree.Element, rules: Rules) -> Iterator[Found | Problem]:
    """Read `<annotations>`.

    Raises:
        UnusableFile: There is no image in it.
    """
    if root.find("image") is None:
        raise UnusableFile("it has no image; export the task as CVAT for images 1.1")
    for image in root.iter("image"):
        name = image.get("name", "")
        try:
            label = _label(image, rules)
        except UnusableFile as error:
            yield Problem(name, str(error))
        else:
            if label is not None:
                size = stated_size(image.get("height"), image.get("width"))
                yield Found((name,), label, size)


def _label(image: ElementTree.Element, rules: Rules) -> Label | None:
    tags = [each.get("label", "") for each in image.iter("tag")]
    if rules.refusal in tags:
        return Label(refused=True)
    if rules.kind == "classification":
        return rules.classified(tags) if tags else None
    if rules.kind == "detection":
        return rules.boxed([_box(each) for each in image.iter("box")])
    size = int(number(image.attrib, "height")), int(number(image.attrib, "width"))
    shapes = sorted(  # as CVAT stacks them
        (each for each in image if each.tag in ("polygon", "mask", "box")),
        key=lambda each: int(each.get("z_order", "0")),
    )
    return rules.painted([(each.get("label", ""), _region(each, size)) for each in shapes], size)


def _box(node: ElementTree.Element) -> Box:
    corners = [number(node.attrib, key) for key in ("xtl", "ytl", "xbr", "ybr")]
    return Box(node.get("label", ""), (corners[0], corners[1], corners[2], corners[3]))


def _region(node: ElementTree.Element, size: tuple[int, int]) -> Region:
    if node.tag == "polygon":
        corners = node.get("points", "").replace(";", ",").split(",")
        return from_polygons([[number({"points": c}, "points") for c in corners]], size)
    if node.tag == "box":
        x, y, right, bottom = (round(corner) for corner in _box(node).corners)
        region = np.zeros(size, bool)
        region[max(0, y) : max(0, bottom), max(0, x) : max(0, right)] = True
        return region
    try:
        runs = [int(run) for run in node.get("rle", "").split(",")]
    except ValueError:
        raise UnusableFile("the rle of a mask must be whole numbers") from None
    left, top, width, height = (
        int(number(node.attrib, key)) for key in ("left", "top", "width", "height")
    )
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise UnusableFile("a mask reaches beyond its image")
    region = np.zeros(size, bool)
    cut = from_runs(runs, width * height).reshape(height, width)
    region[top : top + height, left : left + width] = cut
    return region


def write(items: Sequence[Item], rules: Rules) -> bytes:
    """Return a file of the items with their drafts, to be uploaded as a task's annotations."""
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    meta = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
    labels = ElementTree.SubElement(meta, "labels")
    for name in (*rules.class_names, rules.refusal):
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    for id_, item in enumerate(items):
        height, width = item.size
        image = ElementTree.SubElement(
            root, "image", id=str(id_), name=item.name, width=str(width), height=str(height)
        )
        for tag, attributes in _shapes(item.draft, rules):
            ElementTree.SubElement(image, tag, {"source": "auto", **attributes})
    ElementTree.indent(root)
    data: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return data


def _shapes(draft: Label | None, rules: Rules) -> Iterator[tuple[str, Mapping[str, str]]]:
    if draft is None:
        return
    if draft.class_name is not None:
        yield "tag", {"label": draft.class_name}
    for box in draft.boxes or ():
        corners = zip(("xtl", "ytl", "xbr", "ybr"), box.corners, strict=True)
        yield (
            "box",
            {
                "label": box.class_name,
                "occluded": "0",
                "z_order": "0",
                **{key: f"{value:.2f}" for key, value in corners},
            },
        )
    for label in np.unique(draft.mask).tolist() if draft.mask is not None else ():
        if label == NO_CLASS:
            continue
        region = draft.mask == label
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        cut = region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        yield (
            "mask",
            {
                "label": rules.class_names[label],
                "occluded": "0",
                "z_order": "0",
                "rle": ", ".join(map(str, runs_of(cut.ravel()))),
                "left": str(columns[0]),
                "top": str(rows[0]),
                "width": str(cut.shape[1]),
                "height": str(cut.shape[0]),
            },
        )
