"""Panels to pictures: tiles with their names, and a legend below.

Lines and text are as thick in a small picture as in a large one, so neither is the other resized.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from experiments.drawing.boxes import draw_boxes
from experiments.drawing.masks import draw_classes, draw_outlines, name_classes
from experiments.drawing.panel import Key, Panel, Tile
from experiments.drawing.skeletons import draw_figures
from experiments.drawing.text import DARK, LIGHT, Image, clipped, text_width, write

MAX_PIXELATED = 160
"""Longer side of images that are magnified pixel by pixel, so that people see what the model saw;
larger ones are photographs, which are magnified smoothly."""


@dataclass(frozen=True)
class Form:
    """The size in which a panel is drawn; all in pixels.

    Attributes:
        single: The least and the largest longer side of the tile of a panel that has one.
        several: The same of each tile of a panel that has several.
        text: Size of the font.
        line: Thickness of lines.
        max_plates: Beyond so many boxes with text only colors and legend say what they are.
        names_classes: Whether the names of classes are written on their areas, too.
        wide: Whether two tiles are side by side whatever their shape, as screens are wide.
    """

    single: tuple[int, int]
    several: tuple[int, int]
    text: int
    line: int
    max_plates: int
    names_classes: bool
    wide: bool


FULL = Form(
    single=(640, 1280),
    several=(480, 640),
    text=14,
    line=2,
    max_plates=60,
    names_classes=True,
    wide=True,
)
THUMBNAIL = Form(
    single=(240, 320),
    several=(240, 240),
    text=11,
    line=1,
    max_plates=6,
    names_classes=False,
    wide=False,
)


def render(panel: Panel, form: Form) -> Image:
    """Draw a panel: its tiles with their names, two in a row, and the legend below.

    Returns:
        uint8 (h, w, 3), RGB.
    """
    height, width = panel.tiles[0].picture.shape[:2]
    single = len(panel.tiles) == 1
    least, most = form.single if single else form.several
    painted = [_painted(panel, tile, form, least, most) for tile in panel.tiles]
    if not single:
        painted = [
            np.vstack([_heading(tile, image.shape[1], form), image])
            for tile, image in zip(panel.tiles, painted, strict=True)
        ]
    # Two wide tiles of a small picture are one above the other, which is nearly square.
    stacked = len(painted) == 2 and width >= height and not form.wide
    columns = 1 if single or stacked else 2
    gap, legend = 2 * form.line, panel.legend
    rows = []
    for first in range(0, len(painted), columns):
        row = painted[first : first + columns]
        if len(row) < columns:  # of three tiles: the legend has the place of the fourth
            free = np.full_like(row[0], DARK, np.uint8)
            listed = _legend(legend, free.shape[1], form)
            if sum(map(len, listed)) <= len(free):
                legend = ()
                beside = np.vstack([free[:0], *listed])
                free[: len(beside)] = beside
            row.append(free)
        rows.append(_joined(row, gap, axis=1))
    sheet = _joined(rows, gap, axis=0)
    return np.ascontiguousarray(np.vstack([sheet, *_legend(legend, sheet.shape[1], form)]))


def jpeg(image: Image, *, quality: int = 88) -> bytes:
    """Encode an RGB image (h, w, 3) with colors at full resolution, which thin lines need."""
    full_resolution = (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, *full_resolution, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return _encoded(".jpg", image, flags)


def webp(image: Image, *, quality: int = 80) -> bytes:
    """Encode an RGB image (h, w, 3) in less than half the bytes of a JPEG, for web pages."""
    return _encoded(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, quality])


def scaled(picture: Image, least: int, most: int) -> Image:
    """Return a copy of an image whose longer side is in `least` .. `most`.

    Small images are magnified by a whole number, so their longer side may exceed `least`.
    """
    height, width = picture.shape[:2]
    longer = max(height, width)
    factor, how = 1.0, cv2.INTER_NEAREST
    if longer > most:
        factor, how = most / longer, cv2.INTER_AREA
    elif longer < least and longer <= MAX_PIXELATED:
        factor = -(-least // longer)
    elif longer < least:
        factor, how = least / longer, cv2.INTER_CUBIC
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how).astype(np.uint8)


def _encoded(suffix: str, image: Image, flags: Sequence[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done, f"OpenCV cannot write {suffix}"
    return data.tobytes()


def _painted(panel: Panel, tile: Tile, form: Form, least: int, most: int) -> Image:
    image = scaled(tile.picture, least, most)
    if tile.classes is not None:
        classes = tile.classes
        given = (classes.colors, classes.tinted)
        draw_classes(image, classes.mask, *given, line=form.line)
    if panel.outlined is not None:
        draw_outlines(image, panel.outlined, line=form.line)
    if tile.classes is not None and form.names_classes:
        name_classes(image, classes.mask, classes.names, *given, text=form.text)
    draw_figures(image, tile.figures, tile.gaps, line=form.line)
    draw_boxes(image, tile.marks, text=form.text, line=form.line, max_plates=form.max_plates)
    return image


def _heading(tile: Tile, width: int, form: Form) -> Image:
    """Return the strip above a tile: its name and, of a map, the colors with both ends."""
    image = np.full((form.text + 8, width, 3), DARK, np.uint8)
    middle, left, right = len(image) // 2, form.text // 2, width - form.text // 2
    if tile.scale:
        ends = text_width(tile.scale, form.text), text_width("0", form.text)
        wide = min(width // 4, right - left - sum(ends) - form.text)
        if wide > 0:
            write(image, tile.scale, right - ends[0], middle, form.text, LIGHT)
            right -= ends[0] + form.text // 2
            ramp = np.tile(np.linspace(0, 255, wide).astype(np.uint8), (form.text - 2, 1))
            bar = image[middle - len(ramp) // 2 :][: len(ramp), right - wide : right]
            bar[...] = cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, :, ::-1]
            right -= wide + form.text // 2 + ends[1]
            write(image, "0", right, middle, form.text, LIGHT)
            right -= form.text // 2
    write(image, clipped(tile.name, form.text, right - left), left, middle, form.text, LIGHT)
    return image


def _legend(keys: Sequence[Key], width: int, form: Form) -> list[Image]:
    """Return the rows of the legend, as many as it needs; each entry as a sample and its name."""
    text, pad = form.text, form.text // 2
    rows: list[Image] = []
    left = width
    for key in keys:
        sample = 2 * text if key.line else text - 2
        name = clipped(key.name, text, width - sample - 3 * pad)
        wide = sample + text_width(name, text) + 3 * pad
        if left + wide > width:
            rows.append(np.full((text + 8, width, 3), DARK, np.uint8))
            left = pad
        row, middle = rows[-1], len(rows[-1]) // 2
        if key.line:
            dashes = 1.0 if key.line == "solid" else 0.0
            for x in range(min(sample, width - left)):  # a picture may be a few pixels wide
                if dashes or x % (5 * form.line) < 3 * form.line:
                    row[middle - form.line // 2 :][: form.line, left + x] = key.color
        else:
            row[middle - sample // 2 :][:sample, left : left + sample] = key.color
        write(row, name, left + sample + pad // 2, middle, text, LIGHT)
        left += wide
    return rows


def _joined(images: Sequence[Image], gap: int, *, axis: int) -> Image:
    """Put images side by side (axis 1) or above each other (axis 0) with dark gaps."""
    shape = list(images[0].shape)
    shape[axis] = gap
    between = np.full(shape, DARK, np.uint8)
    parts = [part for image in images for part in (between, image)][1:]
    return np.concatenate(parts, axis=axis)
