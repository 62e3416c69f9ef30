"""Decode image files of common formats to RGB uint8 arrays, and report broken files with a reason.

OpenCV decodes first: it is the fastest of the measured decoders, bit-equal to Pillow on JPEG and
PNG, and releases the GIL, so threads are enough. Pillow decodes the files that OpenCV cannot read
(GIF and AVIF in older releases, rare modes) and gives the reason if neither can. Both apply the
EXIF orientation, drop an alpha channel, repeat a gray one, and reduce 16 bits to 8.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from al_core.errors import ActiveLearningError
from experiments.data.header import (
    MAX_PIXELS,
    PILLOW_FORMATS,
    is_damaged_png,
    size_in_header,
)
from experiments.data.retrying import is_permanent, retried
from experiments.engine.cores import num_cores
from experiments.settings.input_format import DEFAULT_INTERPOLATION

# Each image is decoded by one thread; several images are decoded in parallel.
cv2.setNumThreads(0)
# OpenCV prints several lines for each broken file; the reason is returned and reported instead.
# (OpenCV 4 has the function at its top, OpenCV 5 in a module.)
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)

_MAX_CHUNK = 64  # images a thread takes at once: handing over one costs as much as a small JPEG
_MAX_THREADS = 16  # a bound for machines of many cores: each thread holds an image at full size


class UnreadableImage(ActiveLearningError):
    """An image that cannot be read or decoded; the text is the reason, without the file's name."""


class TooManyPixels(UnreadableImage):
    """An image file that is not decoded because of its size."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """`images`: uint8 (n, 3, size, size), zero where `unreadable` has position -> reason."""

    images: Tensor
    unreadable: dict[int, str]


def read_rgb(path: str | os.PathLike[str], *, max_pixels: float = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode one image file at its full size, upright.

    The size in its header is checked before any pixel is decoded. Where reading fails for a reason
    that is not the file's own, it is tried again a few times.

    Args:
        path: The file.
        max_pixels: Images with more pixels are refused.

    Returns:
        uint8 (height, width, 3), RGB; the first image of an animation or of several pages.

    Raises:
        TooManyPixels: It has more than `max_pixels`.
        UnreadableImage: The file is missing, empty, cut short, damaged or no image, or its samples
            have 32 bits (their range is not defined). A JPEG that lacks only its end mark is read.
        OSError: Reading fails for another reason, again and again.
    """
    data = read_bytes(path)
    if not data:
        raise UnreadableImage("the file is empty")
    size = size_in_header(data)
    if size is not None:
        _check_pixels(*size, max_pixels)
    image = None
    if not (_is_webp_with_exif(data) or is_damaged_png(data, size)):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    found = _read_with_pillow(data) if image is None else image.astype(np.uint8, copy=False)
    _check_pixels(found.shape[1], found.shape[0], max_pixels)
    return found


def _check_pixels(width: int, height: int, max_pixels: float) -> None:
    if width * height > max_pixels:
        raise TooManyPixels(
            f"{width} x {height} pixels are more than the limit of {max_pixels / 1e6:g} megapixels"
        )


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file, again and again where that fails for a reason that is not the file's own.

    Raises:
        UnreadableImage: It is missing, may not be read, or is no file.
        OSError: Reading fails for another reason at every try.
    """

    def read() -> bytes:
        mode = os.stat(path).st_mode
        # Reading a pipe would wait for ever.
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UnreadableImage("it is no regular file")
        with open(path, "rb") as file:  # not cv2.imread, which garbles non-ASCII paths on Windows
            return file.read()

    try:
        return retried(read, path)
    except ValueError as error:  # a NUL in a name
        raise UnreadableImage(str(error)) from error
    except OSError as error:
        if not is_permanent(error):
            raise
        raise UnreadableImage(error.strerror or str(error)) from error


def _is_webp_with_exif(data: bytes) -> bool:
    """Return whether this image needs Pillow: OpenCV 4.11 ignores the EXIF orientation of WebP."""
    return data[8:16] == b"WEBPVP8X" and len(data) > 20 and bool(data[20] & 0x08)


def _read_with_pillow(data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I", "F"):
                raise UnreadableImage(
                    "its samples have 32 bits, whose range is not defined: save it with 8 or 16"
                )
            if image.mode.startswith("I;16"):
                gray = (np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)
                return np.repeat(gray[:, :, None], 3, axis=2)
            return np.array(image.convert("RGB"))
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image of a known format") from error
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UnreadableImage(str(error).strip() or type(error).__name__) from error


def resize_square(
    image: NDArray[np.uint8], size: int, interpolation: str = DEFAULT_INTERPOLATION
) -> NDArray[np.uint8]:
    """Crop the center square and resize it to `size` pixels.

    The crop comes first, so that a very long image costs no more than a square one. A square of
    `size` pixels is unchanged.

    Args:
        image: uint8 (height, width, channels).
        size: Side of the result in pixels.
        interpolation: As for `resized`.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return resized(square, size, size, interpolation)


