"""Cut images into superpixels by SLIC, once per image, and cache the maps by the image's content.

Source: Achanta et al., "SLIC superpixels compared to state-of-the-art superpixel methods", PAMI
2012, in scikit-image's implementation. It uses the colors of the image and never its labels.
"""

from __future__ import annotations

import hashlib
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from al_core.files import remove_leftovers, write_bytes
from al_core.pool import IndexArray
from experiments.data.decoding import for_each
from experiments.data.pictures import Pictures

log = logging.getLogger(__name__)

RegionMap = NDArray[np.uint16]
"""(height, width): the region of each pixel, 0 .. n - 1."""

MAX_REGIONS = 5000
SMOOTHING_PIXELS = 1.0
"""Deviation of the blur before an image is cut: on noise SLIC makes one region of half an image."""
_LEFT_SECONDS = 3600.0
"""Age from which on a temporary file was left by a killed process; they live milliseconds."""
_FORMAT = 1  # increase with every change that affects the maps


class Superpixels:
    """The superpixels of a set of images.

    The constructor cuts every readable image whose map is not in the cache. The maps stay in files,
    and memory holds a few numbers per region.

    Args:
        pictures: The images.
        per_image: The approximate number of superpixels per image.
        compactness: The larger, the squarer; the smaller, the closer to the colors.
        cache: Folder of the maps, PNG files named by a hash of the pixels and of the settings.

    Attributes:
        first: int64 (n + 1,): image i has the regions first[i] .. first[i + 1] - 1 of the set;
            an unreadable one has none.
        sizes: int64 (first[-1],), the number of pixels of each region.
        boxes: int32 (first[-1], 4), the box of each region: x_min, y_min, x_max, y_max, in pixels
            from the upper left corner; x_max and y_max are exclusive.
        shapes: int64 (n, 2), height and width of each image in pixels; 0 for an unreadable one.

    Raises:
        InvalidSetting: scikit-image is not installed.
        OSError: The cache cannot be written.
    """

    def __init__(
        self, pictures: Pictures, *, per_image: int, compactness: float, cache: Path
    ) -> None:
        self._pictures, self._cache = pictures, cache
        self._slic, release = _import_slic()
        self._settings: dict[str, Any] = {
            "n_segments": per_image,
            "compactness": compactness,
            "sigma": SMOOTHING_PIXELS,
        }
        self._key = f"{_FORMAT} {release} {sorted(self._settings.items())}"
        self._files = [""] * len(pictures)
        self.shapes = np.zeros((len(pictures), 2), np.int64)
        found: list[tuple[Any, Any]] = [(np.empty(0, np.int64), np.empty((0, 4), np.int32))]
        found *= len(pictures)

        def cut(index: int) -> None:
            if index not in pictures.unreadable:
                regions = self._map_of(index)
                self.shapes[index] = regions.shape
                found[index] = _measured(regions)

        remove_leftovers(cache, older_than_s=_LEFT_SECONDS)
        for_each(len(pictures), cut, progress="cutting into regions")
        counts = [len(sizes) for sizes, _ in found]
        self.first: IndexArray = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.sizes: IndexArray = np.concatenate([sizes for sizes, _ in found])
        self.boxes: NDArray[np.int32] = np.concatenate([boxes for _, boxes in found])

    def map(self, index: int) -> RegionMap:
        """Return the map of a readable image; a lost file is computed again."""
        kept = _read(self._cache / self._files[index])
        return self._map_of(index) if kept is None else kept

    def _map_of(self, index: int) -> RegionMap:
        """Return the map of an image from the cache, or cut the image."""
        image = np.ascontiguousarray(self._pictures.picture(index))
        digest = hashlib.blake2b(f"{self._key} {image.shape} ".encode(), digest_size=16)
        digest.update(image.data)
        name = digest.hexdigest()
        self._files[index] = f"{name[:2]}/{name}.png"
        file = self._cache / self._files[index]
        kept = _read(file)
        if kept is not None and kept.shape == image.shape[:2]:
            return kept
        labels = self._slic(image, start_label=0, **self._settings)
        numbers, inverse = np.unique(labels, return_inverse=True)  # without gaps
        assert len(numbers) <= 2**16, "a map is kept in 16 bits"
        regions = inverse.reshape(labels.shape).astype(np.uint16)
        done, data = cv2.imencode(".png", regions)
        assert done, "OpenCV cannot write PNG"
        write_bytes(file, data.tobytes())
        return regions


def _measured(regions: RegionMap) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return size and box of every region of a map."""
    sizes = np.bincount(regions.ravel())
    boxes = np.empty((len(sizes), 4), np.int32)
    for axis, (low, high) in ((1, (0, 2)), (0, (1, 3))):
        places = np.broadcast_to(np.expand_dims(np.arange(regions.shape[axis]), 1 - axis),
                                 regions.shape).ravel()  # fmt: skip
        order = np.lexsort((places, regions.ravel()))
        ends = np.cumsum(sizes)
        boxes[:, low] = places[order][ends - sizes]
        boxes[:, high] = places[order][ends - 1] + 1
    return sizes.astype(np.int64), boxes


def _read(file: Path) -> RegionMap | None:
    """Return the map in a file, or None if the file is missing or damaged."""
    try:
        data = np.frombuffer(file.read_bytes(), np.uint8)
    except (FileNotFoundError, IsADirectoryError):
        return None
    found = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    if found is None or found.dtype != np.uint16 or found.ndim != 2:
        return None
    return found.astype(np.uint16, copy=False)


def _import_slic() -> tuple[Any, str]:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise InvalidSetting(
            f"query=regions needs scikit-image ({error}): pip install -e '.[regions]'"
        ) from None
    return slic, version("scikit-image")
