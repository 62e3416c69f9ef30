"""Random changes of classified images: the crops of the CIFAR recipe, and those for photographs.

Sources: kuangliu/pytorch-cifar @49b7aa9 (random crop with zero padding, mirror image); Szegedy et
al., "Going Deeper with Convolutions", CVPR 2015, section 6 (a crop of random area and aspect ratio,
resized), with the limits of torchvision's `RandomResizedCrop`; Cubuk et al., "RandAugment", NeurIPS
2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_number, check_whole_number

Augmentation = Callable[[Tensor, torch.Generator], Tensor]
"""From uint8 (b, 3, h, w) to images of the same shape and scale, on the same device."""

KINDS = ("cifar", "photographs", "none")
RANDOM, ALTERNATING = MIRRORING = ("random", "alternating")
"""Choices of `task.build.mirroring`."""
MAX_LOG_ASPECT = math.log(4 / 3)
"""Width by height of a crop is between 3/4 and 4/3, as in torchvision."""
NUM_TRIES = 10
"""Crops that are drawn until one lies within the image, as in torchvision."""
RANDAUGMENT_MAGNITUDE = 9
"""Magnitude of 30, torchvision's default and that of the paper's ImageNet models."""
CUT_OUT, GRAY = 0.5, 127
"""Side of the square that strong augmentation cuts out, as a share of the image's; its pixels."""


def augmentation(
    kind: str,
    *,
    size: tuple[int, int],
    flip: bool,
    crop_padding: int,
    min_area: float,
    color_jitter: float,
    randaugment: int,
) -> Augmentation:
    """Return the augmentation that `task.build` of classification describes.

    Args:
        kind: One of `KINDS`.
        size: (height, width) of the images in pixels.
        flip: Whether an image is replaced by its mirror image half of the time.
        crop_padding: As `crop_and_flip`; of "cifar".
        min_area: As `PhotographAugmentation`; of "photographs", as those that follow.
        color_jitter: As `PhotographAugmentation`.
        randaugment: As `PhotographAugmentation`.

    Raises:
        InvalidSetting: An unknown kind, or a value out of range.
    """
    if kind not in KINDS:
        raise InvalidSetting(
            f"task.build.augmentation must be one of {', '.join(KINDS)}, got {kind!r}"
        )
    if kind == "photographs":
        return PhotographAugmentation(
            flip=flip, min_area=min_area, color_jitter=color_jitter, randaugment=randaugment
        )
    if kind == "none":
        return lambda images, generator: images
    if type(crop_padding) is not int or not 0 <= crop_padding < min(size):
        raise InvalidSetting(
            f"task.build.crop_padding must lie in 0..{min(size) - 1} for images of "
            f"{size[0]}x{size[1]}, got {crop_padding!r}"
        )
    return partial(crop_and_flip, padding=crop_padding, flip=flip)


def crop_and_flip(
    images: Tensor, generator: torch.Generator, *, padding: int, flip: bool
) -> Tensor:
    """Crop and flip every image of the batch on its own, in one gather.

    Args:
        images: (b, 3, h, w).
        generator: Decides what is drawn; on the device of the images.
        padding: Pixels of zero padding around which a crop of the image's size moves.
        flip: Whether half of the images are mirrored.
    """
    b, _, height, width = images.shape
    device = images.device
    slack = 2 * padding
    top, left = torch.randint(0, slack + 1, (2, b), generator=generator, device=device)
    if not (padding or flip):  # drawn all the same: what is drawn next does not depend on it
        return images
    padded = F.pad(images, (padding,) * 4)
    chosen = torch.arange(b, device=device)
    if flip:
        mirrored = torch.rand(b, generator=generator, device=device) < 0.5
        # The mirror image of a crop is a crop of the mirror image, counted from its other side.
        padded = torch.cat([padded, padded.flip(3)])
        chosen = chosen + b * mirrored
        left = torch.where(mirrored, slack - left, left)
    # A view with every crop of every image, of which one each is copied, row by row.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 1, 4, 5)
    return crops[chosen, top, left]


def alternates(mirroring: str, kind: str) -> bool:
    """Return whether images are mirrored in turns instead of at random.

    Args:
        mirroring: One of `MIRRORING`.
        kind: One of `KINDS`; only "cifar" mirrors in turns.

    Raises:
        InvalidSetting: An unknown choice.
    """
    if mirroring not in MIRRORING:
        raise InvalidSetting(
            f"task.build.mirroring must be {' or '.join(MIRRORING)}, got {mirroring!r}"
        )
    return mirroring == ALTERNATING and kind == "cifar"


def mirrored_alternately(images: Tensor, indices: NDArray[np.int64], *, epoch: int) -> Tensor:
    """Mirror about half of the images in even epochs, and the others in odd ones.

    Two epochs then show both forms of every image, where random mirroring shows the same form twice
    half of the time (Jordan, arXiv 2404.00498, section 3.6).

    Args:
        images: (b, 3, h, w).
        indices: (b,) their positions in the pool, on which their turns depend.
        epoch: The number of the epoch, from 0.
    """
    # Bit 16 of a multiplicative hash (Knuth): neighbors in the pool have unrelated turns.
    turn = (indices.astype(np.uint64) * np.uint64(2654435761) >> np.uint64(16)) & np.uint64(1)
    mirrored = torch.from_numpy((turn + np.uint64(epoch)) % np.uint64(2) == 0)
    chosen = mirrored.to(images.device, non_blocking=True)[:, None, None, None]
    return torch.where(chosen, images.flip(3), images)


