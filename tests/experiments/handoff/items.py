"""Images with awkward names, and annotations of them, for every kind of task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.data.labels import NO_CLASS, Box, Item, Keypoint, Label, Rules

NAMES = (
    "plain.png", "a b/with space.png", "ünï/日本 語.png", "quote's \"two\".png", "-leading.png",
    "one/same.png", "two/same.png", "& <tag>.png", "per%20cent #1?.png",
)  # fmt: skip
CLASSES = ("red cell", 'white "w"', "<plate> & let")
SIZES = ((48, 64), (31, 77))
KINDS = ("classification", "detection", "segmentation", "pose")


def rules(kind: str, **how: Any) -> Rules:
    """Return the rules of a task with awkward class names."""
    return Rules(kind, CLASSES, **how)


def label(kind: str, number: int, size: tuple[int, int]) -> Label:
    """Return an annotation, another for each number."""
    height, width = size
    if kind == "classification":
        return Label(class_name=CLASSES[number % 3], score=0.5 + number / 50)
    if kind == "detection":
        boxes = [
            Box(CLASSES[k % 3], (2.0 + k, 3.5 + number, 20.25 + k, 30.0), score=0.9 - k / 10)
            for k in range(number % 4)
        ]
        return Label(boxes=tuple(boxes))
    if kind == "pose":
        keypoints = [
            Keypoint(CLASSES[k], 4.25 + 9 * k, 2.5 + number + k, score=0.9 - k / 10)
            for k in range(number % 4)
        ]
        return Label(keypoints=tuple(keypoints), score=0.8 if keypoints else None)
    mask = np.full(size, NO_CLASS, np.uint8)
    mask[: height // 2, number : width // 2] = number % 3
    mask[-9:, -7 - number :] = (number + 1) % 3
    mask[height // 2 + 3, :: 2 + number % 3] = 2
    return Label(mask=mask)


def items(folder: Path, kind: str) -> list[Item]:
    """Write the images and return them with drafts."""
    made = []
    for number, name in enumerate(NAMES):
        path, size = folder / name, SIZES[number % 2]
        path.parent.mkdir(parents=True, exist_ok=True)
        done, data = cv2.imencode(".png", np.full((*size, 3), 20 * number, np.uint8))
        assert done
        path.write_bytes(data.tobytes())
        made.append(Item(name, path, size, 1.5 - number, label(kind, number, size)))
    return made


def same(one: Label, other: Label, *, within_pixels: float = 0.011) -> bool:
    """Tell whether two annotations say the same, boxes to what two decimals hold."""
    if (one.class_name, one.refused) != (other.class_name, other.refused):
        return False
    if (one.mask is None) != (other.mask is None):
        return False
    if one.mask is not None and other.mask is not None and not np.array_equal(one.mask, other.mask):
        return False
    if [(joint.name, joint.visibility) for joint in one.keypoints or ()] != [
        (joint.name, joint.visibility) for joint in other.keypoints or ()
    ]:
        return False
    if not np.allclose(_places(one), _places(other), atol=within_pixels, rtol=0):
        return False
    first, second = (sorted(each.boxes or (), key=_by_corners) for each in (one, other))
    return [box.class_name for box in first] == [box.class_name for box in second] and all(
        np.allclose(a.corners, b.corners, atol=within_pixels, rtol=0)
        for a, b in zip(first, second, strict=True)
    )


def _places(one: Label) -> list[tuple[float, float]]:
    return [(joint.x, joint.y) for joint in one.keypoints or ()]


def _by_corners(box: Box) -> tuple[float, ...]:
    return tuple(round(corner) for corner in box.corners)


def check_same(read: Mapping[str, Label], expected: list[Item], *, empty: bool = True) -> None:
    """Check that what was read is what was written, image by image."""
    wanted = {
        item.name: item.draft
        for item in expected
        if empty or item.draft is None or item.draft.boxes or item.draft.keypoints
    }
    assert set(read) == set(wanted)
    for name, draft in wanted.items():
        assert draft is not None
        assert same(read[name], draft), (name, read[name], draft)
