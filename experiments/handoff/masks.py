"""Masks in the ways that tools keep them: PNG files, run lengths of COCO, CVAT and Label Studio,
and polygons.

Label Studio's brush strokes are packed bit by bit as thi.ng/rle-pack does: the number of values,
32 bits; their width less one, 5 bits; four widths of run lengths less one, 4 bits each; then runs,
each a bit (one value repeated, or that many values), 2 bits that choose the width, the length less
one, and the value or values.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from experiments.data.header import PILLOW_FORMATS
from experiments.data.labels import NO_CLASS, Mask, Rules, UnusableFile

Region = NDArray[np.bool_]
MAX_PIXELS = 2**30
LABELMAP = "labelmap.txt"
CHANNELS = 4
"""Label Studio packs RGBA."""


def read_png(data: bytes, rules: Rules) -> Mask:
    """Decode a mask: class numbers as gray values or positions in a palette, 255 for none.

    With `rules.colors` it may be in color instead.

    Raises:
        UnusableFile: It is no image, or has a class or a color that there is not.
    """
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as opened:
            if opened.mode in ("RGB", "RGBA", "P") and rules.colors:
                return _from_colors(np.asarray(opened.convert("RGB")), rules)
            if opened.mode not in ("L", "P", "1"):
                raise UnusableFile(
                    f"a mask needs one channel of class numbers, or {LABELMAP} beside it; this "
                    f"one is {opened.mode}"
                )
            mask = np.array(opened).astype(np.uint8)
    except UnidentifiedImageError:
        raise UnusableFile("not an image of a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableFile(f"it cannot be decoded: {error}") from None
    beyond = (mask >= len(rules.class_names)) & (mask != NO_CLASS)
    if beyond.any():
        raise UnusableFile(
            f"it has class {mask[beyond].max()}; there are 0 .. {len(rules.class_names) - 1}, and "
            "255 for none"
        )
    return mask


def _from_colors(image: NDArray[np.uint8], rules: Rules) -> Mask:
    packed = image.astype(np.int64) @ np.array([65536, 256, 1])
    mask = np.full(packed.shape, NO_CLASS, np.uint8)
    for color in np.unique(packed).tolist():
        rgb = (color >> 16, color >> 8 & 255, color & 255)
        name = rules.colors.get(rgb)
        if name is None:
            raise UnusableFile(f"the color {rgb} is not in {LABELMAP}")
        if name == "background":
            mask[packed == color] = rules.uncovered
        else:
            mask[packed == color] = rules.class_names.index(rules.check_class(name))
    return mask


def write_png(mask: Mask) -> bytes:
    """Encode a mask as gray values."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def read_labelmap(path: Path) -> dict[tuple[int, int, int], str]:
    """Read CVAT's `label:r,g,b:parts:actions` lines; without colors, those of Pascal VOC's masks.

    Raises:
        UnusableFile: A line is of another form.
    """
    colors: dict[tuple[int, int, int], str] = {}
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, color = line.split(":")[:2]
            red, green, blue = map(int, color.split(",")) if color else _voc_color(len(colors))
        except ValueError:
            raise UnusableFile(
                f"a line must be label:r,g,b:parts:actions, it is {line!r}"
            ) from None
        colors[red, green, blue] = name
    return colors


def _voc_color(label: int) -> tuple[int, int, int]:
    """Return Pascal VOC's color of a class: its bits, dealt to red, green, blue from the top."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


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
    lengths = np.asarray(runs)
    whole = lengths.ndim == 1 and np.issubdtype(lengths.dtype, np.integer)
    if not whole or (lengths < 0).any() or lengths.sum() != count:
        raise UnusableFile(f"run lengths must add up to the {count} pixels of the region")
    return np.repeat(np.arange(lengths.size) % 2 == 1, lengths)


def from_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> Region:
    """Cover the pixels whose middles lie in any of the polygons x, y, x, y, ... in pixels.

    Raises:
        UnusableFile: One has fewer than three corners, or no numbers.
    """
    height, width = size
    covered = np.zeros(size, bool)
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64)
        fits = corners.ndim == 1 and corners.size >= 6 and corners.size % 2 == 0
        if not fits or not np.isfinite(corners).all():
            raise UnusableFile("a polygon needs three corners or more, two numbers each")
        points = corners.reshape(-1, 2)
        crossings = np.zeros((height, width + 1), np.int64)
        for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
            (x, y), (to_x, to_y) = sorted((start.tolist(), end.tolist()), key=lambda p: p[1])
            first, last = (min(max(math.ceil(edge - 0.5), 0), height) for edge in (y, to_y))
            rows = np.arange(first, last)  # whose middles the side passes; none if it is level
            if rows.size:
                at = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
                columns = np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
                np.add.at(crossings, (rows, columns), 1)
        covered |= crossings.cumsum(1)[:, :width] % 2 == 1
    return covered


def from_coco_string(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed form holds.

    Five bits a character from the lowest, a sixth that says whether more follow, counted from "0";
    from the fourth length on, what is kept is the difference to the one before the last.

    Raises:
        UnusableFile: It is cut short or has other characters.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
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


def from_brush(packed: Sequence[int], size: tuple[int, int]) -> Region:
    """Unpack a brush stroke: what is not transparent.

    Raises:
        UnusableFile: It is cut short, or of another size than (height, width).
    """
    height, width = size
    try:
        text = "".join(f"{byte:08b}" for byte in bytes(packed))
        count, word = int(text[:32], 2), int(text[32:37], 2) + 1
        if count != height * width * CHANNELS or count > MAX_PIXELS:
            raise UnusableFile(f"a brush stroke is not of the image's size, {height}x{width}")
        widths = [int(text[37 + 4 * i : 41 + 4 * i], 2) + 1 for i in range(4)]
        at, parts, seen = 53, [], 0
        while seen < count:
            repeated, bits = text[at] == "1", widths[int(text[at + 1 : at + 3], 2)]
            length = int(text[at + 3 : at + 3 + bits], 2) + 1
            at += 3 + bits
            given = 1 if repeated else length
            values = [int(text[at + i * word : at + (i + 1) * word], 2) for i in range(given)]
            at += given * word
            parts.append(np.repeat(values, length) if repeated else np.array(values))
            seen += length
    except (ValueError, IndexError, TypeError):
        raise UnusableFile(
            "a brush stroke is cut short or not packed as Label Studio does"
        ) from None
    flat = np.concatenate(parts)[:count].reshape(height, width, CHANNELS)
    opaque: Region = flat[:, :, CHANNELS - 1] > 0
    return opaque


def _bits(value: int, width: int) -> str:
    return f"{value:0{width}b}"
