"""Boxes on an image: thin lines, and small plates of text that stay off the objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.data.palette import Color
from experiments.drawing.text import Image, ink_on, text_width, write

Corners = tuple[int, int, int, int]
"""x_min, y_min, x_max, y_max of pixels, the last two exclusive."""

PLATE_MARGIN = 3
"""Pixels left and right of the text on a plate."""
MAX_HIDDEN = 0.06
"""The share of any box that a plate may cover."""
MANY = 12
"""Beyond so many boxes those that are smaller than their plates go without."""
CASING = 0.3
"""Opacity of the hairlines on both sides of a line, which set it off from any ground; times its
thickness in pixels."""


class Mark(NamedTuple):
    """A box to be drawn.

    Attributes:
        corners: x_min, y_min, x_max, y_max as fractions of the image.
        color: RGB.
        text: For a plate; empty for none.
        dashed: Whether its lines are, which stands for annotated; solid is predicted.
        name: The class.
        score: The probability of a predicted one.
    """

    corners: tuple[float, float, float, float]
    color: Color
    text: str = ""
    dashed: bool = False
    name: str = ""
    score: float | None = None


def draw_boxes(
    image: Image, marks: Sequence[Mark], *, text: int, line: int, max_plates: int
) -> None:
    """Draw boxes on an image in place, the first on top, then the plates there is room for.

    Args:
        image: uint8 (h, w, 3), RGB, contiguous.
        marks: The boxes.
        text: Size of the font, pixels.
        line: Thickness of the lines, pixels.
        max_plates: Beyond so many marks with text none has a plate.
    """
    height, width = image.shape[:2]
    if sum(bool(mark.text) for mark in marks) > max_plates:
        marks = [mark._replace(text="") for mark in marks]
    boxes = [_pixels(mark, height, width) for mark in marks]
    for mark, box in zip(reversed(marks), reversed(boxes), strict=True):
        _frame(image, box, mark, line)
    for mark, plate in zip(marks, plates(boxes, marks, (height, width), text), strict=True):
        if plate is not None:
            left, top, right, bottom = plate
            image[top:bottom, left:right] = mark.color
            middle = (top + bottom) // 2
            write(image, mark.text, left + PLATE_MARGIN, middle, text, ink_on(mark.color))


def plates(
    boxes: Sequence[Corners], marks: Sequence[Mark], size: tuple[int, int], text: int
) -> list[Corners | None]:
    """Return where the plate of each box goes, None where there is no good place.

    A plate is above, below or beside its box, wherever it hides least of other boxes, and never
    more than MAX_HIDDEN of one. It is inside its box only where the image ends all around it.

    Args:
        boxes: In pixels of the image.
        marks: One a box.
        size: (height, width) of the image.
        text: Size of the font, pixels.
    """
    every = np.array(boxes, np.int64).reshape(-1, 4)
    areas = np.maximum((every[:, 2:] - every[:, :2]).prod(1), 1)
    placed: list[Corners | None] = []
    for position, (box, mark) in enumerate(zip(boxes, marks, strict=True)):
        wide, high = text_width(mark.text, text) + 2 * PLATE_MARGIN, text + 4
        if not mark.text or (len(boxes) > MANY and areas[position] < wide * high):
            placed.append(None)
            continue
        taken = np.array([each for each in placed if each is not None], np.int64).reshape(-1, 4)
        best, least = None, MAX_HIDDEN
        for place in _places(box, wide, high, size):
            if _shared(place, taken).any():
                continue
            hidden = float((_shared(place, every) / areas).max())
            if hidden < least or (best is None and hidden == least):
                best, least = place, hidden
        placed.append(best)
    return placed


def _places(box: Corners, wide: int, high: int, size: tuple[int, int]) -> Iterator[Corners]:
    """Yield where a plate might be, the best first: outside, or else inside."""
    height, width = size
    x_min, y_min, x_max, y_max = box
    found = False
    for left, top in (
        (x_min, y_min - high),
        (x_max - wide, y_min - high),
        (x_min, y_max),
        (x_max - wide, y_max),
        (x_max, y_min),
        (x_min - wide, y_min),
        (x_max, y_max - high),
        (x_min - wide, y_max - high),
    ):
        beside = top >= y_min and top + high <= y_max
        moved = left if beside else min(max(left, 0), width - wide)
        if moved >= 0 and moved + wide <= width and top >= 0 and top + high <= height:
            found = True
            yield moved, top, moved + wide, top + high
    left, top = max(x_min, 0), max(y_min, 0)
    if not found and left + wide <= min(x_max, width) and top + high <= min(y_max, height):
        yield left, top, left + wide, top + high


def _shared(box: Corners, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pixels that a box has in common with each of others (n, 4)."""
    low = np.maximum(others[:, :2], box[:2])
    high = np.minimum(others[:, 2:], box[2:])
    shared: NDArray[np.int64] = (high - low).clip(0).prod(1)
    return shared


def _pixels(mark: Mark, height: int, width: int) -> Corners:
    x_min, y_min, x_max, y_max = mark.corners
    left, top = round(x_min * width), round(y_min * height)
    return left, top, max(round(x_max * width), left + 1), max(round(y_max * height), top + 1)


def _frame(image: Image, box: Corners, mark: Mark, line: int) -> None:
    """Draw the outline of a box, with hairlines in a contrasting color along both its sides."""
    height, width = image.shape[:2]
    left, top = max(box[0] - 1, 0), max(box[1] - 1, 0)
    part = image[top : min(box[3] + 1, height), left : min(box[2] + 1, width)]
    edges, gaps = np.zeros((2, *part.shape[:2]), bool)
    dash, gap = 2 * line + 2, 2 * line + 1
    inner = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
    for rows, columns, along in _edges(inner, line):
        gaps[rows, columns] = True
        edge = edges[rows, columns]
        drawn = np.arange(edge.shape[along]) % (dash + gap) < (dash if mark.dashed else dash + gap)
        edge |= drawn[:, None] if along == 0 else drawn
    around = np.zeros_like(edges)
    around[1:] |= edges[:-1]
    around[:-1] |= edges[1:]
    around[:, 1:] |= edges[:, :-1]
    around[:, :-1] |= edges[:, 1:]
    around &= ~(edges | gaps)
    opacity = min(1.0, CASING * line)
    casing = opacity * np.array(ink_on(mark.color), np.float32)
    part[around] = ((1 - opacity) * part[around] + casing).astype(np.uint8)
    part[edges] = mark.color


def _edges(box: Corners, line: int) -> Iterator[tuple[slice, slice, int]]:
    """Yield rows and columns of the four edges of a box, and the axis along which each runs."""

    def within(low: int, high: int) -> slice:
        return slice(max(low, 0), max(high, 0))

    x_min, y_min, x_max, y_max = box
    for low, high in ((y_min, y_min + line), (y_max - line, y_max)):
        yield within(low, high), within(x_min, x_max), 1
    for low, high in ((x_min, x_min + line), (x_max - line, x_max)):
        yield within(y_min, y_max), within(low, high), 0
