"""Data sets in another order: samples keep the positions that a run knows them by.

A position may stand for a sample that is gone. Like an unreadable one it has a name and a reason,
and no image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.decoding import UnreadableImage
from experiments.data.pictures import Pictures
from experiments.data.samples import IndexArray, Samples

GONE = -1
"""Stands where the position of a sample would."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The order of a set.

    Attributes:
        order: int64 (n,), where each sample is in the set as it was built, or `GONE`.
        names: (n,), of the samples that are gone too.
        left_out: Position in the new order -> reason, for samples that are not to be used, among
            them all that are gone.
    """

    order: IndexArray
    names: Sequence[str]
    left_out: Mapping[int, str]

    def changes(self, samples: Samples | Pictures) -> bool:
        """Return whether a set would be any different."""
        same = np.array_equal(self.order, np.arange(len(samples)))
        return not same or bool(set(self.left_out) - set(samples.unreadable))

    def unreadable(self, samples: Samples | Pictures) -> dict[int, str]:
        """Return what is left out, and what of the rest cannot be read."""
        found = {
            position: samples.unreadable[index]
            for position, index in enumerate(self.order.tolist())
            if index in samples.unreadable
        }
        return dict(sorted({**found, **self.left_out}.items()))

    def paths(self, samples: Samples | Pictures) -> list[Path] | None:
        """Return the files of the samples; of one that is gone, what would be beside the first."""
        if samples.paths is None:
            return None
        return [
            samples.paths[index] if index != GONE else Path(name)
            for index, name in zip(self.order.tolist(), self.names, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class _View:
    """The common part of arranged samples and pictures."""

    arrangement: Arrangement
    unreadable: Mapping[int, str] = field(init=False)
    paths: Sequence[Path] | None = field(init=False)
    in_memory: bool = field(init=False)

    def _fill(self, samples: Samples | Pictures) -> None:
        object.__setattr__(self, "unreadable", self.arrangement.unreadable(samples))
        object.__setattr__(self, "paths", self.arrangement.paths(samples))
        object.__setattr__(self, "in_memory", samples.in_memory)

    @property
    def names(self) -> Sequence[str]:
        return self.arrangement.names

    def __len__(self) -> int:
        return len(self.arrangement.names)

    def _there(self, index: int) -> int:
        if index in self.unreadable:
            raise UnreadableImage(f"{self.names[index]} cannot be used: {self.unreadable[index]}")
        return int(self.arrangement.order[index])


@dataclass(frozen=True, eq=False)
class ArrangedSamples(_View):
    """Samples in another order, as `Samples`."""

    samples: Samples

    def __post_init__(self) -> None:
        self._fill(self.samples)

    @property
    def image_size(self) -> int | None:
        """Side of the images in pixels, as far as the set itself says."""
        return getattr(self.samples, "image_size", None)

    def images(self, indices: IndexArray) -> Tensor:
        there = [self._there(index) for index in indices.tolist()]
        return self.samples.images(np.array(there, np.int64))


@dataclass(frozen=True, eq=False)
class ArrangedPictures(_View):
    """Pictures in another order, as `Pictures`."""

    pictures: Pictures

    def __post_init__(self) -> None:
        self._fill(self.pictures)

    def size(self, index: int) -> tuple[int, int]:
        return (0, 0) if index in self.unreadable else self.pictures.size(self._there(index))

    def picture(self, index: int) -> NDArray[np.uint8]:
        return self.pictures.picture(self._there(index))


@runtime_checkable
class Data(Protocol):
    """A pool and a test set whose samples can be put into another order, with their labels."""

    @property
    def train(self) -> Samples | Pictures: ...

    @property
    def test(self) -> Samples | Pictures: ...

    def with_order(self, part: str, arrangement: Arrangement) -> Self:
        """Return this set with `part`, "train" or "test", in another order, labels included.

        The label of a sample that is gone is never read.
        """
        ...


T = TypeVar("T", bound=Data)


def arranged(data: T, *, train: Arrangement, test: Arrangement) -> T:
    """Return a data set whose pool and test set are in another order, labels included."""
    if train.changes(data.train):
        data = data.with_order("train", train)
    if test.changes(data.test):
        data = data.with_order("test", test)
    return data
