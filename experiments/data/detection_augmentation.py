"""The augmentation of SSD, for one image and its boxes.

Source: SSD, Liu et al., arXiv 1512.02325, sections 2.2 ("Data augmentation") and 3.6 (zooming
out), with the numbers and the order of amdegroot/ssd.pytorch @ 5b0b77f: photometric distortion,
expansion, random crop, mirror image, resize.

Expansion and crop are first computed as a window in the coordinates of the image; then one warp
does expansion, crop, mirror image and resize, so the large canvas is never created.
Differs: the distortion changes the pixels of the result and not those of the image, which may be
twenty times as many. The result is equal except for hue and saturation at edges between colors.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

PIXEL_MEAN = (123.0, 117.0, 104.0)
"""ImageNet's mean, RGB in 0..255: subtracted from inputs, and the color of an expanded canvas."""
MAX_BRIGHTNESS = 32.0
FACTORS = (0.5, 1.5)
"""Range of the factors of contrast and saturation."""
MAX_HUE_DEGREES = 18.0
MIN_OVERLAPS = (None, 0.1, 0.3, 0.7, 0.9, 0.0)
"""Modes of the crop: None for the whole image, otherwise the least overlap with some object."""
CROP_TRIES = 50
CHANNEL_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

Pixels = NDArray[np.float32]
Boxes = NDArray[np.float32]


@dataclass(frozen=True)
class _Window:
    """The visible rectangle in pixels of the image; it may reach beyond the image."""

    left: float
    top: float
    width: float
    height: float


def augment(
    image: NDArray[np.uint8],
    boxes: Boxes,
    labels: NDArray[np.int64],
    *,
    size: int,
    flip: bool,
    max_expansion: float = 4.0,
    min_crop: float = 0.3,
    rng: np.random.Generator,
) -> tuple[Pixels, Boxes, NDArray[np.int64]]:
    """Augment a training sample.

    Args:
        image: uint8 (h, w, 3), RGB.
        boxes: (n, 4) corners, pixels.
        labels: (n,).
        size: Side of the result, pixels.
        flip: Mirror half of the results.
        max_expansion: Sides of the largest canvas, in sides of the image; 4 as published.
        min_crop: Sides of the smallest crop, in sides of the image or canvas; 0.3 as published.
        rng: Source of all random numbers.

    Returns:
        float32 (size, size, 3), RGB around 0..255 (distortion does not clip); the remaining (m, 4)
        boxes as fractions of it; their labels (m,). m is at least 1 if n is.
    """
    distortion = _Distortion(rng)
    height, width = image.shape[:2]
    window = _Window(0, 0, width, height)
    window = _expanded(window, max_expansion, rng)
    window, kept = _cropped(window, boxes, min_crop, rng)
    mirrored = flip and bool(rng.random() < 0.5)
    pixels = _render(image, window, size=size, mirrored=mirrored, distortion=distortion)
    return pixels, _follow(boxes[kept], window, mirrored=mirrored), labels[kept]


