"""Image files of any common format to RGB uint8 arrays; a broken file is a reason, not a crash.

OpenCV decodes first: it is the fastest of the decoders that were measured, bit-equal to Pillow on
JPEG and PNG, and releases the GIL, so threads are enough. Pillow takes what OpenCV cannot read (GIF
and AVIF in older releases, rare modes) and words the reason where neither can. Both turn the image
as its EXIF orientation says, drop an alpha channel, repeat a gray one, and bring 16 bits to 8.
"""

from __future__ import annotations

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
from experiments.engine.cores import num_cores
from experiments.settings.input_format import DEFAULT_INTERPOLATION

# One image, one thread: the parallelism is over images, here and in every process that decodes.
cv2.setNumThreads(0)
# OpenCV prints several lines for each broken file; the reason is returned and reported instead.
# (OpenCV 4 has the function at its top, OpenCV 5 in a module.)
_set_log_level = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_set_log_level(0)

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
})
# fmt: on
"""Lower-case endings of the files that are taken for images."""

MAX_PIXELS = 178_956_970
"""Of an image: beyond it a small file is taken for one that is made to fill the memory, as Pillow
does. OpenCV is told so in `experiments/__init__.py`, before it is loaded."""
_MAX_CHUNK = 64  # images a thread takes at once: handing over one costs as much as a small JPEG
_MAX_THREADS = 16  # a bound for machines of many cores: each thread holds an image at full size


class UnreadableImage(ActiveLearningError):
    """An image file that cannot be decoded; the text is the reason, without the file's name."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """`images`: uint8 (n, 3, size, size), zero where `unreadable` has position -> reason."""

    images: Tensor
    unreadable: dict[int, str]


def read_rgb(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Decode one image file at its full size, upright.

    Returns:
        uint8 (height, width, 3), RGB. Of an animation or a stack of pages, the first.

    Raises:
        UnreadableImage: The file is missing, empty, cut short, damaged or no image, has more than
            MAX_PIXELS, or its samples have 32 bits (their range is not defined). A JPEG that lacks
            only its end mark is read.
    """
    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # reading a pipe would wait for ever
            raise UnreadableImage("it is no regular file")
        with open(path, "rb") as file:  # not cv2.imread, which garbles non-ASCII paths on Windows
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in a name
        raise UnreadableImage(getattr(error, "strerror", None) or str(error)) from error
    if not data:
        raise UnreadableImage("the file is empty")
    if not _is_webp_with_exif(data):
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        except cv2.error:
            image = None
        if image is not None:
            return image.astype(np.uint8, copy=False)
    return _read_with_pillow(data)


def _is_webp_with_exif(data: bytes) -> bool:
    """Whether only Pillow turns this image upright (OpenCV 4.11 ignores the EXIF block of WebP)."""
    return data[8:16] == b"WEBPVP8X" and len(data) > 20 and bool(data[20] & 0x08)


def _read_with_pillow(data: bytes) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data)) as opened:
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
    """Bring the shorter side to `size` pixels and keep the center square.

    The square is cut first, so that a very long image costs nothing and nothing is stretched. An
    image whose shorter side is `size` keeps its pixels as they are.

    Args:
        image: uint8 (height, width, channels).
        size: Side of the result in pixels.
        interpolation: One of `INTERPOLATIONS`; other than "area" needs 3 channels.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    if side == size:
        return square
    if interpolation != DEFAULT_INTERPOLATION:
        filter_ = Image.Resampling[interpolation.upper()]
        return np.asarray(Image.fromarray(square).resize((size, size), filter_))
    method = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    resized = cv2.resize(np.ascontiguousarray(square), (size, size), interpolation=method)
    return resized.astype(np.uint8, copy=False)


def decode_many(
    paths: Sequence[Path],
    size: int,
    *,
    interpolation: str = DEFAULT_INTERPOLATION,
    num_threads: int | None = None,
    progress: str | None = None,
) -> Decoded:
    """Decode files into one tensor, `resize_square`d, by several threads.

    Args:
        paths: One file a row.
        size: Side of the images in pixels.
        interpolation: As for `resize_square`.
        num_threads: None for one a core that this process may use. It never changes the result.
        progress: Text before a progress bar; None for no bar. Without a terminal there is none.
    """
    images = np.zeros((len(paths), 3, size, size), dtype=np.uint8)

    def decode(position: int) -> None:
        square = resize_square(read_rgb(paths[position]), size, interpolation)
        images[position] = square.transpose(2, 0, 1)

    unreadable = for_each(len(paths), decode, num_threads=num_threads, progress=progress)
    return Decoded(torch.from_numpy(images), unreadable)


def find_unreadable(
    paths: Sequence[Path], *, num_threads: int | None = None, progress: str | None = None
) -> dict[int, str]:
    """Decode every file once, keep nothing, and return position -> reason of those that fail."""

    def decode(position: int) -> None:
        read_rgb(paths[position])

    return for_each(len(paths), decode, num_threads=num_threads, progress=progress)


def for_each(
    count: int,
    decode: Callable[[int], None],
    *,
    num_threads: int | None = None,
    progress: str | None = None,
) -> dict[int, str]:
    """Call `decode(0)` to `decode(count - 1)` in several threads; arguments as `decode_many`.

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
    chunk = max(1, min(_MAX_CHUNK, count // (4 * num_threads)))  # a small batch is shared by all
    starts = range(0, count, chunk)
    hidden = True if progress is None else None  # None: hidden where there is no terminal
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
        finally:  # an interrupt does not wait for the images that are still queued
            executor.shutdown(cancel_futures=True)
    return unreadable
