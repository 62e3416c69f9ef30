"""Resize a segmentation set, so that large images are affordable for every strategy alike."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.data.pictures import PictureView
from experiments.data.segmentation import Mask, Masks, SemanticSegmentation
from experiments.data.segmentation_augmentation import resize_image, resize_mask


def resized(data: SemanticSegmentation, scale: float) -> SemanticSegmentation:
    """Return the set with all images and masks, also of the test set, at `scale` times their sides.

    Sides are rounded and at least 1 pixel. Images and masks are resized when they are read.
    """
    train, test = ResizedPictures(data.train, scale), ResizedPictures(data.test, scale)
    return replace(
        data,
        train=train,
        train_masks=ResizedMasks(data.train_masks, scale),
        test=test,
        test_masks=ResizedMasks(data.test_masks, scale),
    )


@dataclass(frozen=True, eq=False)
class ResizedPictures(PictureView):
    """Pictures at `scale` times their sides."""

    scale: float

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.pictures.size(index)
        return (0, 0) if not height else scaled_size(height, width, self.scale)

    def picture(self, index: int) -> NDArray[np.uint8]:
        return resize_image(self.pictures.picture(index), self.size(index))


@dataclass(frozen=True, eq=False)
class ResizedMasks:
    """Masks at `scale` times their sides."""

    masks: Masks
    scale: float

    def __len__(self) -> int:
        return len(self.masks)

    def mask(self, index: int) -> Mask:
        whole = self.masks.mask(index)
        height, width = whole.shape
        return resize_mask(whole, scaled_size(height, width, self.scale))


def scaled_size(height: int, width: int, scale: float) -> tuple[int, int]:
    """Return height and width at `scale` times the sides, rounded, at least 1 pixel each."""
    return max(1, round(scale * height)), max(1, round(scale * width))
