"""Parts of which embedded scenes are composed: grounds, handwritten digits, colors, and kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from experiments.data.digits import load_digits
from experiments.data.samples import MemorySamples

MIN_SIZE_PIXELS = 32
NUM_HELD_OUT_GLYPHS = 1000
"""The number of the 5,000 digits that only occur in held-out scenes."""

CONTRASTS = (180, 260)
"""Distances that are wanted between the colors of an object and of its ground, in RGB of 0..255."""
NOISE = 4.0
"""Standard deviation of the noise of each channel, in 0..255."""
BLOTS = 3
"""Blots along a side of a ground."""

Image = NDArray[np.uint8]
Range = tuple[float, float]


@dataclass(frozen=True)
class SceneKind:
    """A kind of scenes.

    Attributes:
        name: For people.
        share: Probability in the pool; a test set has as many of each kind.
        ground: Range of the channels of the ground's color, 0..255.
        ink: Range of the channels of the colors of what is drawn on it.
    """

    name: str
    share: float
    ground: tuple[int, int]
    ink: tuple[int, int]


K = TypeVar("K", bound=SceneKind)


def drawn_kind(rng: np.random.Generator, kinds: Sequence[K], index: int, *, held_out: bool) -> K:
    """Return the kind of a scene: by its share in the pool, and each in its turn in a test set."""
    drawn = rng.choice(len(kinds), p=[kind.share for kind in kinds])
    return kinds[index % len(kinds) if held_out else int(drawn)]


def check_size(size: int) -> None:
    """Raise a ValueError if scenes of this side, in pixels, are too small."""
    if size < MIN_SIZE_PIXELS:
        raise ValueError(f"size must be at least {MIN_SIZE_PIXELS} pixels, got {size}")


def with_noise(rng: np.random.Generator, image: NDArray[np.float32]) -> Image:
    """Add noise to a composed image (h, w, 3), in place, and return it as uint8."""
    image += NOISE * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def ground(
    rng: np.random.Generator, size: int, color: Range, *, spread: float = 30
) -> NDArray[np.float32]:
    """Return a ground of one color with blots, float32 (size, size, 3), in 0..255.

    Args:
        rng: Source of all random numbers.
        size: Side in pixels.
        color: Range of the channels of the color.
        spread: Largest difference of a blot's channels from the color's.
    """
    blots = rng.uniform(*color, 3) + rng.uniform(-1, 1, (BLOTS, BLOTS, 3)) * spread
    enlarged = cv2.resize(blots.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(enlarged, 0, 255).astype(np.float32, copy=False)


def color_beside(
    rng: np.random.Generator,
    ground: NDArray[np.float32],
    *,
    channels: Range,
    distances: Range = CONTRASTS,
) -> NDArray[np.float32]:
    """Return a color, float32 (3,), at about a distance from the mean color of a ground.

    Args:
        rng: Source of all random numbers.
        ground: (h, w, 3), in 0..255.
        channels: Range of the color's channels.
        distances: Range of the Euclidean distance that is wanted in RGB.
    """
    wanted = rng.uniform(*distances)
    offered = rng.uniform(*channels, (16, 3))
    distance = np.linalg.norm(offered - ground.mean((0, 1)), axis=1)
    color: NDArray[np.float32] = offered[np.abs(distance - wanted).argmin()].astype(np.float32)
    return color


def digit_glyph(
    rng: np.random.Generator, label: int, size: int, *, heights: Range, held_out: bool
) -> NDArray[np.float32]:
    """Return the opacity of a scaled, slightly rotated digit, float32 (h, w), cropped to its ink.

    Args:
        rng: Source of all random numbers.
        label: The digit.
        size: Side of the scene in pixels.
        heights: Range of the digit's height, as fractions of the side.
        held_out: Take one of the digits that are for test sets.
    """
    glyphs, positions = _glyphs()
    glyph = glyphs[int(rng.choice(positions[held_out, label]))]
    height = size * rng.uniform(*heights)
    stretch = rng.uniform(0.85, 1.2)
    scale_y = height / glyph.shape[0]
    # The bound keeps wide digits inside the image.
    scale_x = min(scale_y * stretch, 0.7 * size / glyph.shape[1])
    turn = np.deg2rad(rng.uniform(-8, 8))
    cosine, sine = np.cos(turn), np.sin(turn)
    linear = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([scale_x, scale_y])
    extent = np.abs(linear) @ np.array([glyph.shape[1], glyph.shape[0]])
    side_x, side_y = (int(value) + 4 for value in np.minimum(extent, size - 6))
    middle = np.array([glyph.shape[1] - 1, glyph.shape[0] - 1]) / 2
    target = np.array([side_x - 1, side_y - 1]) / 2
    matrix = np.column_stack([linear, target - linear @ middle])
    alpha = cv2.warpAffine(
        glyph.astype(np.float32) / 255, matrix, (side_x, side_y), flags=cv2.INTER_LINEAR
    )
    x, y, w, h = cv2.boundingRect((alpha >= 0.5).astype(np.uint8))
    return np.ascontiguousarray(alpha[y : y + h, x : x + w]).astype(np.float32, copy=False)


def image_samples(images: Sequence[Image], prefix: str) -> MemorySamples:
    """Return images of one size as a set in memory, named `<prefix>_00000.png` and so on."""
    pixels = torch.from_numpy(np.stack(images))
    names = [f"{prefix}_{i:05d}.png" for i in range(len(images))]
    return MemorySamples(pixels.permute(0, 3, 1, 2).contiguous(), names)


@lru_cache(maxsize=1)
def _glyphs() -> tuple[list[Image], dict[tuple[bool, int], NDArray[np.int64]]]:
    """Return all digits, cropped to their ink, and positions by (held out, digit)."""
    images, digits = load_digits()
    cut = []
    for image in images:
        x, y, w, h = cv2.boundingRect((image >= 128).astype(np.uint8))
        cut.append(image[y : y + h, x : x + w])
    held_out = np.arange(len(digits)) >= len(digits) - NUM_HELD_OUT_GLYPHS
    positions = {
        (part, digit): np.flatnonzero((held_out == part) & (digits == digit))
        for part in (False, True)
        for digit in range(10)
    }
    return cut, positions
