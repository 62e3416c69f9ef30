"""Core-set selection (greedy k-center): every sample should be close to a labeled one.

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
from al_core.strategies.blocks import (
    UNDERFLOW,
    blocks,
    rounding,
    squared_distances,
    squared_norms,
    tensor,
)
from al_core.strategies.rows import (
    EmbeddingChoice,
    Matrix,
    embeddings_of,
    required_embedding,
    shuffled_candidates,
    writable_folder,
)

FRONT = 1024
"""Rows among which the next picks are made: 4 MB in float64 with 512 columns."""
SIEVED = 1 / 8
"""Share of the rows, those of largest bound, whose bounds are lowered at once."""
FEWEST, MOST = 128, 2048
"""Minimum and maximum number of centers by which bounds are lowered at once."""


class KCenter:
    """Repeatedly choose the sample farthest from all labeled and all chosen samples.

    Args:
        embedding: "model" for the model's own embeddings, "pretrained" for those of a network that
            was trained on other data.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.
    """

    def __init__(
        self,
        *,
        embedding: EmbeddingChoice = "model",
        embeddings_folder: str | Path | None = None,
    ) -> None:
        self.requires = frozenset({required_embedding(embedding)})
        self.embedding = embedding
        self.folder = writable_folder(embeddings_folder)

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
        offered, labeled = embeddings_of(
            learner, candidates, pool.labeled, choice=self.embedding, folder=self.folder
        )
        chosen, distances = k_center_greedy(offered, budget, centers=labeled)
        return Query(candidates[chosen], distances)


def k_center_greedy(
    embeddings: Matrix, budget: int, *, centers: Matrix | None = None
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Repeatedly choose the row farthest from all centers and make it a center.

    The result equals that of the plain loop in float64, which computes all distances for every
    pick. Distances only decrease, so the distance to some of the centers is an upper bound, and
    most rows are ruled out after a comparison with a few centers. Bounds come from matrix products
    in float32 plus the rounding error of float32. Picks are made in float64 among the rows of
    largest bound, as long as no other row can be farther.

    Args:
        embeddings: (n, d).
        budget: 0..n.
        centers: (l, d) to start from; without any, row 0 is chosen first.

    Returns:
        (budget,) different rows in order of choice, the first among equally distant ones, and their
        distances to the nearest center at the time of choice. Without centers the first row gets
        the distance of the second.
    """
    if centers is None:
        centers = np.empty((0, embeddings.shape[1]), np.float32)
    search = _Search(embeddings, centers, budget)
    if budget and not search.num_centers:
        search.take(0, np.inf)
    while len(search.chosen) < budget:
        search.advance(budget)
    distances = np.sqrt(np.array(search.squared))
    if distances.size and np.isinf(distances[0]):
        distances[0] = distances[1] if budget > 1 else 0.0
    return np.array(search.chosen, np.int64), distances


