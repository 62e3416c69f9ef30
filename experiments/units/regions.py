"""Regions of images as the samples of a pool: superpixels that are queried and labeled one by one.

Source: superpixels as the unit of annotation, Siddiqui et al., "ViewAL", CVPR 2020, section 3, and
superannotateai/active_learning @ aa2b9ae (100 superpixels per image). Any acquisition function over
pixels scores a region. Training uses the labeled regions of an image and ignores the others.
Differs: the reference selects labeled regions again; here the pool excludes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core import CostArray, IndexArray, Prediction
from al_core.errors import InvalidSetting
from experiments.data.segmentation import IGNORED, Mask
from experiments.data.targets import Targets
from experiments.drawing.panel import Panel
from experiments.settings.checks import check_number, check_whole_number
from experiments.settings.wording import counted
from experiments.tasks.segmentation import Segmentation
from experiments.units.superpixels import MAX_REGIONS, RegionMap, Superpixels
from experiments.units.unit import Extract, images_of

ReadMask = Callable[[], Mask]
BOX = ("x_min", "y_min", "x_max", "y_max")


class Regions:
    """The unit in which a sample is a superpixel of an image of the training set.

    The initial set is drawn as whole images, so that runs with and without regions start from the
    same images; so are the candidates if `cycle.candidates` limits them. Queries name single
    regions.

    Args:
        task: The task, whose training set `prepare` cuts into regions. Its labels can be read in
            revealed regions and are 255 elsewhere.
        per_image: The approximate number of regions per image.
        compactness: SLIC's compactness: the larger, the squarer.
        budget: The meaning of `cycle.query_size`: "pixels", "regions", or "images", which is as
            many pixels as so many images have on average, for comparisons with whole images at the
            same amount of labels.
        cache: Folder that keeps the regions by the content of the images.

    Raises:
        InvalidSetting: A value out of range, or scikit-image is not installed.
    """

    targets: Targets
    groups: IndexArray | None
    costs: CostArray | None

    def __init__(
        self,
        task: Segmentation,
        *,
        per_image: int = 100,
        compactness: float = 20.0,
        budget: str = "images",
        cache: str | Path,
    ) -> None:
        check_whole_number("query.per_image", per_image, low=2, high=MAX_REGIONS)
        check_number("query.compactness", compactness, low=0.001)
        if budget not in ("images", "pixels", "regions"):
            raise InvalidSetting(f"query.budget must be images, pixels or regions, got {budget!r}")
        self._task, pictures = task, task.train.pictures
        self._cut = partial(
            Superpixels, pictures, per_image=per_image, compactness=compactness, cache=Path(cache)
        )
        self._names = pictures.names
        images = range(len(pictures))
        self._sizes = np.array([task.size_on_disk(image) for image in images])
        self.unreadable: Mapping[int, str] = {}  # unreadable images have no regions
        self._budget = budget
        self.counted_in = "regions" if budget == "regions" else "pixels"
        readable = [image for image in images if image not in pictures.unreadable]
        self._pixels = np.sort([math.prod(pictures.size(image)) for image in readable])

    def prepare(self) -> None:
        """Cut the images that are not in the cache."""
        self._superpixels = cut = self._cut()
        self._image_of = np.repeat(np.arange(len(self._names)), np.diff(cut.first))
        self.groups = self._image_of
        self.costs = None if self._budget == "regions" else cut.sizes
        self.targets = RegionTargets(self._task.targets.concealed(), self)

    def amounts(self, initial_size: int) -> tuple[int, int]:
        """Return a lower and an upper bound: every region has at least one pixel."""
        initial = 0 if self._budget == "regions" else self._pixels[:initial_size].sum()
        return int(initial), int(self._pixels.sum())

    def __len__(self) -> int:
        return len(self._image_of)

    def budget(self, query_size: int) -> int:
        """Return a number of pixels or of regions."""
        by_image = self._budget == "images"
        return round(query_size * self._pixels.mean()) if by_image else query_size

    def rows(
        self, prediction: Prediction, images: IndexArray, indices: IndexArray, extract: Extract
    ) -> Tensor:
        """Call `extract` with one region at a time, whose positions are its pixels.

        Such a prediction has neither embedding nor predicted loss, which belong to whole images.
        """
        rows = []
        for k, image in enumerate(images.tolist()):
            inside = self.of_image(image)
            low, high = np.searchsorted(indices, (inside.start, inside.stop))
            for pixels in _members(self.map(image), indices[low:high] - inside.start):
                positions = torch.from_numpy(pixels).to(prediction.log_probs.device)
                rows.append(extract(_part(prediction, k, positions)))
        return torch.cat(rows)

    def name(self, index: int) -> str:
        image, region = self._of(index)
        return f"region {region} of {self._names[image]}"

    def columns(self, indices: IndexArray) -> Mapping[str, Sequence[Any]]:
        """Return the number in the image, and box and area in pixels of the original image.

        The box is up to x_max and y_max, exclusive.
        """
        cut, images = self._superpixels, self._image_of[indices]
        own, used = self._sizes[images], cut.shapes[images]
        scale = np.tile((own / used)[:, ::-1], 2)  # of x, y, x, y
        boxes = cut.boxes[indices] * scale
        boxes[:, :2], boxes[:, 2:] = np.floor(boxes[:, :2]), np.ceil(boxes[:, 2:])
        area = np.rint(cut.sizes[indices] * own.prod(1) / used.prod(1)).astype(np.int64)
        return {
            "region": (indices - cut.first[images]).tolist(),
            **dict(zip(BOX, boxes.astype(np.int64).T.tolist(), strict=True)),
            "num_pixels": area.tolist(),
        }

    def files(self, images: IndexArray) -> Iterator[tuple[str, bytes]]:
        """Yield a PNG of 16 bits for each image: the number of each pixel's region."""
        for image in images.tolist():
            parts = [part for part in PurePath(self._names[image]).parts if part.strip("./\\")]
            height, width = self._sizes[image].tolist()
            regions = cv2.resize(
                self.map(image), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
            )
            done, data = cv2.imencode(".png", regions)
            assert done, "OpenCV cannot write PNG"
            yield f"regions/{'/'.join(parts)}.png", data.tobytes()

    def of_image(self, image: int) -> slice:
        """Return the samples of an image."""
        return slice(*self._superpixels.first[image : image + 2].tolist())

    def map(self, image: int) -> RegionMap:
        """Return the number of each pixel's region within the image, (height, width)."""
        return self._superpixels.map(image)

    def marked(self, panels: list[Panel], images: IndexArray, chosen: IndexArray) -> list[Panel]:
        """Outline the chosen regions in every tile of a panel."""
        return [
            self._outlined(panel, image, chosen[self._image_of[chosen] == image])
            for panel, image in zip(panels, images.tolist(), strict=True)
        ]

    def _outlined(self, panel: Panel, image: int, chosen: IndexArray) -> Panel:
        if not chosen.size:
            return panel
        regions = self.map(image)
        inside = np.isin(regions, chosen - self._superpixels.first[image])
        caption = f"{panel.caption}; {counted(chosen.size, 'region')} chosen"
        outlined = np.where(inside, regions.astype(np.int32), np.int32(-1))
        return replace(panel, caption=caption, outlined=outlined)

    def _of(self, index: int) -> tuple[int, int]:
        """Return the image of a region, and the region's number in it."""
        image = int(self._image_of[index])
        return image, int(index - self._superpixels.first[image])


