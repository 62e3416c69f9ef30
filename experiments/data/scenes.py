"""Embedded scenes: digits composed into color images, with boxes and a class mask.

Each scene consists of two to four handwritten digits (`experiments.data.digits`) on a colored
ground and depends only on seed and index. There are four kinds of scenes (`KINDS`), all equally
clear: digits contrast with their ground as much in one kind as in another, are rarely covered, and
lie in the same weak noise. Four scenes in five of the pool are of one kind, in which some digits
are rare; the others are of rare kinds, in which all digits are equally frequent. Test scenes have
all kinds and all digits equally often. So the choice of scenes to annotate matters, and all of them
can be learned. This data set is ours, not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.pictures import MemoryPictures
from experiments.data.scene_parts import (
    MIN_SIZE_PIXELS,
    Image,
    SceneKind,
    check_size,
    color_beside,
    digit_glyph,
    drawn_kind,
    ground,
    image_samples,
    with_noise,
)
from experiments.settings.checks import check_whole_number

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Names of the labels 0..9; a mask holds 1 + label, and 0 for the ground."""
TRIES = 30
"""Places that are tried for a digit before it is omitted."""
OVERLAP = 0.1
"""The share of the smaller of two boxes that the other may cover."""

Corners = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max, pixels."""


@dataclass(frozen=True)
class Kind(SceneKind):
    """A kind of scenes of digits.

    Attributes:
        heights: Range of the digits' heights, fractions of the image.
        fall_off: Ratio of a digit's frequency in the pool to that of its predecessor; 0 is the most
            frequent digit where it is below 1.
    """

    heights: tuple[float, float]
    fall_off: float


KINDS = (
    Kind("light on dark", 0.80, (0, 90), (120, 255), (0.28, 0.42), 0.6),
    Kind("dark on light", 0.10, (165, 255), (0, 135), (0.28, 0.42), 1.0),
    Kind("colorful", 0.06, (0, 255), (0, 255), (0.28, 0.42), 1.0),
    Kind("far away", 0.04, (0, 90), (120, 255), (0.19, 0.25), 1.0),
)


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its ground truth.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        boxes: float32 (n, 4), corners in pixels: the edges of each digit; the image spans 0 to
            `size`. n is at least 1.
        labels: int64 (n,), the digits.
        mask: uint8 (size, size), 1 + digit on the area of a digit, 0 elsewhere. The area is the
            convex hull of its ink: strokes alone are too thin for networks with a stride of 8.
        kind: One of `KINDS`.
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: Image
    kind: Kind


def scenes(num: int, *, size: int, seed: int = 0, held_out: bool = False) -> list[Scene]:
    """Compose the first `num` scenes of a seed.

    Args:
        num: The number of scenes; a longer list begins with the same ones.
        size: Side in pixels, at least 32.
        seed: Decides the scenes.
        held_out: Compose scenes for a test set, from digits that occur in no other scene, with
            every kind and every digit as often as the others.

    Raises:
        ValueError: The size is too small.
        InvalidSetting: The embedded digits are not installed.
    """
    return [scene(index, size=size, seed=seed, held_out=held_out) for index in range(num)]


def scene(index: int, *, size: int, seed: int = 0, held_out: bool = False) -> Scene:
    """Compose one scene; arguments as `scenes`."""
    check_size(size)
    rng = np.random.default_rng((seed, int(held_out), index))
    kind = drawn_kind(rng, KINDS, index, held_out=held_out)
    image = ground(rng, size, kind.ground)
    mask = np.zeros((size, size), np.uint8)
    boxes: list[Corners] = []
    labels: list[int] = []
    chances = (1.0 if held_out else kind.fall_off) ** np.arange(10)
    count = int(rng.integers(2, 5))
    for label in rng.choice(10, size=count, p=chances / chances.sum()).tolist():
        alpha = digit_glyph(rng, label, size, heights=kind.heights, held_out=held_out)
        box = _place(rng, alpha, size, boxes) if alpha.size else None  # shrunk to nothing
        if box is None:
            continue
        x_min, y_min, x_max, y_max = box
        region = (slice(y_min, y_max), slice(x_min, x_max))
        patch = image[region]
        color = color_beside(rng, patch, channels=kind.ink)
        patch += alpha[:, :, None] * (color - patch)
        mask[region][_outlined(alpha)] = 1 + label
        labels.append(label)
        boxes.append(box)
    return Scene(
        with_noise(rng, image),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        mask,
        kind,
    )


def scene_sets(
    num_scenes: int, num_test_scenes: int, scene_size: int
) -> tuple[tuple[MemoryPictures, list[Scene]], tuple[MemoryPictures, list[Scene]]]:
    """Compose a pool and a test set from the settings of `data=digits`; return images and scenes.

    Raises:
        InvalidSetting: A setting is out of range, or the embedded digits are not installed.
    """
    check_whole_number("data.num_scenes", num_scenes, low=2, high=100_000)
    check_whole_number("data.num_test_scenes", num_test_scenes, low=1, high=100_000)
    check_whole_number("data.scene_size", scene_size, low=MIN_SIZE_PIXELS, high=1024)
    train = scenes(num_scenes, size=scene_size)
    test = scenes(num_test_scenes, size=scene_size, held_out=True)
    return (
        (MemoryPictures(image_samples([one.image for one in train], "train_scene")), train),
        (MemoryPictures(image_samples([one.image for one in test], "test_scene")), test),
    )


def _outlined(alpha: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return the convex hull of a digit's ink, bool (h, w)."""
    ink = (alpha >= 0.5).astype(np.uint8)
    hull = cv2.convexHull(cv2.findNonZero(ink))
    filled = cv2.fillConvexPoly(ink, hull, 1)
    return filled > 0


def _place(
    rng: np.random.Generator, alpha: NDArray[np.float32], size: int, boxes: Sequence[Corners]
) -> Corners | None:
    """Return a box for a digit that overlaps no earlier one beyond `OVERLAP`, or None."""
    h, w = alpha.shape
    for _ in range(TRIES):
        y, x = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
        box = (x, y, x + w, y + h)
        if all(_overlap(box, other) <= OVERLAP for other in boxes):
            return box
    return None


def _overlap(a: Corners, b: Corners) -> float:
    """Return the area that two boxes share as a fraction of the smaller one."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return max(width, 0) * max(height, 0) / smaller
