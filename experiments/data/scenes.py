"""Embedded scenes: digits composed into color images, with boxes and a class mask.

Each scene consists of handwritten digits (`experiments.data.digits`) on a colored ground and
depends only on seed and index. Two scenes in three are easy (few large bright digits on a smooth
dark ground), one is hard (many small faint overlapping digits of any color, on a rough ground among
strokes that are no digits). Classes are skewed, but less so in hard scenes, which contain most of
the rare ones, so the choice of scenes to annotate matters. This data set is ours, not published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from experiments.data.digits import load_digits
from experiments.data.pictures import MemoryPictures
from experiments.data.samples import MemorySamples
from experiments.settings.checks import check_whole_number

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Names of the labels 0..9; a mask holds 1 + label, and 0 for the ground."""
MIN_SIZE_PIXELS = 32
HARD_SHARE = 1 / 3
NUM_HELD_OUT_GLYPHS = 1000
"""The number of the 5,000 digits that only occur in held-out scenes."""
FALL_OFF = {False: 0.70, True: 0.88}
"""Ratio of a digit's frequency to that of its predecessor, in easy (False) and hard scenes; 0 is
the most frequent digit."""
TRIES = 12
"""Places that are tried for a digit before it is omitted."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its ground truth.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        boxes: float32 (n, 4), corners in pixels: the edges of each digit, with its covered parts;
            the image spans 0 to `size`. n is at least 1.
        labels: int64 (n,), the digits.
        mask: uint8 (size, size), 1 + digit where a digit is visible, 0 elsewhere.
        hard: True for a hard scene, False for an easy one.
    """

    image: Image
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    mask: Image
    hard: bool


def scenes(num: int, *, size: int, seed: int = 0, held_out: bool = False) -> list[Scene]:
    """Compose the first `num` scenes of a seed.

    Args:
        num: The number of scenes; a longer list begins with the same ones.
        size: Side in pixels, at least 32.
        seed: Decides the scenes.
        held_out: Compose scenes for a test set, from digits that occur in no other scene.

    Raises:
        ValueError: The size is too small.
        InvalidSetting: The embedded digits are not installed.
    """
    return [scene(index, size=size, seed=seed, held_out=held_out) for index in range(num)]


