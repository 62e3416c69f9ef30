"""A folder of resized images, which saves decoding large photographs again and again.

An entry is a file of raw pixels and their checksum, named by a hash of where the photograph is, of
its size and times in the file system, of how it was resized, and of the decoder's version. An image
that is written again therefore gets a new entry. Entries are moved in whole, so that any number of
processes can share the folder; a damaged one is replaced. Nothing is ever removed: delete the
folder, or parts of it, whenever there is no room.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from al_core.files import beside

log = logging.getLogger(__name__)

_CHECKSUM_BYTES = 4


class ResizeCache:
    """The entries for one way to resize.

    Args:
        folder: The cache; made when the first entry is written.
        resize: How images become squares.
        image_size: Side of the squares in pixels.
    """

    def __init__(self, folder: Path, *, resize: str, image_size: int) -> None:
        self._folder, self._size = folder / f"{resize}-{image_size}", image_size
        self._gave_up = False

    def key(self, path: Path) -> str | None:
        """Return the name of a photograph's entry; None if the file cannot be found."""
        try:
            found = os.stat(path)
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return None
        times = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        facts = repr((os.path.abspath(path), times, cv2.__version__))
        return hashlib.blake2b(facts.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def read(self, key: str | None) -> NDArray[np.uint8] | None:
        """Return uint8 (image_size, image_size, 3), or None if there is no usable entry."""
        if key is None:
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:  # usually not there; whatever it is, the photograph itself can be read
            return None
        pixels, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(pixels) != 3 * self._size**2 or _checksum(pixels) != checksum:
            return None
        return np.frombuffer(pixels, np.uint8).reshape(self._size, self._size, 3)

    def write(self, key: str | None, square: NDArray[np.uint8]) -> None:
        """Keep a square; after the first failure, of a full disk say, nothing more is kept."""
        if key is None or self._gave_up:
            return
        path = self._path(key)
        temporary = beside(path)
        pixels = np.ascontiguousarray(square).tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not forced to the disk: the checksum finds what a power failure leaves.
            temporary.write_bytes(pixels + _checksum(pixels))
            os.replace(temporary, path)
        except OSError as error:
            self._gave_up = True
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            log.warning(
                "data.cache: %s cannot be written (%s); going on without keeping more images",
                path.parent, error.strerror or error,
            )  # fmt: skip

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / key


def _checksum(pixels: bytes) -> bytes:
    return zlib.crc32(pixels).to_bytes(_CHECKSUM_BYTES, "little")
