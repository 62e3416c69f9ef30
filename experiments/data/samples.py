"""Sets of images, whose samples are read by position.

`MemorySamples` holds decoded images, for sets that fit into memory; a batch is one gather.
`FileSamples` decodes files on request. A set knows its unreadable images when it is built, so that
they are never selected, trained on or scored; reading one raises an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.errors import InvalidSetting
from experiments.data.decoding import (
    Decoded,
    UnreadableImage,
    decode_many,
    find_unreadable,
    resize_square,
)
from experiments.settings.input_format import DEFAULT_INTERPOLATION

IndexArray = NDArray[np.int64]
ChannelValues = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images with their ground truth.

    Attributes:
        images: uint8 (b, 3, height, width), RGB; float32 on the same scale, possibly slightly out
            of range, if images were augmented one by one.
        targets: The task's form of the ground truth; int64 (b,) in classification.
    """

    images: Tensor
    targets: Any


class Samples(Protocol):
    """A set of images; a sample is identified by its position, 0 .. len - 1."""

    @property
    def names(self) -> Sequence[str]:
        """Unique names of the samples: paths with "/" below the set's folder, or generated ones."""
        ...

    @property
    def paths(self) -> Sequence[Path] | None:
        """Files of the samples, by position; None where they are from no files of their own."""
        ...

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Position -> reason of the images that cannot be decoded, ascending."""
        ...

    @property
    def in_memory(self) -> bool:
        """True if `images` is a cheap gather; otherwise it reads and decodes files."""
        ...

    def __len__(self) -> int: ...

    def images(self, indices: IndexArray) -> Tensor:
        """Return uint8 (b, 3, height, width), RGB, contiguous, in the order of `indices`.

        Raises:
            IndexError: A position is out of range.
            UnreadableImage: An image is unreadable; the text names the sample.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemorySamples:
    """Decoded images; `paths` as in `Samples`.

    Attributes:
        pixels: uint8 (n, 3, height, width), RGB.
        image_size: Side in pixels to which images are `resize_square`d on request; None for no
            change.
        interpolation: As for `resize_square`.
    """

    pixels: Tensor
    names: Sequence[str]
    paths: Sequence[Path] | None = field(default=None, kw_only=True)
    unreadable: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    image_size: int | None = field(default=None, kw_only=True)
    interpolation: str = field(default=DEFAULT_INTERPOLATION, kw_only=True)
    in_memory: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if self.pixels.dtype != torch.uint8 or self.pixels.ndim != 4 or self.pixels.shape[1] != 3:
            raise ValueError(
                "pixels must be uint8 (n, 3, height, width); they are "
                f"{self.pixels.dtype} {tuple(self.pixels.shape)}"
            )
        _check_names(self.names, len(self.pixels), self.unreadable)

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, indices: IndexArray) -> Tensor:
        """Copy images."""
        check_indices(indices, self.names, self.unreadable)
        images = self.pixels.index_select(0, torch.tensor(indices, dtype=torch.int64))
        size = self.image_size
        if size is None or images.shape[2:] == (size, size):
            return images
        squares = np.empty((len(images), size, size, 3), np.uint8)
        for square, image in zip(squares, images.permute(0, 2, 3, 1).numpy(), strict=True):
            square[:] = resize_square(image, size, self.interpolation)
        return torch.from_numpy(squares).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, eq=False)
