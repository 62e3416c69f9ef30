"""The samples that a pool holds and a query names: whole images, or parts of images.

With `WholeImages` a sample is an image of the task's training set; `experiments.units.regions` has
the other case. Loop, strategies and tasks are the same for both.
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
    """The samples of a pool, and the images of the training set that they lie in.

    Attributes:
        counted_in: Noun for the things that a budget counts, in the plural.
        targets: The labels, which an oracle reveals sample by sample.
        groups: (n,) the image that each sample lies in; the initial set and the candidates are then
            drawn as whole images. None if a sample is an image.
        costs: (n,) the cost of labeling each sample; None if all cost the same.
        unreadable: Position -> reason of the samples that are never queried.
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
        """Convert `cycle.query_size` to the budget of a query in `counted_in`."""
        ...

    def amounts(self, initial_size: int) -> tuple[int, int]:
        """Return bounds that are known before `prepare`, in `counted_in`.

        Args:
            initial_size: Images of the initial set.

        Returns:
            The least that the initial set contains, and the most that the pool contains.
        """
        ...

    def prepare(self) -> None:
        """Do slow preparations that are cached; samples and labels are available afterwards."""
        ...

    def rows(
        self, prediction: Prediction, images: IndexArray, indices: IndexArray, extract: Extract
    ) -> Tensor:
        """Return the rows of `extract` for the requested samples in a batch of images.

        Args:
            prediction: The prediction for the batch.
            images: The images of the batch, ascending.
            indices: All requested samples, ascending; some may lie in other batches.
            extract: As in `Learner.infer`.

        Returns:
            One row per sample of the batch, ascending.
        """
        ...

    def name(self, index: int) -> str:
        """Return the name of a sample for people."""
        ...

    def columns(self, indices: IndexArray) -> Mapping[str, Sequence[Any]]:
        """Return columns that describe samples in tables, besides the names of their images."""
        ...

    def files(self, images: IndexArray) -> Iterator[tuple[str, bytes]]:
        """Yield (name, contents) of the files that people need to label samples of these images."""
        ...

    def marked(self, panels: list[Panel], images: IndexArray, chosen: IndexArray) -> list[Panel]:
        """Mark the chosen samples in the panels of images."""
        ...


def image_of(unit: Unit, indices: IndexArray) -> IndexArray:
    """Return the image that each sample lies in."""
    return indices if unit.groups is None else unit.groups[indices]


def images_of(unit: Unit, indices: IndexArray) -> tuple[IndexArray, IndexArray]:
    """Return the images that samples lie in, each once, and its first place in `indices`.

    Both arrays are in the order of these places. For a ranking of samples, this orders images by
    their most wanted sample.
    """
    of = image_of(unit, indices)
    first = np.sort(np.unique(of, return_index=True)[1])
    return of[first], first


class WholeImages:
    """The unit in which a sample is an image of the training set.

    Args:
        task: The task, for its training set and labels.
    """

    counted_in = "images"
    groups: IndexArray | None = None
    costs: CostArray | None = None

    def __init__(self, task: Task) -> None:
        self._samples = task.train
        self.targets = task.targets

    @property
    def unreadable(self) -> Mapping[int, str]:
        return self._samples.unreadable

    def __len__(self) -> int:
        return len(self._samples)

    def budget(self, query_size: int) -> int:
        return query_size

    def amounts(self, initial_size: int) -> tuple[int, int]:
        return initial_size, len(self) - len(self.unreadable)

    def prepare(self) -> None:
        """Do nothing: images need no preparation."""

    def rows(
        self, prediction: Prediction, images: IndexArray, indices: IndexArray, extract: Extract
    ) -> Tensor:
        """Return a row per image."""
        return extract(prediction)

    def name(self, index: int) -> str:
        return self._samples.names[index]

    def columns(self, indices: IndexArray) -> Mapping[str, Sequence[Any]]:
        """Return no columns: a name identifies an image."""
        return {}

    def files(self, images: IndexArray) -> Iterator[tuple[str, bytes]]:
        """Yield no files."""
        return iter(())

    def marked(self, panels: list[Panel], images: IndexArray, chosen: IndexArray) -> list[Panel]:
        """Return the panels unchanged: they show whole images."""
        return panels
