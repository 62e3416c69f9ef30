"""Images of various sizes, for tasks whose ground truth refers to pixels.

`Pictures` provides each image at its own size, for crops in training. `StretchedSamples` provides
batches of one size, for inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.decoding import UnreadableImage, for_each, read_rgb
from experiments.data.samples import IndexArray, MemorySamples


class Pictures(Protocol):
    """A set of images; a sample is identified by its position, 0 .. len - 1."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def paths(self) -> Sequence[Path] | None: ...

    @property
    def unreadable(self) -> Mapping[int, str]: ...

    @property
    def in_memory(self) -> bool:
        """True if the images are decoded already."""
        ...

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Return (height, width) in pixels, (0, 0) for an unreadable image."""
        ...

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Return uint8 (height, width, 3), RGB.

        Raises:
            UnreadableImage: The image is unreadable; the text names the sample.
        """
        ...


@dataclass(frozen=True, eq=False)
class MemoryPictures:
    """Decoded images of one size."""

    samples: MemorySamples
    in_memory: bool = field(default=True, init=False)

    @property
    def names(self) -> Sequence[str]:
        return self.samples.names

    @property
    def paths(self) -> Sequence[Path] | None:
        return self.samples.paths

    @property
    def unreadable(self) -> Mapping[int, str]:
        return self.samples.unreadable

    def __len__(self) -> int:
        return len(self.samples)

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.samples.pixels.shape[2:]
        return height, width

    def picture(self, index: int) -> NDArray[np.uint8]:
        image: NDArray[np.uint8] = self.samples.images(np.array([index]))[0].numpy()
        return image.transpose(1, 2, 0)


@dataclass(frozen=True, eq=False)
class FilePictures:
    """Image files that are decoded on each request.

    The constructor decodes every file once to find sizes and unreadable files, and keeps no image.

    Attributes:
        paths: One file per sample.
        names: One unique name per sample.
        refused: Position -> reason of samples that are known to be unusable, for example because
            their annotation cannot be read. They become `unreadable` without decoding the image.
        check: Called once with the position, height and width of each image, in several threads; if
            it raises UnreadableImage, the sample becomes `unreadable`.
        progress: Text before the progress bar.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    refused: Mapping[int, str] = field(default_factory=dict, kw_only=True)
    check: Callable[[int, int, int], None] | None = field(default=None, kw_only=True)
    progress: str | None = field(default=None, kw_only=True)
    unreadable: Mapping[int, str] = field(init=False)
    sizes: NDArray[np.int64] = field(init=False)
    in_memory: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if len(self.names) != len(self.paths) or len(set(self.names)) != len(self.names):
            raise ValueError("one name for each path is needed, and no name twice")
        sizes = np.zeros((len(self.paths), 2), np.int64)

        def measure(position: int) -> None:
            if position in self.refused:
                raise UnreadableImage(self.refused[position])
            height, width = read_rgb(self.paths[position]).shape[:2]
            if self.check is not None:
                self.check(position, height, width)
            sizes[position] = height, width

        found = for_each(len(self.paths), measure, progress=self.progress)
        object.__setattr__(self, "unreadable", dict(sorted(found.items())))
        object.__setattr__(self, "sizes", sizes)

    def __len__(self) -> int:
        return len(self.paths)

    def size(self, index: int) -> tuple[int, int]:
        height, width = self.sizes[index].tolist()
        return height, width

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Decode the file; one that has become unreadable since raises UnreadableImage too."""
        if index in self.unreadable:
            raise UnreadableImage(
                f"{self.names[index]} cannot be used, it is unreadable: {self.unreadable[index]}"
            )
        try:
            image = read_rgb(self.paths[index])
        except UnreadableImage as error:
            raise UnreadableImage(
                f"{self.names[index]} was readable when the run started and is not now: {error}"
            ) from None
        (height, width), now = self.size(index), image.shape
        if now[:2] != (height, width):  # its boxes or its mask would lie elsewhere
            raise UnreadableImage(
                f"{self.names[index]} had {height}x{width} pixels when the run started, and has "
                f"{now[0]}x{now[1]} now"
            )
        return image


@dataclass(frozen=True, eq=False)
class PictureView:
    """A view of pictures with the same samples and names."""

    pictures: Pictures

    @property
    def names(self) -> Sequence[str]:
        return self.pictures.names

    @property
    def paths(self) -> Sequence[Path] | None:
        return self.pictures.paths

    @property
    def unreadable(self) -> Mapping[int, str]:
        return self.pictures.unreadable

    @property
    def in_memory(self) -> bool:
        return self.pictures.in_memory

    def __len__(self) -> int:
        return len(self.pictures)


@dataclass(frozen=True, eq=False)
class StretchedSamples(PictureView):
    """Pictures as `Samples`, stretched to a square without keeping the aspect ratio, as for SSD."""

    image_size: int

    def images(self, indices: IndexArray) -> Tensor:
        """Load images of one size: uint8 (b, 3, image_size, image_size)."""
        size = self.image_size
        if isinstance(self.pictures, MemoryPictures) and self.pictures.size(0) == (size, size):
            return self.pictures.samples.images(indices)  # they have the size already
        batch = np.empty((indices.size, size, size, 3), np.uint8)

        def load(row: int) -> None:
            batch[row] = stretch(self.pictures.picture(int(indices[row])), size)

        load_all(indices.size, load, in_memory=self.in_memory)
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()


def load_all(count: int, load: Callable[[int], None], *, in_memory: bool) -> None:
    """Call `load(0)` to `load(count - 1)`, in several threads unless the images are in memory.

    Raises:
        UnreadableImage: Calls have raised it; this is the error of the first of them.
    """
    reasons = for_each(count, load, num_threads=1 if in_memory else None)
    if reasons:
        raise UnreadableImage(reasons[min(reasons)])


def stretch(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize to a square of `size` pixels, linearly, as SSD's test transform does."""
    if image.shape[:2] == (size, size):
        return image
    resized = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized.astype(np.uint8, copy=False)
