"""Classes of pixels, borders of regions, and maps of a quantity, drawn on or for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import NO_CLASS, Mask
from experiments.data.palette import Color
from experiments.drawing.text import DARK, LIGHT, Image, ink_on, text_width, write

Number = TypeVar("Number", np.uint8, np.int32)

OPACITY = 0.5
"""Opacity of the tint of a class; its border is opaque."""
BACKGROUND = "background"
"""Name of a class that is not tinted, nor is one whose color is black."""
_HATCH_PIXELS, _HATCH = 8, (100, 116)
"""Period and gray values of the diagonal stripes where there is no class."""


def tinted_classes(class_names: Sequence[str], colors: Sequence[Color]) -> list[bool]:
    """Return whether each class is tinted: all but background."""
    pairs = zip(class_names, colors, strict=True)
    return [name != BACKGROUND and color != (0, 0, 0) for name, color in pairs]


def draw_classes(
    image: Image, mask: Mask, colors: Sequence[Color], tinted: Sequence[bool], *, line: int
) -> None:
    """Tint an image by class in place, with opaque borders, hatched where there is no class.

    Args:
        image: uint8 (h, w, 3), RGB.
        mask: Class numbers, of any size with the proportions of the image.
        colors: One a class.
        tinted: Whether each class is tinted.
        line: Thickness of the borders, pixels.
    """
    mask = _resized(mask, image.shape[:2])
    table = np.zeros((256, 3), np.float32)
    table[: len(colors)] = colors
    opacity = np.zeros(256, np.float32)
    opacity[: len(colors)] = np.where(tinted, OPACITY, 0)
    share = opacity[mask][..., None]
    image[...] = ((1 - share) * image + share * table[mask]).astype(np.uint8)
    border = _border(mask, line) & (opacity > 0)[mask]
    image[border] = table[mask[border]].astype(np.uint8)
    rows, columns = np.nonzero(mask == NO_CLASS)
    stripe = (rows + columns) % _HATCH_PIXELS < _HATCH_PIXELS // 2
    image[rows, columns] = np.where(stripe, *_HATCH)[:, None]


def name_classes(
    image: Image,
    mask: Mask,
    names: Sequence[str],
    colors: Sequence[Color],
    tinted: Sequence[bool],
    *,
    text: int,
) -> None:
    """Write the name of each tinted class into the widest part of its area, if it fits, in place.

    Args:
        image: uint8 (h, w, 3), RGB, contiguous.
        mask: Class numbers, of any size with the proportions of the image.
        names: One a class.
        colors: One a class.
        tinted: Whether each class is tinted.
        text: Size of the font, pixels.
    """
    mask = _resized(mask, image.shape[:2])
    for label in np.unique(mask[mask < len(names)]).tolist():
        inside = np.pad((mask == label).astype(np.uint8), 1)
        depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        wide, high = text_width(names[label], text) + 6, text + 4
        if not tinted[label] or 2 * depth[y, x] < np.hypot(wide, high):
            continue
        left, top = int(x) - wide // 2, int(y) - high // 2
        image[top : top + high, left : left + wide] = colors[label]
        write(image, names[label], left + 3, int(y), text, ink_on(colors[label]))


def draw_outlines(image: Image, regions: NDArray[np.int32], *, line: int) -> None:
    """Draw the borders of regions on an image in place, light with a dark casing.

    Args:
        image: uint8 (h, w, 3), RGB.
        regions: Numbers of regions, of any size with the proportions of the image; -1 where there
            is none to be outlined.
        line: Thickness of the light line and of the casing on either side, pixels.
    """
    seam = _border(_resized(regions, image.shape[:2]), 1).astype(np.uint8)
    casing, core = (
        cv2.dilate(seam, np.ones((side, side), np.uint8)) > 0 for side in (2 * line + 1, line)
    )
    image[casing] = DARK
    image[core] = LIGHT


def heat_map(values: NDArray[np.float32], highest: float) -> Image:
    """Return values (h, w) in 0 .. `highest` as colors (h, w, 3), from black to light yellow."""
    levels = np.clip(255 * values / highest, 0, 255).astype(np.uint8)
    colored = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, :, ::-1]
    return np.ascontiguousarray(colored, np.uint8)


def _resized(numbers: NDArray[Number], size: tuple[int, ...]) -> NDArray[Number]:
    """Return the nearest number for each pixel of another size."""
    rows, columns = (
        (np.arange(count) + 0.5) * have / count
        for count, have in zip(size, numbers.shape, strict=True)
    )
    resized: NDArray[Number] = numbers[rows.astype(np.int64)[:, None], columns.astype(np.int64)]
    return resized


def _border(mask: NDArray[np.generic], line: int) -> NDArray[np.bool_]:
    """Return the pixels within `line` pixels of another number."""
    seam = np.zeros(mask.shape, np.uint8)
    across, down = mask[:, :-1] != mask[:, 1:], mask[:-1] != mask[1:]
    seam[:, :-1] |= across
    seam[:, 1:] |= across
    seam[:-1] |= down
    seam[1:] |= down
    if line > 1:
        seam = cv2.dilate(seam, np.ones((2 * line - 1, 2 * line - 1), np.uint8)).astype(np.uint8)
    return seam > 0
