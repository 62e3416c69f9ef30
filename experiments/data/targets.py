"""Labels that cannot be read before the oracle has revealed them.

In a simulation the labels of the pool are on disk from the start. These classes keep them apart:
reading the label of a sample that was never annotated raises an error.
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
        """Make the labels of these samples readable; only an oracle calls this."""
        ...

    def is_revealed(self, index: int) -> bool:
        """Return whether the label of the image at `index`, or a part of it, is readable."""
        ...

    def read(self, indices: IndexArray) -> Any:
        """Return the revealed labels, or parts of labels, of images.

        Raises:
            LabelHidden: No part of one of them is revealed; the text names the image.
        """
        ...


class HiddenTargets:
    """The targets of a training set, of which the revealed ones can be read.

    Args:
        num_samples: Size of the training set.
        read: Returns the targets at given positions, batched for the task's loss.
        names: Names of the samples for the error message.
    """

    def __init__(
        self, num_samples: int, read: Callable[[IndexArray], Any], names: Sequence[str]
    ) -> None:
        self._revealed = np.zeros(num_samples, dtype=bool)
        self._read = read
        self._names = names

    def reveal(self, indices: IndexArray) -> None:
        """Make these targets readable; only an oracle calls this."""
        self._revealed[indices] = True

    def is_revealed(self, index: int) -> bool:
        """Return whether the target at `index` is readable."""
        return bool(self._revealed[index])

    def concealed(self) -> HiddenTargets:
        """Return the same targets, none of them revealed, for a view that reveals parts."""
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


class OpenTargets:
    """The targets of a test set, which anybody may read.

    Args:
        read: Returns the targets at given positions, like those of `HiddenTargets`.
    """

    def __init__(self, read: Callable[[IndexArray], Any]) -> None:
        self.read = read

    def reveal(self, indices: IndexArray) -> None:
        """Do nothing."""

    def is_revealed(self, index: int) -> bool:
        """Return True."""
        return True


class GroundTruthOracle:
    """An oracle that simulates annotation: it reveals the data set's own labels at once.

    Args:
        targets: The labels.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    def annotate(self, indices: IndexArray) -> bool:
        """Reveal the labels of these samples and return True."""
        self._targets.reveal(indices)
        return True
