"""Boxes drawn on an image, for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE_PIXELS = 320
"""The longer side of a drawing: enough for a word on a box."""
FONT, FONT_SCALE, TEXT_MARGIN_PIXELS = cv2.FONT_HERSHEY_SIMPLEX, 0.3, 2

Image = NDArray[np.uint8]
Color = tuple[int, int, int]


def canvas(picture: Image) -> Image:
    """Return a copy of an RGB image (h, w, 3) with its proportions, its longer side 320 pixels."""
    scale = SIDE_PIXELS / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(picture), size, interpolation=how).astype(np.uint8)


def outline(
    image: Image, boxes: NDArray[np.float32], color: Color, texts: Sequence[str] = ()
) -> None:
    """Draw boxes on an image in place, the first on top.

    Args:
        image: uint8 (h, w, 3), RGB.
        boxes: (n, 4) corners, fractions of the image.
        color: RGB.
        texts: One a box, written above it or, where there is no room, inside; none for no text.
    """
    height, width = image.shape[:2]
    corners = np.rint(boxes * (width, height, width, height)).astype(int).tolist()
    for k in reversed(range(len(corners))):
        x_min, y_min, x_max, y_max = corners[k]
        cv2.rectangle(image, (x_min, y_min), (x_max - 1, y_max - 1), color, 1)
        if texts:
            _write(image, texts[k], max(x_min, 0), max(y_min, 0), color)


def _write(image: Image, text: str, x: int, y: int, color: Color) -> None:
    (text_width, text_height), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    high = text_height + 2 * TEXT_MARGIN_PIXELS
    x = max(0, min(x, image.shape[1] - text_width - 2))
    bottom = y if y >= high else y + high
    cv2.rectangle(image, (x, bottom - high), (x + text_width + 1, bottom), color, cv2.FILLED)
    where = (x + 1, bottom - TEXT_MARGIN_PIXELS)
    cv2.putText(image, text, where, FONT, FONT_SCALE, (0, 0, 0), 1, cv2.LINE_AA)
