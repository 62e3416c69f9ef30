"""COCO's JSON (Lin et al., ECCV 2014): boxes, and masks as polygons or run lengths.

Boxes are (x, y, width, height) in pixels from 0. Run lengths go down the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
from experiments.handoff.masks import (
    Region,
    from_coco_string,
    from_polygons,
    from_runs,
    runs_of,
)


def read(content: Mapping[str, Any], rules: Rules) -> Iterator[Found | Problem]:
    """Read a file of images, annotations and categories.

    Raises:
        UnusableFile: It is not of this format.
    """
    try:
        categories = {one["id"]: str(one["name"]) for one in content["categories"]}
        images = {one["id"]: one for one in content["images"]}
        named = {id_: str(one["file_name"]) for id_, one in images.items()}
        found: dict[Any, list[Mapping[str, Any]]] = {id_: [] for id_ in images}
        for one in content["annotations"]:
            found[one["image_id"]].append(one)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableFile(
            f"it is not in COCO's format ({type(error).__name__}: {error})"
        ) from None
    for id_, drawn in found.items():
        try:
            label = _label(images[id_], drawn, categories, rules)
        except UnusableFile as error:
            yield Problem(named[id_], str(error))
        else:
            if label is not None:
                size = stated_size(images[id_].get("height"), images[id_].get("width"))
                yield Found((named[id_],), label, size)


def _label(
    image: Mapping[str, Any],
    annotations: Sequence[Mapping[str, Any]],
    categories: Mapping[Any, str],
    rules: Rules,
) -> Label | None:
    named = [(categories.get(each.get("category_id"), "?"), each) for each in annotations]
    if rules.kind == "classification":
        return rules.classified([name for name, _ in named]) if named else None
    if rules.kind == "detection":
        return rules.boxed([_box(name, each) for name, each in named])
    size = int(number(image, "height")), int(number(image, "width"))
    return rules.painted([(name, _region(each, size)) for name, each in named], size)


def _box(name: str, annotation: Mapping[str, Any]) -> Box:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise UnusableFile(f"bbox must be [x, y, width, height], it is {box!r}")
    x, y, width, height = (number({"bbox": value}, "bbox") for value in box)
    return Box(name, (x, y, x + width, y + height), bool(annotation.get("iscrowd", 0)))


def _region(annotation: Mapping[str, Any], size: tuple[int, int]) -> Region:
    shape = annotation.get("segmentation")
    if isinstance(shape, list) and shape:
        return from_polygons(shape, size)
    if not isinstance(shape, Mapping) or list(shape.get("size", [])) != list(size):
        raise UnusableFile("segmentation must be polygons or run lengths of the image's size")
    counts = shape.get("counts")
    runs = from_coco_string(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list):
        raise UnusableFile("the counts of a segmentation must be a list or text")
    return from_runs(runs, size[0] * size[1]).reshape(size[::-1]).T


def write(items: Sequence[Item], rules: Rules) -> dict[str, Any]:
    """Return a file of the items, with their drafts as annotations.

    Scores are beside them: of an image `score`, of a box `score`.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for id_, item in enumerate(items, start=1):
        height, width = item.size
        image = {"id": id_, "file_name": item.name, "width": width, "height": height}
        images.append(image if item.score is None else {**image, "score": item.score})
        for one in _annotations(item, rules):
            annotations.append({"id": len(annotations) + 1, "image_id": id_, **one})
    return {
        "info": {"description": "images to annotate, most wanted first"},
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": id_, "name": name, "supercategory": ""}
            for id_, name in enumerate(rules.class_names, start=1)
        ],
    }


def _annotations(item: Item, rules: Rules) -> Iterator[dict[str, Any]]:
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
