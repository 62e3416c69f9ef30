"""Text on images: measured, clipped to its room, anti-aliased.

OpenCV 5 brings TrueType fonts with Latin, Greek, Cyrillic and Chinese letters. OpenCV 4 has stroke
fonts for ASCII alone; other letters become "?" there.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.palette import Color

Image = NDArray[np.uint8]
LIGHT, DARK = (242, 243, 245), (30, 32, 36)
"""Text on dark and on light ground; DARK is also the frame around tiles."""
_ELLIPSIS = "..."
_STROKE_FONT = cv2.FONT_HERSHEY_SIMPLEX
_STROKE_HEIGHT = 30.0
"""Pixels of a line in the stroke font at scale 1."""


def text_width(text: str, height: int) -> int:
    """Return the width in pixels of a text whose font has this size in pixels."""
    font = _font()
    if font is None:
        (width, _), _ = cv2.getTextSize(_ascii(text), _STROKE_FONT, height / _STROKE_HEIGHT, 1)
        return int(width)
    (_, _, width, _) = cv2.getTextSize((1, 1), text, (0, 0), font, height)
    return int(width)


def clipped(text: str, height: int, width: int) -> str:
    """Return the text, cut short with "..." where it is wider than `width` pixels."""
    if text_width(text, height) <= width:
        return text
    kept = len(text)
    while kept and text_width(text[:kept].rstrip() + _ELLIPSIS, height) > width:
        kept -= 1
    return text[:kept].rstrip() + _ELLIPSIS if kept else ""


def write(image: Image, text: str, left: int, middle: int, height: int, color: Color) -> None:
    """Write a text on an RGB image in place.

    Args:
        image: uint8 (h, w, 3), contiguous.
        text: One line.
        left: Where it begins, pixels.
        middle: The row that capital letters are centered on.
        height: Size of the font, pixels.
        color: RGB.
    """
    baseline = middle + round(0.36 * height)  # capitals are about 0.72 of the size of the font
    font = _font()
    if font is None:
        scale = height / _STROKE_HEIGHT
        where = (left, baseline)
        cv2.putText(image, _ascii(text), where, _STROKE_FONT, scale, color, 1, cv2.LINE_AA)
    else:
        cv2.putText(image, text, (left, baseline), color, font, height)


def ink_on(color: Color) -> Color:
    """Return the color of text, light or dark, that has more contrast on this ground."""
    red, green, blue = color
    return DARK if 0.299 * red + 0.587 * green + 0.114 * blue > 128 else LIGHT


@cache
def _font() -> Any:
    """Return OpenCV's TrueType font, or None where OpenCV has none."""
    face = getattr(cv2, "FontFace", None)
    return None if face is None else face("sans")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()
