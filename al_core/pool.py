"""The pool: which training samples are labeled, and since which cycle.

Samples are identified by their position in the training set. A pool holds no images and no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from al_core.errors import InvalidSetting

IndexArray = NDArray[np.int64]
"""Absolute positions in the training set, unique."""


def as_indices(indices: ArrayLike, *, num_samples: int) -> IndexArray:
    """Convert `indices` to an `IndexArray` and check them.

    Raises:
        ValueError: They are not a one-dimensional list of integers, repeat, or lie outside
            [0, num_samples).
    """
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"indices must be a list of whole numbers, got shape {array.shape} of {array.dtype}"
        )
    array = array.astype(np.int64)
    if not array.size:
        return array
    if array.min() < 0 or array.max() >= num_samples:
        outside = array[(array < 0) | (array >= num_samples)]
        raise ValueError(f"index {outside[0]} lies outside the {num_samples} samples")
    if np.unique(array).size != array.size:
        raise ValueError("indices repeat")
    return array


class Pool:
    """The state of `num_samples` samples: labeled, unlabeled or excluded.

    Args:
        num_samples: Size of the training set.
        excluded: Positions that are never labeled nor queried, such as those of unreadable images.

    Raises:
        ValueError: The size is negative, or an excluded position lies outside the set.
    """

    _UNLABELED, _LABELED, _EXCLUDED = 0, 1, 2

    def __init__(self, num_samples: int, *, excluded: Iterable[int] = ()) -> None:
        if num_samples < 0:
            raise InvalidSetting(f"a pool cannot hold {num_samples} samples")
        self.num_samples = num_samples
        self._status = np.zeros(num_samples, dtype=np.uint8)
        left_out = as_indices(sorted(set(excluded)), num_samples=num_samples)
        self._status[left_out] = self._EXCLUDED
        self._batches: list[IndexArray] = []

    @property
    def labeled(self) -> IndexArray:
        """The labeled samples, in order of labeling."""
        return np.concatenate([np.empty(0, dtype=np.int64), *self._batches])

    @property
    def unlabeled(self) -> IndexArray:
        """The samples that may be queried, ascending."""
        return np.flatnonzero(self._status == self._UNLABELED).astype(np.int64)

    @property
    def excluded(self) -> IndexArray:
        """The samples that are never queried, ascending."""
        return np.flatnonzero(self._status == self._EXCLUDED).astype(np.int64)

    @property
    def num_labeled(self) -> int:
        """Number of labeled samples."""
        return sum(batch.size for batch in self._batches)

    @property
    def cycle(self) -> int:
        """The cycle to train next: 0 after the initial set has been labeled, -1 before."""
        return len(self._batches) - 1

    def label(self, indices: ArrayLike) -> None:
        """Mark samples as labeled, which starts the next cycle, in O(len(indices)).

        Raises:
            ValueError: A position repeats or is out of range, or its sample is labeled already or
                excluded. The pool is then unchanged.
        """
        new = as_indices(indices, num_samples=self.num_samples)
        status = self._status[new]
        for code, word in ((self._LABELED, "labeled already"), (self._EXCLUDED, "excluded")):
            if (status == code).any():
                raise ValueError(f"sample {new[status == code][0]} is {word}")
        self._status[new] = self._LABELED
        self._batches.append(new)

    def labeled_since(self) -> NDArray[np.int64]:
        """Return the cycle since which each sample of `labeled` is labeled, in the same order."""
        return np.repeat(np.arange(len(self._batches)), [len(batch) for batch in self._batches])

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state in types that JSON supports."""
        return {
            "num_samples": self.num_samples,
            "excluded": self.excluded.tolist(),
            "labeled": [batch.tolist() for batch in self._batches],
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Pool:
        """Restore a pool; the state is checked as in the constructor and in `label`.

        Raises:
            ValueError: The state is inconsistent.
            KeyError: An entry is missing.
        """
        pool = cls(state["num_samples"], excluded=state["excluded"])
        for batch in state["labeled"]:
            pool.label(np.asarray(batch, dtype=np.int64))
        return pool