def scene(index: int, *, size: int, seed: int = 0, held_out: bool = False) -> Scene:
    """Compose one scene; arguments as `scenes`."""
    if size < MIN_SIZE_PIXELS:
        raise ValueError(f"size must be at least {MIN_SIZE_PIXELS} pixels, got {size}")
    rng = np.random.default_rng((seed, int(held_out), index))
    hard = bool(rng.random() < HARD_SHARE)
    image = ground(rng, size, hard=hard)
    if hard:
        scribble(rng, image, num=int(rng.integers(4, 10)))
    mask = np.zeros((size, size), np.uint8)
    owner = np.zeros((size, size), np.uint8)  # 1 + number of the visible digit
    boxes: list[tuple[int, int, int, int]] = []
    labels: list[int] = []
    areas: list[int] = []
    chances = FALL_OFF[hard] ** np.arange(10)
    count = int(rng.integers(3, 8) if hard else rng.integers(1, 4))
    for label in rng.choice(10, size=count, p=chances / chances.sum()).tolist():
        alpha = digit_glyph(rng, label, size, hard=hard, held_out=held_out)
        place = _place(rng, alpha, owner, areas, hidden=0.4 if hard else 0.1)
        if place is None or not alpha.size:  # no room, or shrunk to nothing
            continue
        y, x = place
        h, w = alpha.shape
        region = (slice(y, y + h), slice(x, x + w))
        color = color_beside(rng, image[region], hard=hard)
        patch = image[region]
        patch += alpha[:, :, None] * (color - patch)
        ink = alpha >= 0.5
        mask[region][ink] = 1 + label
        labels.append(label)
        owner[region][ink] = len(labels)
        areas.append(int(ink.sum()))
        boxes.append((x, y, x + w, y + h))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    image += noise * (12.0 if hard else 4.0)
    return Scene(
        np.clip(np.rint(image), 0, 255).astype(np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        mask,
        hard,
    )


def image_samples(images: Sequence[Image], prefix: str) -> MemorySamples:
    """Return images of one size as a set in memory, named `<prefix>_00000.png` and so on."""
    pixels = torch.from_numpy(np.stack(images))
    names = [f"{prefix}_{i:05d}.png" for i in range(len(images))]
    return MemorySamples(pixels.permute(0, 3, 1, 2).contiguous(), names)


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


def ground(rng: np.random.Generator, size: int, *, hard: bool) -> NDArray[np.float32]:
    """Return a colored ground, float32 (size, size, 3), with many blots if hard, else a few."""
    cells = 9 if hard else 3
    color = rng.uniform(40, 215, 3) if hard else rng.uniform(0, 90, 3)
    blots = color + rng.uniform(-1, 1, (cells, cells, 3)) * (45 if hard else 30)
    ground = cv2.resize(blots.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(ground, 0, 255).astype(np.float32, copy=False)


def scribble(rng: np.random.Generator, image: NDArray[np.float32], *, num: int) -> None:
    """Draw strokes that resemble parts of digits."""
    size = image.shape[0]
    for _ in range(num):
        color = rng.uniform(0, 255, 3).tolist()
        x, y = rng.integers(0, size, 2).tolist()
        axes = rng.integers(max(2, size // 40), size // 7, 2).tolist()
        angle, start, span = rng.integers((0, 0, 60), (180, 360, 200)).tolist()
        thickness = int(rng.integers(1, max(2, size // 40) + 1))
        cv2.ellipse(image, (x, y), axes, angle, start, start + span, color, thickness, cv2.LINE_AA)


def digit_glyph(
    rng: np.random.Generator, label: int, size: int, *, hard: bool, held_out: bool
) -> NDArray[np.float32]:
    """Return the opacity of a rotated and scaled digit, float32 (h, w), cropped to its ink."""
    glyphs, positions = _glyphs()
    glyph = glyphs[int(rng.choice(positions[held_out, label]))]
    height = size * rng.uniform(*((0.15, 0.32) if hard else (0.25, 0.5)))
    stretch = rng.uniform(0.85, 1.2)
    scale_y = height / glyph.shape[0]
    # The bound keeps wide digits inside the image.
    scale_x = min(scale_y * stretch, 0.7 * size / glyph.shape[1])
    turn = np.deg2rad(rng.uniform(-20, 20) if hard else rng.uniform(-8, 8))
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


def _place(
    rng: np.random.Generator,
    alpha: NDArray[np.float32],
    owner: Image,
    areas: list[int],
    *,
    hidden: float,
) -> tuple[int, int] | None:
    """Return (y, x) such that no earlier digit loses more than `hidden` of its ink, or None."""
    size = owner.shape[0]
    h, w = alpha.shape
    ink = alpha >= 0.5
    seen = np.bincount(owner.ravel(), minlength=len(areas) + 1)
    for _ in range(TRIES):
        y, x = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
        covered = np.bincount(owner[y : y + h, x : x + w][ink], minlength=len(areas) + 1)
        left = (seen - covered)[1:]
        if all(left[i] >= (1 - hidden) * area for i, area in enumerate(areas)):
            return y, x
    return None


def color_beside(
    rng: np.random.Generator, ground: NDArray[np.float32], *, hard: bool
) -> NDArray[np.float32]:
    """Return a color near to that of the ground if hard, else far from it."""
    wanted = rng.uniform(*((80, 140) if hard else (150, 250)))
    offered = rng.uniform(0 if hard else 120, 255, (16, 3))
    distance = np.linalg.norm(offered - ground.mean((0, 1)), axis=1)
    color: NDArray[np.float32] = offered[np.abs(distance - wanted).argmin()].astype(np.float32)
    return color
