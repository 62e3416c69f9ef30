"""Near-duplicates: images that a person would take for the same picture.

Two images are near-duplicates if they look alike, which a hash and a few colors tell. Galleries
compare the few images that they show; `experiments.data.duplicate_groups` compares whole sets.

Source of the hash: Krawetz, "Kind of Like That", 2013: whether each of 9 x 8 gray pixels is darker
than its right neighbor.
Differs: similar hashes are not enough, since they say little about images without texture; the
images must also look alike in 16 x 16 pixels of color. With these limits 185 pairs are found among
367 images of CamVid, and one pair each in BCCD, in nuclei under microscopes and in a twelfth of
CIFAR-10; all of them that were looked at show one scene twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")
Image = NDArray[np.uint8]

MAX_BITS = 10
"""Bits of 64 in which near-duplicates may differ."""
MAX_DIFFERENCE = 0.15
"""Mean absolute difference of the small color images, as a share of their standard deviation."""
MAX_NOISE = 1.0
"""A difference that is always permitted, in gray levels of 255: flat images have no deviation."""


@dataclass(frozen=True, eq=False)
class Look:
    """An image in few numbers.

    Attributes:
        bits: bool (8, 8), the hash.
        colors: float32 (16, 16, 3), RGB in 0..255.
    """

    bits: NDArray[np.bool_]
    colors: NDArray[np.float32]


def look(image: Image) -> Look:
    """Return the look of an RGB image of any size, uint8 (h, w, 3)."""
    image = np.ascontiguousarray(image)
    gray = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 8), interpolation=cv2.INTER_AREA)
    colors = cv2.resize(image, (16, 16), interpolation=cv2.INTER_AREA).astype(np.float32)
    return Look(gray[:, :-1] < gray[:, 1:], colors)


def alike(a: Look, b: Look) -> bool:
    """Return whether two images are near-duplicates."""
    if np.count_nonzero(a.bits != b.bits) > MAX_BITS:
        return False
    return float(excess(a.colors[None], b.colors[None])[0]) <= 1


def excess(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how much colors (n, 16, 16, 3) differ, as a share of what is permitted, (n,)."""
    axes = (1, 2, 3)
    contrast = (a.std(axes, np.float64) + b.std(axes, np.float64)) / 2
    difference = np.abs(a - b).mean(axes, np.float64)
    return np.asarray(difference / np.maximum(MAX_NOISE, MAX_DIFFERENCE * contrast))


def distinct(items: Iterable[tuple[T, Image]], count: int) -> list[tuple[T, int]]:
    """Take items until `count` of them look different, each with its number of near-duplicates.

    Args:
        items: Items and their images, of which no more are taken than needed.
        count: Items to return at most.

    Returns:
        The first item of each look in the order of `items`, and how many of those that follow it,
        up to the last item returned, look the same.
    """
    kept: list[tuple[T, Look]] = []
    duplicates: list[int] = []
    if count < 1:
        return []
    for item, image in items:
        seen = look(image)
        same = next((k for k, (_, other) in enumerate(kept) if alike(seen, other)), None)
        if same is not None:
            duplicates[same] += 1
            continue
        kept.append((item, seen))
        duplicates.append(0)
        if len(kept) == count:
            break
    return [(item, num) for (item, _), num in zip(kept, duplicates, strict=True)]
