"""Painted regions in the codes that tools have for them: run lengths, brush strokes, polygons.

Label Studio's brush strokes are packed bit by bit as thi.ng/rle-pack does: the number of values,
32 bits; their width less one, 5 bits; four widths of run lengths less one, 4 bits each; then runs,
each a bit (one value repeated, or that many values), 2 bits that choose the width, the length less
one, and the value or values.

Every decoder takes time and memory in proportion to its input and to the region that it states. The
caller makes sure that this region is that of an image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import Patch, Size, UnusableFile

Region = NDArray[np.bool_]
CHANNELS = 4
"""Label Studio packs RGBA."""
MAX_CORNERS = 100_000
"""Limit for one polygon: the time to draw it grows with its corners and with their rows."""
MAX_COORDINATE = 10.0**7
"""Limit for the corners of a polygon, in pixels: ten times the longest image."""


def runs_of(values: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of runs of a flat region, beginning with one of False, perhaps empty."""
    edges = np.flatnonzero(np.diff(values.astype(np.int8))) + 1
    lengths = np.diff(np.concatenate([[0], edges, [values.size]]))
    first = [0] if values.size and values[0] else []
    return first + [int(length) for length in lengths]


def from_runs(runs: Sequence[int], count: int) -> NDArray[np.bool_]:
    """Return the flat region of `count` pixels that has such runs.

    Raises:
        UnusableFile: They do not add up to it.
    """
    lengths = _lengths(runs, count)
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths)


