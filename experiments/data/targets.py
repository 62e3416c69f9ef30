"""Labels that cannot be read before the oracle has given them.

In a simulation the answers lie beside the questions. This is the wall between the two: the pool
yields images only, and reading the label of a sample that was never annotated raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from al_core import IndexArray
from al_core.errors import LabelHidden


class Targets(Protocol):
    """The labels of a training set: an oracle reveals them, a task reads them."""

    def reveal(self, indices: IndexArray) -> None:
        """Make the labels of these samples of the pool readable; only an oracle does that."""
        ...

    def is_revealed(self, index: int) -> bool:
        """Tell whether the label of the image at `index` is readable, or a part of it."""
        ...

    def read(self, indices: IndexArray) -> Any:
        """Return the labels of images, as far as they are revealed.

        Raises:
            LabelHidden: Nothing of one of them is; the text names it.
        """
        ...


class HiddenTargets:
    """The targets of a training set, readable where revealed.

    Args:
        num_samples: Size of the training set.
        read: Returns the targets at these positions, batched as the task's loss takes them.
        names: Names of the samples, for the error.
    """

    def __init__(
        self, num_samples: int, read: Callable[[IndexArray], Any], names: Sequence[str]
    ) -> None:
        self._revealed = np.zeros(num_samples, dtype=bool)
        self._read = read
        self._names = names

    def reveal(self, indices: IndexArray) -> None:
        """Make these targets readable; only an oracle does that."""
        self._revealed[indices] = True

    def is_revealed(self, index: int) -> bool:
        """Tell whether the target at `index` is readable."""
        return bool(self._revealed[index])

    def concealed(self) -> HiddenTargets:
        """Return the same targets with none of them revealed, for a view of parts of them."""
        return HiddenTargets(self._revealed.size, self._read, self._names)

    def read(self, indices: IndexArray) -> Any:
        """Return the targets at `indices`.

        Raises:
            LabelHidden: One of them has not been annotated; the text names it.
        """
        hidden = indices[~self._revealed[indices]]
        if hidden.size:
            raise LabelHidden(
                f"the label of {self._names[hidden[0]]} was read before it was annotated"
            )
        return self._read(indices)


class GroundTruthOracle:
    """An oracle that answers at once, from the data set's own labels (a simulation).

    Args:
        targets: The labels that it reveals.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def annotate(self, indices: IndexArray) -> bool:
        """Reveal the labels of these samples, at once."""
        self._targets.reveal(indices)
        return True
