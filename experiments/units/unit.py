"""What the pool counts, a strategy ranks and a query names: whole images, or parts of them.

`WholeImages` is the plain case, in which a sample of the pool is an image of the task's training
set; `experiments.units.regions` has the other. Loop, strategies and tasks are the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from al_core import CostArray, IndexArray, Prediction
from experiments.data.targets import Targets
from experiments.drawing.panel import Panel
from experiments.tasks.base import Task

Extract = Callable[[Prediction], Tensor]


class Unit(Protocol):
    """The samples of a pool, by position, and how they lie in the images of a training set.

    Attributes:
        counted_in: The noun for the things that a query's budget counts, in the plural.
        targets: The labels; an oracle reveals those of samples.
        groups: (n,) the image that each sample lies in, where the initial set and the candidates
            are drawn as whole images; None where a sample is one.
        costs: (n,) what it costs to label each; None where they cost the same.
        unreadable: Position -> reason of the samples that are never offered.
    """

    counted_in: str
    targets: Targets
    groups: IndexArray | None
    costs: CostArray | None

    @property
    def unreadable(self) -> Mapping[int, str]:
        """Position -> reason, ascending."""
        ...

    def __len__(self) -> int: ...

    def budget(self, query_size: int) -> int:
        """Return what `cycle.query_size` amounts to, in `unit`."""
        ...

    def amounts(self, initial_size: int) -> tuple[int, int]:
        """Return what an initial set of so many images comes to at least, and the pool at most.

        In `unit`, and known before `prepare`.
        """
        ...

    def prepare(self) -> None:
        """Do what takes long and is kept; samples and labels are known from then on."""
        ...

    def rows(
        self, prediction: Prediction, images: IndexArray, indices: IndexArray, extract: Extract
    ) -> Tensor:
        """Return the rows of `extract` for those of the samples that lie in a batch of images.

        Args:
            prediction: Of the batch.
            images: The batch, ascending.
            indices: All samples that are asked for, ascending.
            extract: As in `Learner.infer`.

        Returns:
            A row a sample, ascending.
        """
        ...

    def name(self, index: int) -> str:
        """Return what a person calls the sample."""
        ...

    def columns(self, indices: IndexArray) -> Mapping[str, Sequence[Any]]:
        """Return what tables say of samples, beside the names of their images."""
        ...

    def files(self, images: IndexArray) -> Iterator[tuple[str, bytes]]:
        """Yield name and contents of what people need beside the images to label samples."""
        ...

    def marked(self, panels: list[Panel], images: IndexArray, chosen: IndexArray) -> list[Panel]:
        """Show in the panels of images which samples of them were chosen."""
        ...


def image_of(unit: Unit, indices: IndexArray) -> IndexArray:
    """Return the image that each sample lies in."""
    return indices if unit.groups is None else unit.groups[indices]


def images_of(unit: Unit, indices: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Return the images that samples lie in, each once, and where in `indices` each comes first.

    Both are in that order: of a ranking, images by their most wanted sample.
    """
    of = image_of(unit, indices)
    first = np.sort(np.unique(of, return_index=True)[1])
    return of[first], first


class WholeImages:
    """A sample is an image of the training set.

    Args:
        task: Its training set and labels.
    """

    counted_in = "images"
    groups: IndexArray | None = None
    costs: CostArray | None = None

    def __init__(self, task: Task) -> None:
        self._samples = task.train
        self.targets = task.targets

    @property
    def unreadable(self) -> Mapping[int, str]:
        """As in `Unit`."""
        return self._samples.unreadable

    def __len__(self) -> int:
        return len(self._samples)

    def budget(self, query_size: int) -> int:
        """As in `Unit`: the number itself."""
        return query_size

    def amounts(self, initial_size: int) -> tuple[int, int]:
        """As in `Unit`."""
        return initial_size, len(self) - len(self.unreadable)

    def prepare(self) -> None:
        """As in `Unit`: there is nothing to do."""

    def rows(
        self, prediction: Prediction, images: IndexArray, indices: IndexArray, extract: Extract
    ) -> Tensor:
        """As in `Unit`: a row an image."""
        return extract(prediction)

    def name(self, index: int) -> str:
        """As in `Unit`."""
        return self._samples.names[index]

    def columns(self, indices: IndexArray) -> Mapping[str, Sequence[Any]]:
        """As in `Unit`: the name says it all."""
        return {}

    def files(self, images: IndexArray) -> Iterator[tuple[str, bytes]]:
        """As in `Unit`: the images suffice."""
        return iter(())

    def marked(self, panels: list[Panel], images: IndexArray, chosen: IndexArray) -> list[Panel]:
        """As in `Unit`: the panels show whole images already."""
        return panels
