"""Greedy maximization of a coverage by a Gaussian kernel, without the matrix of all pairs.

The gain of a row never grows while others are chosen (it is submodular), so an earlier value is an
upper bound, and only rows whose bound may be the largest are evaluated again: the lazy greedy
algorithm of Minoux 1978. A pair of rows matters only while it is more similar than the second row
and its nearest covering row. Such pairs become fewer with every choice, and as soon as they fit
into memory they are kept instead of being computed again.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.strategies.blocks import blocks, squared_distances, tensor
from al_core.strategies.pairs import PairCollector, Pairs
from al_core.strategies.rows import Matrix

TILE = (512, 2048)
"""Rows and columns of the kernel matrix that are computed at once: 4 MB."""
MAX_PAIRS = 5 * 10**7
"""Maximum number of pairs that are kept: 400 MB, and 300 MB more while they are sorted."""
SAMPLED = 128
"""Rows from which the number of pairs is estimated."""
COMPUTED = 256
"""Rows of the kernel matrix that are computed at once before pairs are kept."""
CACHE_BYTES = 2**28
"""Memory for these rows."""
FIRST_EVALUATED = 4
"""Rows whose gain is evaluated first for each pick; the number doubles up to `COMPUTED`."""


class Coverage:
    """Mean similarity of all rows to their nearest covering row, and the gain by each row.

    `covered[j]` is the similarity exp(-|x - y|^2 / sigma^2) of row j to the most similar covering
    row. `bound[i]` is the last evaluated gain of row i, up to date where `fresh[i]`, and -inf for
    chosen rows.

    Args:
        rows: (n, d).
        weights: (n,) weights of the mean, at least 0; None for ones.
        sigma: Width of the kernel.
    """

    def __init__(self, rows: Matrix, weights: NDArray[np.float32] | None, sigma: float) -> None:
        n = len(rows)
        self.rows, self.sharpness = rows, 1 / sigma**2
        self.weights = torch.ones(n) if weights is None else torch.from_numpy(weights.copy())
        self.weights /= n
        self.covered = torch.zeros(n)
        self.bound = np.full(n, np.inf)
        self.fresh = np.zeros(n, bool)
        self.pairs: Pairs | None = None
        self._empty_cache(0)
        self.num_computed = 0  # rows of the kernel matrix, since pairs were last counted

    def cover_by(self, others: Matrix) -> None:
        """Let other rows (l, d) cover these, before any is chosen."""
        for block in blocks(len(self.rows), TILE[0]):
            x = tensor(self.rows[block])
            for part in blocks(len(others), TILE[1]):
                nearest = squared_distances(x, tensor(others[part])).amin(1)
                similar = nearest.mul_(-self.sharpness).exp_()
                self.covered[block] = torch.maximum(self.covered[block], similar)

    def best(self) -> tuple[int, float]:
        """Return the row of largest gain, the first among equals, and its gain."""
        size, evaluated = FIRST_EVALUATED, 0
        while True:
            current = np.where(self.fresh, self.bound, -np.inf)
            row = int(current.argmax())
            rivals = ~self.fresh & (self.bound >= current[row]) & (self.bound > -np.inf)
            rivals[row:] &= self.bound[row:] > current[row]  # the first among equals wins
            waiting = np.flatnonzero(rivals)
            if not waiting.size:
                return row, float(current[row])
            if self.pairs is None and self._shall_evaluate_all(waiting.size, evaluated):
                self._evaluate_all()
                continue
            if waiting.size > size:
                waiting = waiting[np.argpartition(-self.bound[waiting], size - 1)[:size]]
            self._evaluate(waiting)
            evaluated += waiting.size
            size = min(2 * size, COMPUTED)

    def take(self, row: int) -> None:
        """Choose a row, and let it cover the others."""
        if self.pairs is not None:
            columns, similar = self.pairs.of(row)
            self.covered[columns] = torch.maximum(self.covered[columns], similar)
        else:
            self._compute(np.array([row]))
            torch.maximum(self.covered, self.cache[self.place[row]], out=self.covered)
        self.covered[row] = 1
        self.bound[row] = -np.inf
        self.fresh[:] = False

    def _shall_evaluate_all(self, num_waiting: int, num_evaluated: int) -> bool:
        """Return whether a pass over half of the matrix is the cheaper way to go on."""
        n = len(self.rows)
        if np.isinf(self.bound).all():
            return True
        if self.num_computed > n / 4:
            self.num_computed = 0
            if self._num_pairs() <= MAX_PAIRS:
                return True
        return num_evaluated >= COMPUTED and num_waiting > n / 2

    def _num_pairs(self) -> int:
        """Estimate how many pairs are more similar than the second row is covered."""
        n = len(self.rows)
        sampled = np.linspace(0, n - 1, min(SAMPLED, n)).astype(np.int64)
        x, count = tensor(self.rows[sampled]), 0
        for columns in blocks(n, TILE[1]):
            count += int((self._kernel(x, columns) > self.covered[columns]).sum())
        return count * n // sampled.size

    def _evaluate_all(self) -> None:
        """Evaluate all gains, each pair of rows once, and keep the pairs if they fit."""
        n = len(self.rows)
        gains = torch.zeros(n, dtype=torch.float64)
        fits = self._num_pairs() <= MAX_PAIRS
        collected = PairCollector(n, capacity=MAX_PAIRS if fits else 0)
        if fits:
            self._empty_cache(0)
        for block in blocks(n, TILE[0]):
            x = tensor(self.rows[block])
            for start in range(block.start, n, TILE[1]):
                columns = slice(start, min(start + TILE[1], n))
                kernel = self._kernel(x, columns)
                if start == block.start:
                    kernel.fill_diagonal_(1)
                gained = (kernel - self.covered[columns]).clamp_(min=0)
                gains[block] += (gained @ self.weights[columns]).double()
                fits = fits and collected.add(kernel, gained, block, columns)
                # Pairs within the block have already been counted in both directions.
                kernel = kernel[:, max(0, block.stop - start) :]
                columns = slice(columns.stop - kernel.shape[1], columns.stop)
                gained = (kernel - self.covered[block, None]).clamp_(min=0)
                gains[columns] += (self.weights[block] @ gained).double()
                fits = fits and collected.add(kernel, gained, block, columns, mirrored=True)
        self.bound = np.where(np.isneginf(self.bound), -np.inf, gains.numpy())
        self.fresh[:] = True
        if fits:
            self.pairs = collected.sorted()

    def _evaluate(self, rows: NDArray[np.int64]) -> None:
        """Evaluate the gains of a few rows."""
        if self.pairs is None:
            self._compute(rows)
        for row in rows.tolist():
            if self.pairs is not None:
                columns, similar = self.pairs.of(row)
                gained = (similar - self.covered[columns]).clamp_(min=0)
                self.bound[row] = float(gained @ self.weights[columns])
            else:
                gained = (self.cache[self.place[row]] - self.covered).clamp_(min=0)
                self.bound[row] = float(gained @ self.weights)
        self.fresh[rows] = True

    def _compute(self, rows: NDArray[np.int64]) -> None:
        """Compute missing rows of the kernel matrix, and those most likely to be needed next."""
        n = len(self.rows)
        if (self.place[rows] >= 0).all():
            return
        if not len(self.cache):
            self._empty_cache(min(n, max(2 * COMPUTED, CACHE_BYTES // (4 * n))))
        likely = np.argpartition(-self.bound, min(COMPUTED, n) - 1)[:COMPUTED]
        wanted = np.union1d(rows, likely)
        missing = wanted[self.place[wanted] < 0]
        if self.num_cached + missing.size > len(self.cache):
            self._empty_cache(len(self.cache))
            missing = wanted
        target = self.cache[self.num_cached : self.num_cached + missing.size]
        x = tensor(self.rows[missing])
        for columns in blocks(n, TILE[1]):
            target[:, columns] = self._kernel(x, columns)
        target[torch.arange(missing.size), torch.from_numpy(missing)] = 1
        self.place[missing] = self.num_cached + np.arange(missing.size)
        self.num_cached += missing.size
        self.num_computed += missing.size

    def _empty_cache(self, capacity: int) -> None:
        """Forget all computed rows of the kernel matrix, and make room for new ones."""
        n = len(self.rows)
        self.cache = torch.empty(capacity, n)
        self.place = np.full(n, -1, np.int64)
        self.num_cached = 0

    def _kernel(self, x: Tensor, columns: slice) -> Tensor:
        squared = squared_distances(x, tensor(self.rows[columns]))
        return squared.mul_(-self.sharpness).exp_()