def from_column_runs(runs: Sequence[int], size: Size) -> Patch:
    """Return the columns that are covered by runs down the columns of an image.

    Raises:
        UnusableFile: They do not add up to the image.
    """
    height, width = size
    lengths = _lengths(runs, height * width)
    ends = lengths.cumsum()
    starts, stops = ends[0::2][: len(ends) // 2], ends[1::2]  # of what is covered
    there = stops > starts
    if not there.any():
        return Patch(0, 0, np.zeros((0, 0), bool))
    left = int(starts[there][0]) // height
    right = (int(stops[there][-1]) - 1) // height + 1
    changes = np.zeros((right - left) * height + 1, np.int8)
    changes[starts[there] - left * height] += 1
    changes[stops[there] - left * height] -= 1
    columns = changes[:-1].cumsum(dtype=np.int8) > 0
    return Patch(0, left, columns.reshape(right - left, height).T)


def _lengths(runs: Sequence[int], count: int) -> NDArray[np.int64]:
    """Check run lengths before they become an array: a sum in 64 bits could wrap around."""
    whole = all(isinstance(run, int) and 0 <= run <= count for run in runs)
    if not whole or sum(runs) != count:
        raise UnusableFile(f"run lengths must add up to the {count} pixels of the region")
    return np.array(runs, np.int64)


def from_polygons(polygons: Sequence[Sequence[float]], size: Size) -> Patch:
    """Cover the pixels whose middles lie in any of the polygons x, y, x, y, ... in pixels.

    Raises:
        UnusableFile: One has fewer than three corners, too many, or a coordinate far outside.
    """
    found = [_covered(_corners(polygon), size) for polygon in polygons]
    top = min((patch.top for patch in found if patch.covered.size), default=0)
    left = min((patch.left for patch in found if patch.covered.size), default=0)
    bottom = max((patch.top + patch.covered.shape[0] for patch in found), default=0)
    right = max((patch.left + patch.covered.shape[1] for patch in found), default=0)
    covered = np.zeros((max(0, bottom - top), max(0, right - left)), bool)
    for patch in found:
        height, width = patch.covered.shape
        y, x = patch.top - top, patch.left - left
        if patch.covered.size:
            covered[y : y + height, x : x + width] |= patch.covered
    return Patch(top, left, covered)


def polygons_area(polygons: Sequence[Sequence[float]], size: Size) -> int:
    """Return an upper bound of the pixels that polygons are drawn on, without drawing them."""
    return sum(math.prod(_frame(_corners(polygon), size)[2:]) for polygon in polygons)


def _corners(polygon: Sequence[float]) -> NDArray[np.float64]:
    if len(polygon) < 6 or len(polygon) % 2:
        raise UnusableFile("a polygon needs three corners or more, two numbers each")
    if len(polygon) > 2 * MAX_CORNERS:
        raise UnusableFile(f"a polygon has more than {MAX_CORNERS} corners")
    if not all(abs(value) <= MAX_COORDINATE for value in polygon):  # NaN neither
        raise UnusableFile(f"a polygon's corner is beyond {MAX_COORDINATE:.0f} pixels")
    return np.array(polygon, np.float64).reshape(-1, 2)


def _frame(points: NDArray[np.float64], size: Size) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the pixels that a polygon may cover."""
    (x_min, y_min), (x_max, y_max) = points.min(0).tolist(), points.max(0).tolist()
    top, bottom = (min(max(math.ceil(edge - 0.5), 0), size[0]) for edge in (y_min, y_max))
    left, right = (min(max(math.ceil(edge - 0.5), 0), size[1]) for edge in (x_min, x_max))
    return top, left, bottom - top, right - left


def _covered(points: NDArray[np.float64], size: Size) -> Patch:
    top, left, height, width = _frame(points, size)
    if not height or not width:
        return Patch(0, 0, np.zeros((0, 0), bool))
    crossed = np.zeros((height, width + 1), bool)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        (x, y), (to_x, to_y) = sorted((start.tolist(), end.tolist()), key=lambda p: p[1])
        first, last = (
            min(max(math.ceil(edge - 0.5), top), top + height) - top for edge in (y, to_y)
        )
        rows = np.arange(first, last)  # whose middles the side passes; none if it is level
        if rows.size:
            at = x + (rows + top + 0.5 - y) * (to_x - x) / (to_y - y)
            columns = np.clip(np.ceil(at - 0.5) - left, 0, width).astype(np.int64)
            crossed[rows, columns] ^= True
    return Patch(top, left, np.logical_xor.accumulate(crossed, axis=1)[:, :width])


def from_coco_string(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed form holds.

    Five bits a character from the lowest, a sixth that says whether more follow, counted from "0";
    from the fourth length on, the text has the difference to the one before the last.

    Raises:
        UnusableFile: It is cut short, has other characters, or a length of more than 32 bits.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64 or shift > 30:
            raise UnusableFile("its run lengths are not in COCO's compressed form")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise UnusableFile("its run lengths are cut short")
    return runs


def to_brush(region: Region) -> list[int]:
    """Pack a region as Label Studio packs a brush stroke: a list of bytes."""
    runs = runs_of(region.ravel())
    widths = (4, 8, 12, 16)  # bits of a run's length
    bits = [_bits(region.size * CHANNELS, 32), _bits(7, 5)]
    bits += [_bits(width - 1, 4) for width in widths]
    for position, pixels in enumerate(runs):
        left = pixels * CHANNELS
        while left:
            length = min(left, 1 << widths[-1])
            chosen = next(i for i, width in enumerate(widths) if length <= 1 << width)
            bits.append(f"1{_bits(chosen, 2)}{_bits(length - 1, widths[chosen])}")
            bits.append(_bits(255 * (position % 2), 8))
            left -= length
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush(packed: Sequence[int], size: Size) -> Region:
    """Unpack a brush stroke: the pixels that are not transparent.

    Args:
        packed: Whole numbers 0 .. 255.
        size: (height, width) of the image in pixels.

    Raises:
        UnusableFile: It is cut short, or of another size.
    """
    height, width = size
    text = "".join(f"{byte:08b}" for byte in packed)
    try:
        count, word = int(text[:32], 2), int(text[32:37], 2) + 1
        if count != height * width * CHANNELS:
            raise UnusableFile(f"a brush stroke is not of the image's size, {height}x{width}")
        widths = [int(text[37 + 4 * i : 41 + 4 * i], 2) + 1 for i in range(4)]
        flat = np.empty(count, bool)
        at, seen = 53, 0
        while seen < count:
            repeated, bits = text[at] == "1", widths[int(text[at + 1 : at + 3], 2)]
            length = int(text[at + 3 : at + 3 + bits], 2) + 1
            at += 3 + bits
            given = 1 if repeated else min(length, count - seen)
            values = [int(text[at + i * word : at + (i + 1) * word], 2) > 0 for i in range(given)]
            at += given * word
            flat[seen : seen + length] = values[0] if repeated else values
            seen += length
    except (ValueError, IndexError):
        raise UnusableFile(
            "a brush stroke is cut short or not packed as Label Studio does"
        ) from None
    opaque: Region = flat.reshape(height, width, CHANNELS)[:, :, CHANNELS - 1]
    return opaque


def _bits(value: int, width: int) -> str:
    return f"{value:0{width}b}"
