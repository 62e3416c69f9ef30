"""Label Studio: tasks with scores and pre-annotations, its labeling interface, and its JSON export.

Boxes and keypoints are percent of the image's sides; a keypoint does not say whether its joint is
covered. A brush stroke is packed as `regions` describes. A task
carries the image's name in `data.name`, which comes back in the export.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
from pydantic import TypeAdapter

from experiments.data.labels import (
    NO_CLASS,
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
    shown,
    stated_size,
)
from experiments.data.untrusted import Byte, Number, checked
from experiments.handoff.names import names_in_url
from experiments.handoff.regions import from_brush, from_polygons, polygons_area, to_brush

CONTROLS = {
    "classification": ("Choices", "Choice", "choices"),
    "detection": ("RectangleLabels", "Label", "rectanglelabels"),
    "segmentation": ("BrushLabels", "Label", "brushlabels"),
    "pose": ("KeyPointLabels", "Label", "keypointlabels"),
}
"""Tag of the control, tag of its entries and type of its results, by task."""
SHAPES = ("brushlabels", "polygonlabels")
"""Types of results that paint an image."""
FROM, TO = "label", "image"
POINT_PERCENT = 0.5
"""Size in which a keypoint is drawn, percent of the image's width; it has no further meaning."""


@dataclass(frozen=True)
class _Annotation:
    """One annotation of a task; its results are checked when they are needed."""

    result: list[dict[str, Any]] = field(default_factory=list)
    was_cancelled: bool | None = None
    updated_at: str | None = None


@dataclass(frozen=True)
class _Task:
    data: dict[str, Any]
    annotations: list[_Annotation] | None = None


@dataclass(frozen=True)
class _Rectangle:
    x: Number
    y: Number
    width: Number
    height: Number
    rotation: Number | None = None


@dataclass(frozen=True)
class _Brush:
    rle: list[Byte]


@dataclass(frozen=True)
class _Polygon:
    points: list[tuple[Number, Number]]


@dataclass(frozen=True)
class _Point:
    x: Number
    y: Number


@dataclass(frozen=True)
class _Result:
    """The part that all results share."""

    type: str
    value: dict[str, Any]
    original_width: Number | None = None
    original_height: Number | None = None


_TASK = TypeAdapter(_Task)
_RESULT = TypeAdapter(_Result)
_RECTANGLE = TypeAdapter(_Rectangle)
_BRUSH = TypeAdapter(_Brush)
_POLYGON = TypeAdapter(_Polygon)
_POINT = TypeAdapter(_Point)
_WORDS = TypeAdapter(list[str])
_ONE_WORD = TypeAdapter(tuple[str])


def read(tasks: Sequence[object], rules: Rules) -> Iterator[Found | Problem]:
    """Read an export in the format JSON: the newest submitted annotation of each task.

    A task that was skipped is a refusal; one without annotations has no answer yet.
    """
    for position, content in enumerate(tasks, start=1):
        where = f"task {position}"
        try:
            task = checked(_TASK, content)
            names = _names(task.data)
            where = f"{where}, {names[0]}" if names else where
            if task.annotations:
                newest = max(task.annotations, key=lambda one: one.updated_at or "")
                yield Found(names, *_label(newest, rules))
        except UnusableFile as error:
            yield Problem(where, str(error))


def _names(data: Mapping[str, Any]) -> tuple[str, ...]:
    names = [data["name"]] if isinstance(data.get("name"), str) else []
    for key in ("image", *data):
        if isinstance(data.get(key), str) and key != "name":
            names += names_in_url(data[key])
            break
    return tuple(dict.fromkeys(names))


def _label(annotation: _Annotation, rules: Rules) -> tuple[Label | Drawing, Size | None]:
    """Return the label, and the size of the image that it was drawn on."""
    if annotation.was_cancelled:
        return Label(refused=True), None
    results = [checked(_RESULT, one) for one in annotation.result if "value" in one]
    words = [w for one in results for w in checked(_WORDS, one.value.get("choices", []))]
    if rules.kind == "classification" or rules.refusal in words:
        return rules.classified(words), None
    wanted, read_label = LABELS[rules.kind]
    drawn = [(one, _size(one)) for one in results if one.type in wanted]
    sizes = {size for _, size in drawn}
    if len(sizes) > 1:
        raise UnusableFile("its regions are drawn on images of several sizes")
    return read_label(drawn, rules), min(sizes, default=None)


def _boxed(drawn: Sequence[tuple[_Result, Size]], rules: Rules) -> Label:
    return rules.boxed([_box(one, size) for one, size in drawn]) or Label(boxes=())


def _painted(drawn: Sequence[tuple[_Result, Size]], rules: Rules) -> Label | Drawing:
    if not drawn:
        raise UnusableFile("nothing is painted; skip the task if it cannot be labeled")
    label = rules.painted([_shape(one, size) for one, size in drawn], drawn[0][1])
    assert label is not None, "shapes were drawn"
    return label


def _posed(drawn: Sequence[tuple[_Result, Size]], rules: Rules) -> Label:
    keypoints = []
    for one, (height, width) in drawn:
        at = checked(_POINT, one.value)
        keypoints.append(Keypoint(_class_name(one), at.x / 100 * width, at.y / 100 * height))
    return rules.posed([keypoints]) or Label(keypoints=())