class _Search:
    """The state of a search.

    `bound[i]` is an upper bound of the squared distance of row i to the first `seen[i]` centers,
    the distance itself in float64 where `exact[i]`, and -1 for chosen rows.
    """

    def __init__(self, rows: Matrix, centers: Matrix, budget: int) -> None:
        self.rows = rows
        self.centers = np.empty((len(centers) + budget, rows.shape[1]), np.float32)
        self.centers[: len(centers)] = centers
        self.num_centers = len(centers)
        self.norms = squared_norms(rows)
        self.bound = np.full(len(rows), np.inf)
        self.seen = np.zeros(len(rows), np.int64)
        self.exact = np.zeros(len(rows), bool)
        self.chosen: list[int] = []
        self.squared: list[float] = []

    def take(self, row: int, squared_distance: float) -> None:
        """Choose a row."""
        self.chosen.append(row)
        self.squared.append(squared_distance)
        self.centers[self.num_centers] = self.rows[row]
        self.num_centers += 1
        self.bound[row] = -1

    def advance(self, budget: int) -> None:
        """Choose among the rows of largest bound for as long as no other row can be farther."""
        front, rival = self._front()
        rows = self.rows[front].astype(np.float64)
        distances = self._distances(front, rows)
        norms = np.square(rows).sum(1)
        products = rows @ rows.T
        inexact = rounding(rows.shape[1], torch.float64)
        while len(self.chosen) < budget:
            place = int(distances.argmax())
            best, row = float(distances[place]), int(front[place])
            if best < rival[0] or (best == rival[0] and row > rival[1]):
                break
            self.take(row, best)
            distances[place] = -1
            sums = norms + norms[place]
            closer = sums - 2 * products[place] <= distances + inexact * sums
            near = np.flatnonzero(closer & (distances >= 0))
            away = np.square(rows[near] - rows[place]).sum(1)
            distances[near] = np.minimum(distances[near], away)
        self.bound[front] = distances
        self.seen[front] = self.num_centers
        self.exact[front] = True

    def _front(self) -> tuple[NDArray[np.int64], tuple[float, int]]:
        """Return the rows of largest bound, ascending, and the largest other bound with its row.

        Nearly all of these rows have been compared with all centers.
        """
        while True:
            front, rival = self._largest()
            unseen = ~self.exact[front] & (self.seen[front] < self.num_centers)
            if unseen.sum() <= FRONT // 8:
                return front, rival
            self._sieve()

    def _largest(self) -> tuple[NDArray[np.int64], tuple[float, int]]:
        """Return the same by the current bounds; the first among equal rows are in front."""
        size = min(FRONT, len(self.rows))
        least = np.partition(self.bound, -size)[-size]
        above = np.flatnonzero(self.bound > least)
        tied = np.flatnonzero(self.bound == least)
        front = np.sort(np.concatenate([above, tied[: size - above.size]]))
        others = tied[size - above.size :]
        if others.size:
            return front, (float(least), int(others[0]))
        lower = np.where(self.bound < least, self.bound, -np.inf)
        row = int(lower.argmax())
        return front, (float(lower[row]), row)

    def _sieve(self) -> None:
        """Lower the largest bounds by comparison with some more centers.

        Many of them fall below those of other rows, which postpones or spares the comparison with
        the remaining centers.
        """
        size = min(max(8 * FRONT, int(SIEVED * len(self.rows))), len(self.rows))
        least = np.partition(self.bound, -size)[-size]
        wanted = np.flatnonzero(
            (self.bound >= least) & (self.seen < self.num_centers) & ~self.exact
        )
        seen = self.seen[wanted]
        for first in np.unique(seen).tolist():
            # A row that is still in front after many centers is likely to need all of them.
            step = min(max(FEWEST, first), MOST)
            self._lower(wanted[seen == first], slice(first, min(first + step, self.num_centers)))

    def _lower(self, rows: NDArray[np.int64], part: slice) -> None:
        """Lower the bounds of rows by the distances to a part of the centers, in float32."""
        inexact = rounding(self.centers.shape[1])
        transposed = torch.from_numpy(self.centers[part].T.copy())
        # An error of 2 |x| |c| is at most one of |x|^2 + |c|^2.
        constants = torch.from_numpy(squared_norms(self.centers[part]) * (1 + 2 * inexact)).float()
        every = rows.size == len(self.rows)
        for block in blocks(rows.size):
            some = block if every else rows[block]
            near = torch.addmm(constants, tensor(self.rows[some]), transposed, alpha=-2).amin(1)
            bound = near.double().numpy() + self.norms[some] * (1 + inexact) + UNDERFLOW
            bound[~np.isfinite(bound)] = np.inf  # squares overflow float32
            self.bound[some] = np.minimum(self.bound[some], bound)
        self.seen[rows] = part.stop

    def _distances(
        self, front: NDArray[np.int64], rows: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return the squared distances of `rows`, those of the front, to all centers, in float64.

        Products find the nearest center. The distance to it is computed from the difference, which
        gives equal results for equal rows and 0 for rows that equal the center.
        """
        distances = self.bound[front]
        first = np.where(self.exact[front], self.seen[front], 0)
        for start in np.unique(first).tolist():
            some = np.flatnonzero((first == start) & (distances >= 0))
            for part in blocks(self.num_centers - start, MOST):
                centers = self.centers[start:][part].astype(np.float64)
                products = squared_distances(
                    torch.from_numpy(rows[some]), torch.from_numpy(centers)
                )
                nearest = products.argmin(1).numpy()
                away = np.square(rows[some] - centers[nearest]).sum(1)
                distances[some] = np.minimum(distances[some], away)
        return distances
