"""Core-set selection: every sample shall be close to a labeled one (greedy k-center).

Source: Sener & Savarese, *Active Learning for Convolutional Neural Networks: A Core-Set Approach*,
ICLR 2018 (arXiv 1708.00489), algorithm 1; the greedy rule and its factor of 2 are Gonzalez 1985.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from al_core.contracts import Learner, Query, ScoreArray
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, squared_distances, squared_norms, tensor
from al_core.strategies.rows import Matrix, embeddings_of, shuffled_candidates

FRONT = 2048
"""Rows among which the next picks are made: in float64 and 512 columns 8 MB, a cache's size."""

REFRESHED = 0.25
"""Share of the rows, those of largest bound, that a refresh looks at: they make the next fronts."""


class KCenter:
    """The sample farthest from all labeled ones and all chosen ones, again and again.

    Args:
        embeddings_folder: Where embeddings are kept in a memory-mapped file; None for in memory.
    """

    def __init__(self, *, embeddings_folder: str | Path | None = None) -> None:
        self.folder = embeddings_folder

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose by embeddings; scores are distances to the nearest center when chosen."""
        offered, labeled = embeddings_of(learner, candidates, pool.labeled, folder=self.folder)
        chosen, distances = k_center_greedy(offered, budget, centers=labeled)
        return Query(candidates[chosen], distances)


def k_center_greedy(
    embeddings: Matrix, budget: int, *, centers: Matrix | None = None
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Choose the row farthest from all centers, make it a center, and so on.

    Exact: the rows are those of the plain loop in float64, which looks at the whole matrix for
    every pick. Distances only decrease, so what a row's distance was is an upper bound. Picks are
    made among the rows of largest bound, in float64, for as long as none of the others can be
    farther; bounds are refreshed by matrix products in float32, for many picks in one pass over
    memory, with the rounding of float32 added to them.

    Args:
        embeddings: (n, d).
        budget: 0..n.
        centers: (l, d) to start from; without any, row 0 is chosen first.

    Returns:
        (budget,) different rows, in order of choice, of equally distant ones the first; and their
        distances to the nearest center when they were chosen (that of a first row without centers
        is given as the next one's).
    """
    search = _Search(embeddings, np.empty((0, embeddings.shape[1])) if centers is None else centers)
    if budget and not len(search.centers):
        search.take(0, np.inf)
    while len(search.chosen) < budget:
        search.advance(budget)
    distances = np.sqrt(np.array(search.squared[:budget]))
    if distances.size and np.isinf(distances[0]):
        distances[0] = distances[1] if budget > 1 else 0.0
    return np.array(search.chosen[:budget], np.int64), distances


class _Search:
    """The state of a search.

    `bound[i]` is at least the squared distance of row i to the first `seen[i]` centers, and -1 for
    chosen rows.
    """

    def __init__(self, rows: Matrix, centers: NDArray[np.floating]) -> None:
        self.rows = rows
        self.centers = [np.asarray(center, np.float64) for center in centers]
        self.norms = squared_norms(rows)
        self.bound = np.full(len(rows), np.inf)
        self.seen = np.zeros(len(rows), np.int64)
        self.chosen: list[int] = []
        self.squared: list[float] = []

    def take(self, row: int, squared_distance: float) -> None:
        """Choose a row."""
        self.chosen.append(row)
        self.squared.append(squared_distance)
        self.centers.append(np.asarray(self.rows[row], np.float64))
        self.bound[row] = -1

    def advance(self, budget: int) -> None:
        """Choose from the front for as long as no other row can be farther, then renew bounds."""
        size = min(FRONT, len(self.rows))
        # Ordered by bound, then by row: of equal ones the first rows are in the front.
        least = np.partition(self.bound, len(self.rows) - size)[len(self.rows) - size]
        above = np.flatnonzero(self.bound > least)
        tied = np.flatnonzero(self.bound == least)
        front = np.sort(np.concatenate([above, tied[: size - above.size]]))
        others = tied[size - above.size :]
        rival = (least, int(others[0])) if others.size else self._largest_below(least)
        rows = torch.from_numpy(self.rows[front].astype(np.float64))
        distances = torch.full((front.size,), torch.inf, dtype=torch.float64)
        centers = torch.from_numpy(np.stack(self.centers))
        for block in blocks(len(centers), FRONT):
            nearest = squared_distances(rows, centers[block]).amin(1)
            torch.minimum(distances, nearest, out=distances)
        distances[torch.from_numpy(self.bound[front] < 0)] = -1
        norms = rows.square().sum(1)
        while len(self.chosen) < budget:
            place = int(distances.argmax())
            best = float(distances[place])
            if best < rival[0] or (best == rival[0] and front[place] > rival[1]):
                break
            self.take(int(front[place]), best)
            away = torch.addmv(norms + norms[place], rows, rows[place], alpha=-2).clamp_(min=0)
            torch.minimum(distances, away, out=distances)
            distances[torch.from_numpy(self.bound[front] < 0)] = -1
        else:
            return
        self.bound[front] = distances.numpy()
        self.seen[front] = len(self.centers)
        self._refresh(float(distances.max()))

    def _largest_below(self, bound: float) -> tuple[float, int]:
        """Return the largest bound below `bound` and its first row, out of the front."""
        lower = np.where(self.bound < bound, self.bound, -np.inf)
        row = int(lower.argmax())
        return float(lower[row]), row

    def _refresh(self, farthest: float) -> None:
        """Bring bounds up to date: of all rows that may be as far as the farthest known, and more.

        The rest need not be looked at until the farthest has come down to them.
        """
        place = len(self.rows) - 1 - int(REFRESHED * len(self.rows))
        least = min(farthest, np.partition(self.bound, place)[place])
        wanted = np.flatnonzero((self.bound >= least) & (self.seen < len(self.centers)))
        seen = self.seen[wanted]
        for first in np.unique(seen).tolist():
            rows = wanted[seen == first]
            new = np.stack(self.centers[first:])
            for block in blocks(len(new), FRONT):
                self._lower(rows, new[block])
        self.seen[wanted] = len(self.centers)

    def _lower(self, rows: NDArray[np.int64], centers: NDArray[np.float64]) -> None:
        transposed = torch.from_numpy(centers.astype(np.float32).T.copy())
        squared = np.square(centers).sum(1)
        constants = torch.from_numpy(squared.astype(np.float32))
        # Of a product of d terms in float32, each rounded: Higham 2002, section 3.1, and the sum.
        largest = np.sqrt(squared.max())
        rounding = (centers.shape[1] + 8) * 2.0**-24
        every = rows.size == len(self.rows)
        for block in blocks(rows.size):
            some = block if every else rows[block]
            near = torch.addmm(constants, tensor(self.rows[some]), transposed, alpha=-2).amin(1)
            norms = self.norms[some]
            bound = near.double().numpy() + norms
            bound += rounding * (2 * np.sqrt(norms) + largest) * largest
            self.bound[some] = np.minimum(self.bound[some], bound)
