"""CVAT for images 1.1: one XML file for a whole task: boxes, tags, points, polygons and masks.

Corners are edges of pixels, counted from 0. A mask is cut to its box; its run lengths go along the
rows and begin with a run that is not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from xml.etree import ElementTree

import numpy as np

from experiments.data.labels import (
    HIDDEN,
    NO_CLASS,
    VISIBLE,
    Box,
    Drawing,
    Found,
    Item,
    Keypoint,
    Label,
    Patch,
    Problem,
    Rules,
    Shape,
    Size,
    UnusableFile,
    number,
    shown,
    stated_size,
)
from experiments.handoff.regions import from_polygons, from_runs, polygons_area, runs_of


def read(root: ElementTree.Element, rules: Rules) -> Iterator[Found | Problem]:
    """Read `<annotations>`.

    Raises:
        UnusableFile: It has no image.
    """
    if root.find("image") is None:
        raise UnusableFile("it has no image; export the task as CVAT for images 1.1")
    for image in root.findall("image"):
        name = image.get("name", "")
        size = stated_size(image.get("height"), image.get("width"))
        try:
            label = _label(image, rules, size)
        except UnusableFile as error:
            yield Problem(name, str(error))
        else:
            if label is not None:
                yield Found((name,), label, size)


def _label(image: ElementTree.Element, rules: Rules, size: Size | None) -> Label | Drawing | None:
    tags = [each.get("label", "") for each in image.iter("tag")]
    if rules.refusal in tags:
        return Label(refused=True)
    return LABELS[rules.kind](image, rules, size)


def _classified(image: ElementTree.Element, rules: Rules, size: Size | None) -> Label | None:
    tags = [each.get("label", "") for each in image.iter("tag")]
    return rules.classified(tags) if tags else None


def _boxed(image: ElementTree.Element, rules: Rules, size: Size | None) -> Label | None:
    return rules.boxed([_box(each) for each in image.iter("box")])


def _painted(image: ElementTree.Element, rules: Rules, size: Size | None) -> Label | Drawing | None:
    if size is None:
        raise UnusableFile("width and height must be whole numbers of pixels")
    shapes = sorted(  # as CVAT stacks them
        (each for each in image if each.tag in ("polygon", "mask", "box")),
        key=lambda each: number({"z_order": each.get("z_order", "0")}, "z_order"),
    )
    return rules.painted([_shape(each, size) for each in shapes], size)


def _posed(image: ElementTree.Element, rules: Rules, size: Size | None) -> Label | None:
    """Return the label for skeletons, or for points, each a joint, outside of skeletons."""
    skeletons = [list(each.iter("points")) for each in image.findall("skeleton")]
    alone = image.findall("points")
    if alone and skeletons:
        raise UnusableFile("it has both a skeleton and points outside of it: keep one of them")
    return rules.posed(
        [
            [_joint(point) for point in points if point.get("outside", "0") != "1"]
            for points in (skeletons or [alone])
        ]
    )


def _joint(node: ElementTree.Element) -> Keypoint:
    place = node.get("points", "").split(",")
    if len(place) != 2:
        raise UnusableFile(f"a joint needs one point x,y, it has {shown(node.get('points', ''))}")
    x, y = (number({"points": value}, "points") for value in place)
    hidden = node.get("occluded") == "1"
    return Keypoint(node.get("label", ""), x, y, HIDDEN if hidden else VISIBLE)


LABELS: Mapping[
    str, Callable[[ElementTree.Element, Rules, Size | None], Label | Drawing | None]
] = {
    "classification": _classified,
    "detection": _boxed,
    "segmentation": _painted,
    "pose": _posed,
}
"""Kind of task -> its label of an image; None where the image need not have been looked at."""


def _box(node: ElementTree.Element) -> Box:
    corners = [number(node.attrib, key) for key in ("xtl", "ytl", "xbr", "ybr")]
    return Box(node.get("label", ""), (corners[0], corners[1], corners[2], corners[3]))


def _shape(node: ElementTree.Element, size: Size) -> Shape:
    name = node.get("label", "")
    if node.tag == "polygon":
        points = node.get("points", "").replace(";", ",").split(",")
        polygons = [[number({"points": value}, "points") for value in points]]
        return Shape(name, polygons_area(polygons, size), partial(from_polygons, polygons, size))
    if node.tag == "box":
        x, y, right, bottom = (round(corner) for corner in _box(node).corners)
        left, top = min(max(0, x), size[1]), min(max(0, y), size[0])
        height = min(max(top, bottom), size[0]) - top
        width = min(max(left, right), size[1]) - left
        return Shape(name, height * width, lambda: Patch(top, left, np.ones((height, width), bool)))
    left, top, width, height = (_pixels(node, key) for key in ("left", "top", "width", "height"))
    if left < 0 or top < 0 or left + width > size[1] or top + height > size[0]:
        raise UnusableFile("a mask reaches beyond its image")
    if width < 1 or height < 1:
        raise UnusableFile("a mask must have a pixel or more")
    return Shape(
        name, width * height, partial(_mask, node.get("rle", ""), top, left, (height, width))
    )


def _mask(text: str, top: int, left: int, size: Size) -> Patch:
    try:
        runs = [int(run) for run in text.split(",")]
    except ValueError:
        raise UnusableFile(
            f"the rle of a mask must be whole numbers, it is {shown(text)}"
        ) from None
    return Patch(top, left, from_runs(runs, size[0] * size[1]).reshape(size))


def _pixels(node: ElementTree.Element, key: str) -> int:
    value = number(node.attrib, key)
    if not value.is_integer():
        raise UnusableFile(f"{key} of a mask must be a whole number of pixels, it is {value}")
    return int(value)


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
    for joint in draft.keypoints or ():
        yield (
            "points",
            {
                "label": joint.name,
                "occluded": str(int(joint.visibility == HIDDEN)),
                "z_order": "0",
                "points": f"{joint.x:.2f},{joint.y:.2f}",
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