class RegionTargets:
    """Masks that can be read in revealed regions and are 255 elsewhere.

    Args:
        whole: The masks of the images, none of them revealed.
        regions: The regions of the images.
    """

    def __init__(self, whole: Targets, regions: Regions) -> None:
        self._whole, self._regions = whole, regions
        self._revealed = np.zeros(len(regions), dtype=bool)

    def reveal(self, indices: IndexArray) -> None:
        """Reveal the labels of these regions."""
        self._revealed[indices] = True
        self._whole.reveal(images_of(self._regions, indices)[0])

    def is_revealed(self, index: int) -> bool:
        return self._whole.is_revealed(index)

    def read(self, indices: IndexArray) -> list[ReadMask]:
        """Return a function per image that reads its mask, 255 where nothing is revealed.

        Raises:
            LabelHidden: One of them has no revealed region; the text names it.
        """
        readers: list[ReadMask] = self._whole.read(indices)
        return [
            partial(self._visible, int(image), read)
            for image, read in zip(indices, readers, strict=True)
        ]

    def _visible(self, image: int, read: ReadMask) -> Mask:
        regions = self._regions.map(image)
        revealed = self._revealed[self._regions.of_image(image)]
        return np.where(revealed[regions], read(), np.uint8(IGNORED))


def _members(regions: RegionMap, wanted: IndexArray) -> list[NDArray[np.int64]]:
    """Return the positions of the pixels of each wanted region in the flattened image."""
    flat = regions.ravel()
    order = np.argsort(flat, kind="stable")
    ends = np.cumsum(np.bincount(flat))
    return [order[ends[region - 1] if region else 0 : ends[region]] for region in wanted.tolist()]


def _part(prediction: Prediction, row: int, pixels: Tensor) -> Prediction:
    """Return the prediction for some pixels of one image as a batch of one."""
    samples = prediction.log_prob_samples
    return Prediction(
        log_probs=prediction.log_probs[row].flatten(1)[None, :, pixels],
        log_prob_samples=None if samples is None else samples[row].flatten(2)[None, ..., pixels],
    )
