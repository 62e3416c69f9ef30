"""The objects of an annotation in Pascal VOC's XML (Everingham et al., IJCV 2010).

Corners in the files are the first and the last pixel of an object, counted from 1, and are edges of
pixels, counted from 0, here; `origin` is 0 for tools that write edges from 0.
"""

from __future__ import annotations

from math import nan
from xml.etree import ElementTree

from experiments.data.labels import Box


def objects_in(root: ElementTree.Element, origin: int = 1) -> list[Box]:
    """Return the objects of an annotation as they are drawn; a corner that is no number is NaN.

    Args:
        root: `<annotation>`.
        origin: As `Rules.voc_origin`.
    """
    return [
        Box(
            (each.findtext("name") or "").strip(),
            (
                _number(each, "xmin") - origin,
                _number(each, "ymin") - origin,
                _number(each, "xmax"),
                _number(each, "ymax"),
            ),
            (each.findtext("difficult") or "0").strip() == "1",
        )
        for each in root.iter("object")
    ]


def _number(drawn: ElementTree.Element, key: str) -> float:
    try:
        return float(drawn.findtext(f"bndbox/{key}") or "")
    except ValueError:
        return nan