class _Distortion:
    """Photometric distortion with random parameters, applicable to any part of the image."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._brightness = rng.uniform(-MAX_BRIGHTNESS, MAX_BRIGHTNESS) * (rng.random() < 0.5)
        self._contrast_first = bool(rng.random() < 0.5)
        self._contrast = rng.uniform(*FACTORS) if rng.random() < 0.5 else None
        self._saturation = rng.uniform(*FACTORS) if rng.random() < 0.5 else None
        hue = rng.uniform(-MAX_HUE_DEGREES, MAX_HUE_DEGREES)
        self._hue = hue if rng.random() < 0.5 else None
        order = CHANNEL_ORDERS[int(rng.integers(len(CHANNEL_ORDERS)))]
        self._order = order if rng.random() < 0.5 else None

    def __call__(self, image: NDArray[np.uint8]) -> Pixels:
        """Return float32, not clipped to 0..255."""
        pixels = image.astype(np.float32)
        pixels += np.float32(self._brightness)
        if self._contrast is not None and self._contrast_first:
            pixels *= np.float32(self._contrast)
        if self._saturation is not None or self._hue is not None:
            hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
            if self._saturation is not None:
                hsv[..., 1] = hsv[..., 1] * self._saturation
            if self._hue is not None:
                hsv[..., 0] = (hsv[..., 0] + self._hue) % 360
            pixels = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32, copy=False)
        if self._contrast is not None and not self._contrast_first:
            pixels *= np.float32(self._contrast)
        if self._order is not None:
            pixels = np.ascontiguousarray(pixels[..., self._order])
        return pixels


def _expanded(window: _Window, max_expansion: float, rng: np.random.Generator) -> _Window:
    """Place the image at random on a larger canvas, with a probability of one half."""
    if rng.random() < 0.5:
        return window
    ratio = rng.uniform(1, max_expansion)
    width, height = int(window.width * ratio), int(window.height * ratio)
    left = int(rng.uniform(0, width - window.width))
    top = int(rng.uniform(0, height - window.height))
    return _Window(-left, -top, width, height)


def _cropped(
    window: _Window, boxes: Boxes, min_crop: float, rng: np.random.Generator
) -> tuple[_Window, NDArray[np.int64]]:
    """Choose a patch that contains the center of some object; return it and the objects in it.

    Differs: in a mode with a least overlap some object overlaps the patch by at least as much, as
    in the paper; upstream's condition ("min < wanted and max > infinity") never rejects a patch. An
    image without objects is not cropped; upstream cannot train on one.
    """
    everything = np.arange(len(boxes))
    if not len(boxes):
        return window, everything
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    origin = np.array([window.left, window.top]).astype(np.int64)
    while True:
        least = MIN_OVERLAPS[int(rng.integers(len(MIN_OVERLAPS)))]
        if least is None:
            return window, everything
        sides = rng.uniform(min_crop, 1, (CROP_TRIES, 2)) * (window.width, window.height)
        offsets = rng.uniform(0, 1, (CROP_TRIES, 2)) * ((window.width, window.height) - sides)
        low = origin + offsets.astype(np.int64)
        high = origin + (offsets + sides).astype(np.int64)
        shown = (centers > low[:, None]) & (centers < high[:, None])
        inside: NDArray[np.bool_] = np.all(shown, axis=2)
        overlap = _overlaps(np.concatenate([low, high], 1).astype(np.float32), boxes)
        aspect = sides[:, 1] / sides[:, 0]
        good = (aspect >= 0.5) & (aspect <= 2) & inside.any(1) & (overlap.max(1) >= least)
        if good.any():
            first = int(good.argmax())
            (left, top), (right, bottom) = low[first].tolist(), high[first].tolist()
            return _Window(left, top, right - left, bottom - top), np.flatnonzero(inside[first])


def _overlaps(patches: Boxes, boxes: Boxes) -> NDArray[np.float32]:
    """Return the intersection over union of each patch with each box."""
    low = np.maximum(patches[:, None, :2], boxes[None, :, :2])
    high = np.minimum(patches[:, None, 2:], boxes[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (patches, boxes)]
    overlaps: NDArray[np.float32] = shared / (areas[0][:, None] + areas[1] - shared)
    return overlaps


def _render(
    image: NDArray[np.uint8],
    window: _Window,
    *,
    size: int,
    mirrored: bool,
    distortion: _Distortion,
) -> Pixels:
    """Render the window at (size, size) by linear interpolation, with the mean color outside."""
    x, step_x, shown_x = _samples(window.left, window.width, image.shape[1], size)
    y, step_y, shown_y = _samples(window.top, window.height, image.shape[0], size)
    if mirrored:
        x, step_x, shown_x = x + (size - 1) * step_x, -step_x, shown_x[::-1]
    warped = cv2.warpAffine(
        image,
        np.array([[step_x, 0, x], [0, step_y, y]], np.float64),
        (size, size),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    pixels = distortion(warped.astype(np.uint8, copy=False))
    if shown_x.min() < 1 or shown_y.min() < 1:
        ground = np.array(PIXEL_MEAN, np.float32)
        pixels = ground + (pixels - ground) * (shown_y[:, None] * shown_x)[:, :, None]
    return pixels


def _samples(start: float, extent: float, side: int, size: int) -> tuple[float, float, Pixels]:
    """Place `size` samples along one axis of a window.

    Returns:
        Coordinate of the first sample, in pixels of the image; distance between two samples;
        (size,) fraction of each sample that is image and not canvas. If the window ends at the
        border of the image, samples there are all image.
    """
    step = extent / size
    first = start + 0.5 * step - 0.5
    at = first + step * np.arange(size)
    before = at + 1 if start < 0 else np.ones(size)
    behind = side - at if start + extent > side else np.ones(size)
    return first, step, np.minimum(before, behind).clip(0, 1).astype(np.float32)


def _follow(boxes: Boxes, window: _Window, *, mirrored: bool) -> Boxes:
    """Convert boxes to fractions of the window and clip them to it."""
    origin = np.array([window.left, window.top] * 2, np.float32)
    extent = np.array([window.width, window.height] * 2, np.float32)
    fractions = ((boxes - origin) / extent).clip(0, 1).astype(np.float32, copy=False)
    if mirrored:
        fractions = np.stack(
            [1 - fractions[:, 2], fractions[:, 1], 1 - fractions[:, 0], fractions[:, 3]], 1
        )
    return fractions
