"""Photographs as squares of one size: how their sides are treated, and a cache of the result."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.decoding import UnreadableImage, read_rgb, resize_square, resized
from experiments.data.resize_cache import ResizeCache
from experiments.data.samples import Samples
from experiments.settings.checks import check_folder
from experiments.settings.input_format import DEFAULT_INTERPOLATION, check_interpolation

RESIZES = ("crop", "letterbox", "stretch")
BAR = 114
"""Gray level of a letterbox's bars: 0.449 of 255, the mean of ImageNet's pixels."""
LONGEST_SHOWN = 1280
"""Longer side in pixels of what is kept to be shown: that of the largest pictures of a gallery."""


@dataclass(frozen=True)
class SquareReader:
    """Reads image files as squares of one size, from a cache where they are in it.

    Attributes:
        image_size: Side in pixels.
        resize: "crop" keeps the center square, "letterbox" the whole image between gray bars, and
            "stretch" the whole image without its aspect ratio.
        cache: Folder that keeps the squares; None for no cache. It changes nothing but the speed.
        interpolation: One of `INTERPOLATIONS`.

    Raises:
        InvalidSetting: Another way to resize or to interpolate, or a cache that is no folder.
    """

    image_size: int
    resize: str = "crop"
    cache: str | Path | None = None
    interpolation: str = DEFAULT_INTERPOLATION
    _kept: ResizeCache | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.resize not in RESIZES:
            raise InvalidSetting(
                f"data.resize must be one of {', '.join(RESIZES)}, got {self.resize!r}"
            )
        check_interpolation("data.interpolation", self.interpolation)
        kept = None
        if self.cache is not None:
            folder = check_folder("data.cache", self.cache)
            if folder.exists() and not folder.is_dir():
                raise InvalidSetting(f"data.cache: {folder} is no folder")
            is_default = self.interpolation == DEFAULT_INTERPOLATION
            way = self.resize if is_default else f"{self.resize}-{self.interpolation}"
            kept = ResizeCache(folder, resize=way, image_size=self.image_size)
        object.__setattr__(self, "_kept", kept)

    def __call__(self, path: Path) -> NDArray[np.uint8]:
        """Return uint8 (image_size, image_size, 3), RGB.

        Raises:
            UnreadableImage: As `read_rgb`.
        """
        if self._kept is None:
            return self._square(path)
        key = self._kept.key(path)
        square = self._kept.read(key)
        if square is None:
            square = self._square(path)
            self._kept.write(key, square)
        return square

    def _square(self, path: Path) -> NDArray[np.uint8]:
        return fit_square(read_rgb(path), self.image_size, self.resize, self.interpolation)


def whole_image(samples: Samples, index: int) -> NDArray[np.uint8]:
    """Return an image with all of its sides, to be shown: uint8 (height, width, 3), RGB.

    A larger one is shrunk to `LONGEST_SHOWN` pixels. An image of no file, or whose file is gone by
    now, is returned as the network is given it.

    Raises:
        UnreadableImage: The file is gone, and the image is not kept in memory.
    """
    if samples.paths is not None:
        with suppress(UnreadableImage):
            image = read_rgb(samples.paths[index])
            scale = min(1.0, LONGEST_SHOWN / max(image.shape[:2]))
            height, width = (max(1, round(scale * side)) for side in image.shape[:2])
            return resized(image, height, width)
    pixels: NDArray[np.uint8] = samples.images(np.array([index]))[0].numpy()
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def fit_square(
    image: NDArray[np.uint8], size: int, resize: str, interpolation: str = DEFAULT_INTERPOLATION
) -> NDArray[np.uint8]:
    """Bring an image of any shape to a square.

    Args:
        image: uint8 (height, width, 3).
        size: Side of the result in pixels.
        resize: One of `RESIZES`.
        interpolation: One of `INTERPOLATIONS`.
    """
    if resize == "crop":
        return resize_square(image, size, interpolation)
    height, width = image.shape[:2]
    if resize == "stretch":
        return resized(image, size, size, interpolation)
    top, left, inner_height, inner_width = letterbox(height, width, size)
    inner = resized(image, inner_height, inner_width, interpolation)
    if inner.shape == (size, size, 3):
        return inner
    square = np.full((size, size, 3), BAR, np.uint8)
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def letterbox(height: int, width: int, size: int) -> tuple[int, int, int, int]:
    """Return where an image lies in the square of a letterbox: top, left, height, width, pixels."""
    scale = size / max(height, width)
    inner_height, inner_width = (max(1, round(scale * side)) for side in (height, width))
    return (size - inner_height) // 2, (size - inner_width) // 2, inner_height, inner_width