LABELS: Mapping[
    str,
    tuple[tuple[str, ...], Callable[[Sequence[tuple[_Result, Size]], Rules], Label | Drawing]],
] = {
    "detection": ((CONTROLS["detection"][2],), _boxed),
    "segmentation": (SHAPES, _painted),
    "pose": ((CONTROLS["pose"][2],), _posed),
}
"""Kind of task with regions -> types of the results that count, and the label that they are."""


def _size(result: _Result) -> Size:
    size = stated_size(result.original_height, result.original_width)
    if size is None:
        raise UnusableFile(
            "original_width and original_height must be whole numbers of pixels, they are "
            f"{shown(result.original_width)} and {shown(result.original_height)}"
        )
    return size


def _class_name(result: _Result) -> str:
    try:
        (name,) = checked(_ONE_WORD, result.value.get(result.type))
    except UnusableFile:
        given = shown(result.value.get(result.type))
        raise UnusableFile(f"a region needs one class, it has {given}") from None
    return name


def _box(result: _Result, size: Size) -> Box:
    value = checked(_RECTANGLE, result.value)
    height, width = size
    x, y = value.x / 100 * width, value.y / 100 * height
    w, h = value.width / 100 * width, value.height / 100 * height
    # A turned box is turned about its corner; the upright box around it is kept.
    angle = math.radians(value.rotation or 0.0)
    cosine, sine = math.cos(angle), math.sin(angle)
    xs = [x, x + w * cosine, x - h * sine, x + w * cosine - h * sine]
    ys = [y, y + w * sine, y + h * cosine, y + w * sine + h * cosine]
    return Box(_class_name(result), (min(xs), min(ys), max(xs), max(ys)))


def _shape(result: _Result, size: Size) -> Shape:
    name = _class_name(result)
    if result.type == "brushlabels":
        packed = checked(_BRUSH, result.value).rle
        return Shape(name, size[0] * size[1], lambda: Patch(0, 0, from_brush(packed, size)))
    points = checked(_POLYGON, result.value).points
    polygons = [[c for x, y in points for c in (x / 100 * size[1], y / 100 * size[0])]]
    return Shape(name, polygons_area(polygons, size), partial(from_polygons, polygons, size))


def write(items: Sequence[Item], rules: Rules, *, image_url: str) -> list[dict[str, Any]]:
    """Return tasks to import, in the order of the items.

    Args:
        items: Images to annotate.
        rules: Classes.
        image_url: Address of an image, in which {name} stands for its name.
    """
    tasks = []
    for item in items:
        data: dict[str, Any] = {
            "image": image_url.replace("{name}", quote(item.name)),
            "name": item.name,
        }
        if item.score is not None:
            data["score"] = item.score
        task: dict[str, Any] = {"data": data}
        if item.draft is not None:
            result = list(_results(item, rules))
            scores = [one["score"] for one in result if "score" in one]
            task["predictions"] = [
                {
                    "model_version": "learning-loss",
                    "score": round(sum(scores) / len(scores), 4) if scores else 0.0,
                    "result": result,
                }
            ]
        tasks.append(task)
    return tasks


def _results(item: Item, rules: Rules) -> Iterator[dict[str, Any]]:
    draft = item.draft
    assert draft is not None
    height, width = item.size
    kind = CONTROLS[rules.kind][2]
    frame: dict[str, Any] = {"from_name": FROM, "to_name": TO, "type": kind}
    region = {**frame, "original_width": width, "original_height": height, "image_rotation": 0}
    if draft.class_name is not None:
        score = {} if draft.score is None else {"score": round(draft.score, 4)}
        yield {**frame, "id": "draft", "value": {kind: [draft.class_name]}, **score}
    for place, box in enumerate(draft.boxes or ()):
        x_min, y_min, x_max, y_max = box.corners
        value = {
            "x": 100 * x_min / width,
            "y": 100 * y_min / height,
            "width": 100 * (x_max - x_min) / width,
            "height": 100 * (y_max - y_min) / height,
            "rotation": 0,
            kind: [box.class_name],
        }
        score = {} if box.score is None else {"score": round(box.score, 4)}
        yield {**region, "id": f"draft{place}", "value": value, **score}
    for place, joint in enumerate(draft.keypoints or ()):
        value = {
            "x": 100 * joint.x / width,
            "y": 100 * joint.y / height,
            "width": POINT_PERCENT,
            kind: [joint.name],
        }
        score = {} if joint.score is None else {"score": round(joint.score, 4)}
        yield {**region, "id": f"draft{place}", "value": value, **score}
    for label in np.unique(draft.mask).tolist() if draft.mask is not None else ():
        if label != NO_CLASS:
            value = {
                "format": "rle",
                "rle": to_brush(draft.mask == label),
                kind: [rules.class_names[label]],
            }
            yield {**region, "id": f"draft{label}", "value": value}


def interface(rules: Rules) -> str:
    """Return the labeling interface: one control for the classes of the task.

    The classes stand above the image, where they are seen on every screen. A choice must be made,
    and its image has 60 % of the page's height, so that all of it is seen at once.
    """
    control, entry, _ = CONTROLS[rules.kind]
    entries = "".join(f"    <{entry} value={quoteattr(name)}/>\n" for name in rules.class_names)
    is_choice = rules.kind == "classification"
    options = ' showInLine="true" required="true"' if is_choice else ""
    height = ' height="60vh"' if is_choice else ""
    image = f'  <Image name="{TO}" value="$image" zoom="true"{height}/>\n'
    classes = f'  <{control} name="{FROM}" toName="{TO}"{options}>\n{entries}  </{control}>\n'
    return f'<View>\n  <Header value="$name"/>\n{classes}{image}</View>\n'