def resized(
    image: NDArray[np.uint8], height: int, width: int, interpolation: str = DEFAULT_INTERPOLATION
) -> NDArray[np.uint8]:
    """Resize an image, uint8 (h, w, channels); one of that size is returned unchanged.

    Args:
        image: The image.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        interpolation: One of `INTERPOLATIONS`; other than "area" needs 3 channels.
    """
    if image.shape[:2] == (height, width):
        return image
    if interpolation != DEFAULT_INTERPOLATION:
        filter_ = Image.Resampling[interpolation.upper()]
        return np.asarray(Image.fromarray(image).resize((width, height), filter_))
    shrinks = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    found = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=method)
    return found.astype(np.uint8, copy=False)


def decode_many(
    paths: Sequence[Path],
    size: int,
    *,
    read: Callable[[Path], NDArray[np.uint8]] | None = None,
    num_threads: int | None = None,
    progress: str | None = None,
) -> Decoded:
    """Decode files in several threads into one tensor of squares, see `resize_square`.

    Args:
        paths: One file per row.
        size: Side of the images in pixels.
        read: Returns a file as uint8 (size, size, 3); None for `read_rgb` and `resize_square`.
        num_threads: None for one a core that this process may use. It never changes the result.
        progress: Text before a progress bar; None for no bar. Without a terminal there is none.
    """
    images = np.zeros((len(paths), 3, size, size), dtype=np.uint8)

    def decode(position: int) -> None:
        path = paths[position]
        square = resize_square(read_rgb(path), size) if read is None else read(path)
        images[position] = square.transpose(2, 0, 1)

    unreadable = for_each(len(paths), decode, num_threads=num_threads, progress=progress)
    return Decoded(torch.from_numpy(images), unreadable)


def find_unreadable(
    paths: Sequence[Path],
    *,
    read: Callable[[Path], NDArray[np.uint8]] | None = None,
    num_threads: int | None = None,
    progress: str | None = None,
) -> dict[int, str]:
    """Decode every file once, keep nothing, and return position -> reason of those that fail.

    Arguments are those of `decode_many`.
    """

    def decode(position: int) -> None:
        (read or read_rgb)(paths[position])

    return for_each(len(paths), decode, num_threads=num_threads, progress=progress)


def for_each(
    count: int,
    decode: Callable[[int], None],
    *,
    num_threads: int | None = None,
    progress: str | None = None,
) -> dict[int, str]:
    """Call `decode(0)` to `decode(count - 1)` in several threads; other arguments as `decode_many`.

    Returns:
        Position -> reason of the calls that raised UnreadableImage.
    """

    def decode_chunk(first: int) -> dict[int, str]:
        reasons = {}
        for position in range(first, min(first + chunk, count)):
            try:
                decode(position)
            except UnreadableImage as error:
                reasons[position] = str(error)
        return reasons

    num_threads = num_threads or min(num_cores(), _MAX_THREADS)
    chunk = max(1, min(_MAX_CHUNK, count // (4 * num_threads)))  # all threads share a small batch
    starts = range(0, count, chunk)
    hidden = True if progress is None else None  # None: hidden without a terminal
    unreadable: dict[int, str] = {}
    with tqdm(total=count, desc=progress, unit="image", mininterval=1, disable=hidden) as bar:
        if num_threads <= 1:
            for first in starts:
                unreadable |= decode_chunk(first)
                bar.update(min(chunk, count - first))
            return unreadable
        executor = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        try:
            for first, reasons in zip(starts, executor.map(decode_chunk, starts), strict=True):
                unreadable |= reasons
                bar.update(min(chunk, count - first))
        finally:  # after an interrupt, do not wait for queued images
            executor.shutdown(cancel_futures=True)
    return unreadable