class FileSamples:
    """Image files that are decoded and resized on each request.

    The constructor decodes every file once to find the unreadable ones, and keeps no image except
    for the cache of `read`. Unchecked samples are not decoded before they are requested, for a
    caller that finds the unreadable ones itself.

    Attributes:
        paths: One file per sample.
        image_size: Side in pixels of the returned images.
        read: As in `decode_many`.
        checked: True to decode every file in the constructor.
        num_threads: Number of threads, which never changes the result; None for one per core.
        progress: Text before the progress bar of the first pass; None for no bar.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    image_size: int = field(kw_only=True)
    read: Callable[[Path], NDArray[np.uint8]] | None = field(default=None, kw_only=True)
    checked: bool = field(default=True, kw_only=True)
    num_threads: int | None = field(default=None, kw_only=True)
    progress: str | None = field(default=None, kw_only=True)
    unreadable: Mapping[int, str] = field(init=False)
    in_memory: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        _check_names(self.names, len(self.paths), {})
        found: dict[int, str] = {}
        if self.checked:
            found = find_unreadable(
                self.paths, read=self.read, num_threads=self.num_threads, progress=self.progress
            )
        object.__setattr__(self, "unreadable", found)

    def __len__(self) -> int:
        return len(self.paths)

    def images(self, indices: IndexArray) -> Tensor:
        """Decode files; one that has become unreadable since raises UnreadableImage too."""
        check_indices(indices, self.names, self.unreadable)
        decoded = self.decode(indices)
        for row, reason in decoded.unreadable.items():
            name = self.names[indices[row]]
            raise UnreadableImage(
                f"{name} was readable when the run started and is not now: {reason}"
            )
        return decoded.images

    def decode(self, indices: IndexArray) -> Decoded:
        """Return the images as `images` does, and the reasons of those that cannot be read."""
        return decode_many(
            [self.paths[index] for index in indices],
            self.image_size,
            read=self.read,
            num_threads=self.num_threads,
        )


def channel_statistics(
    samples: Samples, *, max_images: int = 10_000
) -> tuple[ChannelValues, ChannelValues]:
    """Return mean and standard deviation of the pixels of each channel, RGB, in 0..1.

    They are computed from `max_images` readable images, evenly spaced, or from all of them. Sums
    are exact, so the result is the same on every machine. A deviation is at least 1/255, so that it
    can be divided by.

    Raises:
        InvalidSetting: No image is readable.
    """
    readable = np.setdiff1d(np.arange(len(samples)), np.array(list(samples.unreadable), np.int64))
    if not len(readable):
        raise InvalidSetting("data: none of the training images can be read")
    if len(readable) > max_images:
        readable = readable[np.arange(max_images) * len(readable) // max_images]
    count, total, squares = 0, torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
    for chunk in np.array_split(readable, -(-len(readable) // 256)):
        pixels: Tensor = samples.images(chunk)
        count += pixels[:, 0].numel()
        for channel in range(3):  # one at a time: int64 takes eight times the memory of uint8
            values = pixels[:, channel].to(torch.int64)
            total[channel] += values.sum()
            squares[channel] += (values * values).sum()
    mean, std = [], []
    for first, second in zip(total.tolist(), squares.tolist(), strict=True):
        variance = (count * second - first * first) / count**2  # of exact integers
        mean.append(first / count / 255)
        std.append(max(variance**0.5, 1.0) / 255)
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _check_names(names: Sequence[str], count: int, unreadable: Collection[int]) -> None:
    if len(names) != count:
        raise ValueError(f"{count} samples need {count} names; there are {len(names)}")
    if len(set(names)) != count:
        raise ValueError(f"names must be unique; {count - len(set(names))} of {count} are repeated")
    beyond = [position for position in unreadable if not 0 <= position < count]
    if beyond:
        raise ValueError(f"unreadable positions must be in 0 .. {count - 1}; {beyond[0]} is not")


def check_indices(indices: IndexArray, names: Sequence[str], unreadable: Mapping[int, str]) -> None:
    """Raise if one of these positions cannot be read.

    Raises:
        IndexError: A position is out of range.
        UnreadableImage: An image is unreadable; the text names the sample.
    """
    if len(indices) and not (indices.min() >= 0 and indices.max() < len(names)):
        raise IndexError(
            f"positions must be in 0 .. {len(names) - 1}; "
            f"they span {indices.min()} .. {indices.max()}"
        )
    if unreadable:
        for index in indices:
            if int(index) in unreadable:
                raise UnreadableImage(
                    f"{names[index]} cannot be used, it is unreadable: {unreadable[int(index)]}"
                )