@dataclass(frozen=True)
class PhotographAugmentation:
    """Crop, mirror, and perhaps recolor every photograph of a batch on its own.

    All random numbers of a batch are drawn from its generator. Torchvision's functions then change
    the images one by one, as uint8, on their device.

    Differs: torchvision draws the order of the color changes; here it is brightness, contrast,
    saturation.

    Attributes:
        flip: Whether half of the images are mirrored.
        min_area: Smallest area of a crop, as a share of the image's.
        color_jitter: Brightness, contrast and saturation are multiplied by a number between
            1 - color_jitter and 1 + color_jitter each; 0 for none.
        randaugment: Number of operations of RandAugment for each image, at magnitude 9 of 30; 0 for
            none.

    Raises:
        InvalidSetting: A value out of range.
    """

    flip: bool
    min_area: float
    color_jitter: float = 0.0
    randaugment: int = 0

    def __post_init__(self) -> None:
        check_number("task.build.min_area", self.min_area, low=0.01, high=1.0)
        check_number("task.build.color_jitter", self.color_jitter, low=0.0, high=1.0)
        check_whole_number("task.build.randaugment", self.randaugment, low=0, high=14)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return uint8 (b, 3, h, w); arguments as `crop_and_flip`."""
        from torchvision.transforms.v2 import functional as transforms  # 1.3 s to import

        b, _, height, width = images.shape
        boxes = random_boxes(b, (height, width), generator, min_area=self.min_area)
        changed = torch.stack(
            [
                transforms.resized_crop(image, top, left, h, w, [height, width])
                for image, (left, top, w, h) in zip(images, boxes.tolist(), strict=True)
            ]
        )
        if self.flip:
            mirrored = torch.rand(b, generator=generator, device=images.device) < 0.5
            changed = torch.where(mirrored[:, None, None, None], changed.flip(3), changed)
        if self.color_jitter:
            changed = jittered(changed, generator, strength=self.color_jitter)
        if self.randaugment:
            changed = randaugmented(changed, generator, num_operations=self.randaugment)
        return changed


def random_boxes(
    count: int, size: tuple[int, int], generator: torch.Generator, *, min_area: float
) -> Tensor:
    """Draw crops of random area and aspect ratio, as `RandomResizedCrop` does.

    Args:
        count: Number of crops, b.
        size: (height, width) of the images in pixels.
        generator: Decides what is drawn, on its device.
        min_area: The smallest area, as a share of the image's.

    Returns:
        int64 (b, 4) left, top, width and height in pixels; the whole image where `NUM_TRIES` crops
        did not fit into it.
    """
    height, width = size
    device = generator.device
    drawn = torch.rand(4, NUM_TRIES, count, generator=generator, device=device)
    area = height * width * (min_area + (1 - min_area) * drawn[0])
    root_aspect = torch.exp(MAX_LOG_ASPECT * (drawn[1] - 0.5))
    w, h = (area.sqrt() * root_aspect).round(), (area.sqrt() / root_aspect).round()
    fits = (w >= 1) & (w <= width) & (h >= 1) & (h <= height)
    first = fits.to(torch.uint8).argmax(0)  # of equal values the first
    columns = torch.arange(count, device=device)
    w, h, x, y = (each[first, columns] for each in (w, h, drawn[2], drawn[3]))
    boxes = torch.stack([x * (width - w + 1), y * (height - h + 1), w, h], 1).long()
    whole = torch.tensor([0, 0, width, height], device=device)
    return torch.where(fits.any(0)[:, None], boxes, whole)


def jittered(images: Tensor, generator: torch.Generator, *, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of each image by factors of its own.

    Args:
        images: uint8 (b, 3, h, w).
        generator: Decides what is drawn; on the device of the images.
        strength: Factors lie between 1 - strength and 1 + strength.
    """
    from torchvision.transforms.v2 import functional as transforms

    shape = (len(images), 3)
    drawn = torch.rand(shape, generator=generator, device=generator.device)
    changed = []
    for image, factors in zip(images, (1 + strength * (2 * drawn - 1)).tolist(), strict=True):
        image = transforms.adjust_brightness(image, factors[0])
        image = transforms.adjust_contrast(image, factors[1])
        changed.append(transforms.adjust_saturation(image, factors[2]))
    return torch.stack(changed)


def randaugmented(images: Tensor, generator: torch.Generator, *, num_operations: int) -> Tensor:
    """Apply RandAugment to each image.

    Args:
        images: uint8 (b, 3, h, w).
        generator: Decides what is drawn.
        num_operations: Operations of each image.
    """
    from torchvision.transforms import v2

    change: Any = v2.RandAugment(num_operations, RANDAUGMENT_MAGNITUDE)
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
        torch.manual_seed(seed)
        return torch.stack([change(image) for image in images])


def strongly_augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Apply two operations of RandAugment to each image, and cut a gray square out of it.

    This is the strong augmentation of Sohn et al., "FixMatch", NeurIPS 2020, appendix D.

    Args:
        images: uint8 (b, 3, h, w).
        generator: Decides what is drawn; on the device of the images.
    """
    changed = randaugmented(images, generator, num_operations=2)
    b, _, height, width = images.shape
    device = images.device
    side = max(1, round(CUT_OUT * min(height, width)))
    drawn = torch.rand(2, b, generator=generator, device=device)
    top = (drawn[0] * height).long() - side // 2  # the center is anywhere in the image
    left = (drawn[1] * width).long() - side // 2
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    in_rows = (rows >= top[:, None]) & (rows < top[:, None] + side)
    in_columns = (columns >= left[:, None]) & (columns < left[:, None] + side)
    cut = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return changed.masked_fill(cut, GRAY)
