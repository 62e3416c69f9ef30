"""COCO's JSON (Lin et al., ECCV 2014): boxes, keypoints, and masks as polygons or run lengths.

Boxes are (x, y, width, height) in pixels from 0. Run lengths go down the columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter

from experiments.data.coco_json import CocoAnnotation, CocoImage, read_coco
from experiments.data.labels import (
    MISSING,
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
)
from experiments.data.untrusted import Number, Whole, checked
from experiments.handoff.regions import (
    from_coco_string,
    from_column_runs,
    from_polygons,
    polygons_area,
    runs_of,
)

FIGURE = "figure"
"""Name of the category of figures with joints in files that are written."""


@dataclass(frozen=True)
class _Runs:
    size: tuple[Whole, Whole]
    counts: str | list[Whole]


_Polygons = Annotated[list[list[Number]], Field(min_length=1)]
_SHAPE: TypeAdapter[_Runs | list[list[float]]] = TypeAdapter(_Polygons | _Runs)


def read(content: object, rules: Rules) -> Iterator[Found | Problem]:
    """Read a file of images, annotations and categories.

    An image with a faulty annotation is a problem as a whole: with the other annotations alone, the
    image would seem to have nothing else in it.

    Raises:
        UnusableFile: It is not of this format.
    """
    file = read_coco(content)
    yield from file.problems
    for image in file.images:
        try:
            if image.faults:
                more = f" (and {len(image.faults) - 1} more)" if len(image.faults) > 1 else ""
                raise UnusableFile(f"{image.faults[0]}{more}")
            label = LABELS[rules.kind](image, rules)
        except UnusableFile as error:
            yield Problem(image.name, str(error))
        else:
            if label is not None:
                yield Found((image.name,), label, image.size)


def _classified(image: CocoImage, rules: Rules) -> Label | None:
    drawn = image.annotations
    return rules.classified([each.class_name for each in drawn]) if drawn else None


def _boxed(image: CocoImage, rules: Rules) -> Label | None:
    drawn = image.annotations
    return rules.boxed([Box(each.class_name, each.corners, each.is_crowd) for each in drawn])


def _painted(image: CocoImage, rules: Rules) -> Label | Drawing | None:
    if image.size is None:
        raise UnusableFile("width and height must be whole numbers of pixels")
    size = image.size
    return rules.painted([_shape(each, size) for each in image.annotations], size)


def _posed(image: CocoImage, rules: Rules) -> Label | None:
    if any(rules.is_refusal(each.class_name) for each in image.annotations):
        return Label(refused=True)
    figures = [
        [
            Keypoint(name, x, y, visibility)
            for name, (x, y, visibility) in zip(each.joint_names, each.points(), strict=True)
            if visibility != MISSING
        ]
        for each in image.annotations
        if each.joint_names and not each.is_crowd
    ]
    return rules.posed(figures)


LABELS: Mapping[str, Callable[[CocoImage, Rules], Label | Drawing | None]] = {
    "classification": _classified,
    "detection": _boxed,
    "segmentation": _painted,
    "pose": _posed,
}
"""Kind of task -> its label of an image; None where the image need not have been looked at."""


def _shape(annotation: CocoAnnotation, size: Size) -> Shape:
    try:
        shape = checked(_SHAPE, annotation.segmentation)
    except UnusableFile:
        raise UnusableFile(
            f"{annotation.where}: segmentation must be polygons [[x, y, ...], ...] or run lengths "
            f"{{size, counts}}, it is {shown(annotation.segmentation)}"
        ) from None
    name = annotation.class_name
    if isinstance(shape, _Runs):
        if shape.size != size:
            raise UnusableFile(f"{annotation.where}: its run lengths are not of the image's size")
        return Shape(name, size[0] * size[1], partial(_from_runs, shape, size))
    return Shape(name, polygons_area(shape, size), partial(from_polygons, shape, size))


def _from_runs(shape: _Runs, size: Size) -> Patch:
    counts = shape.counts
    return from_column_runs(from_coco_string(counts) if isinstance(counts, str) else counts, size)


def write(items: Sequence[Item], rules: Rules) -> dict[str, Any]:
    """Return a file of the items, with their drafts as annotations.

    Images and boxes have an additional key `score`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id_, item in enumerate(items, start=1):
        images.append(image_record(item, id_))
        for one in annotation_records(item, rules):
            annotations.append({"id": len(annotations) + 1, "image_id": id_, **one})
    return {
        "info": {"description": "images to annotate, most wanted first"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": categories(rules),
    }


def categories(rules: Rules) -> list[dict[str, Any]]:
    """Return the entries of the classes; of pose, that of the figure with its joints."""
    if rules.kind == "pose":
        joints = {"keypoints": list(rules.class_names), "skeleton": []}
        return [{"id": 1, "name": FIGURE, "supercategory": "", **joints}]
    return [
        {"id": id_, "name": name, "supercategory": ""}
        for id_, name in enumerate(rules.class_names, start=1)
    ]


def _figure(draft: Label, rules: Rules) -> dict[str, Any]:
    """Return the entry of a figure: its joints, in the order of the classes, and their box."""
    found = {each.name: each for each in draft.keypoints or ()}
    rows = [
        (round(found[name].x, 2), round(found[name].y, 2), found[name].visibility)
        if name in found
        else (0, 0, MISSING)
        for name in rules.class_names
    ]
    xs, ys = zip(*((x, y) for x, y, visibility in rows if visibility != MISSING), strict=True)
    width, height = max(xs) - min(xs), max(ys) - min(ys)
    return {
        "category_id": 1,
        "keypoints": [value for row in rows for value in row],
        "num_keypoints": len(found),
        "bbox": [min(xs), min(ys), round(width, 2), round(height, 2)],
        "area": round(width * height, 2),
        "iscrowd": 0,
        **({} if draft.score is None else {"score": round(draft.score, 4)}),
    }


def image_record(item: Item, id_: int) -> dict[str, Any]:
    """Return the entry of an image."""
    height, width = item.size
    image = {"id": id_, "file_name": item.name, "width": width, "height": height}
    return image if item.score is None else {**image, "score": item.score}


def annotation_records(item: Item, rules: Rules) -> Iterator[dict[str, Any]]:
    """Yield the entries of a draft, without their own id and that of the image."""
    draft = item.draft
    for box in (draft.boxes if draft else None) or ():
        x_min, y_min, x_max, y_max = box.corners
        width, height = x_max - x_min, y_max - y_min
        yield {
            "category_id": 1 + rules.class_names.index(box.class_name),
            "bbox": [round(value, 2) for value in (x_min, y_min, width, height)],
            "area": round(width * height, 2),
            "iscrowd": int(box.difficult),
            "segmentation": [],
            **({} if box.score is None else {"score": round(box.score, 4)}),
        }
    if draft is not None and draft.keypoints:
        yield _figure(draft, rules)
    if draft is None or draft.mask is None:
        return
    for label in np.unique(draft.mask).tolist():
        if label == NO_CLASS:
            continue
        region = draft.mask == label
        rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
        x, y = int(columns[0]), int(rows[0])
        yield {
            "category_id": 1 + label,
            "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
            "area": int(region.sum()),
            "iscrowd": 1,  # what COCO calls a segmentation by run lengths
            "segmentation": {"size": list(region.shape), "counts": runs_of(region.T.ravel())},
        }
