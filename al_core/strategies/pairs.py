"""Sparse similarities of pairs of rows: collected tile by tile, read row by row."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Pairs:
    """Pairs (row, column), sorted by row: those of row i stand at starts[i] .. starts[i + 1].

    Args:
        starts: (n + 1,).
        columns: (p,) int32.
        similar: (p,) float32 similarities.
    """

    def __init__(self, starts: NDArray[np.int64], columns: Tensor, similar: Tensor) -> None:
        self.starts, self.columns, self.similar = starts, columns, similar

    def of(self, row: int) -> tuple[Tensor, Tensor]:
        """Return the columns (c,) and similarities (c,) of a row."""
        part = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.columns[part], self.similar[part]


class PairCollector:
    """Pairs in the order of the tiles in which they were found, in arrays allocated once.

    `tiles` holds the rows of each tile, the number of pairs of each row, and the first column.

    Args:
        num_rows: n.
        capacity: Maximum number of pairs.
    """

    def __init__(self, num_rows: int, *, capacity: int) -> None:
        self.counts = np.zeros(num_rows, np.int64)
        self.columns = np.empty(capacity, np.uint16)  # within the tile
        self.similar = np.empty(capacity, np.float32)
        self.tiles: list[tuple[slice, NDArray[np.int64], int]] = []
        self.size = 0

    def add(
        self, kernel: Tensor, gained: Tensor, rows: slice, columns: slice, *, mirrored: bool = False
    ) -> bool:
        """Add the pairs of a tile with a gain above zero; return whether there was room.

        Args:
            kernel: (r, c) similarities, r and c at most 65,536.
            gained: (r, c) gains.
            rows: Rows of the tile in the matrix.
            columns: Columns of the tile in the matrix.
            mirrored: Add (column, row) for each pair (row, column).
        """
        found = np.flatnonzero(gained.numpy() > 0)
        if self.size + found.size > len(self.columns):
            return False
        own, other = np.divmod(found, kernel.shape[1])
        if mirrored:
            order = np.argsort(other.astype(np.uint16), kind="stable")  # radix sort
            found, own, other = found[order], other[order], own[order]
            rows, columns = columns, rows
        part = slice(self.size, self.size + found.size)
        self.columns[part] = other
        self.similar[part] = kernel.numpy().reshape(-1)[found]
        counts = np.bincount(own, minlength=rows.stop - rows.start)
        self.counts[rows] += counts
        self.tiles.append((rows, counts, columns.start))
        self.size = part.stop
        return True

    def sorted(self) -> Pairs:
        """Return all pairs, sorted by row."""
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        columns = np.empty(self.size, np.int32)
        similar = np.empty(self.size, np.float32)
        following = starts[:-1].copy()
        first = 0
        for rows, counts, first_column in self.tiles:
            part = slice(first, first + int(counts.sum()))
            shift = following[rows] - (np.cumsum(counts) - counts)
            place = np.arange(part.stop - part.start) + np.repeat(shift, counts)
            columns[place] = self.columns[part] + np.int32(first_column)
            similar[place] = self.similar[part]
            following[rows] += counts
            first = part.stop
        return Pairs(starts, torch.from_numpy(columns), torch.from_numpy(similar))
