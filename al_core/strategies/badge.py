"""BADGE: samples whose gradients are large and point in different directions.

Source: Ash, Zhang, Krishnamurthy, Langford & Agarwal, *Deep Batch Active Learning by Diverse,
Uncertain Gradient Lower Bounds*, ICLR 2020 (arXiv 1906.03671), algorithm 1; the seeding of
k-means++ is Arthur & Vassilvitskii, SODA 2007.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query, Requirement, ScoreArray
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import UNDERFLOW, blocks, rounding, squared_norms, tensor
from al_core.strategies.rows import (
    Matrix,
    embedding,
    infer_rows,
    shuffled_candidates,
    writable_folder,
)

PROPOSED = 256
"""Rows proposed at once."""
PASS = 1024
"""Cost of a proposal, in distances between a row and a chosen row that are computed in a pass."""
CENTERS = 1024
"""Chosen rows to which distances are computed at once."""
CLOSE = 256
"""Distances below this multiple of the rounding of float32 are computed in float64."""


class Badge:
    """k-means++ seeding on the gradients of the last layer at the predicted labels.

    The gradient of the cross-entropy with the predicted label is the outer product of p - e, the
    probabilities minus the indicator of the most probable class, and the embedding. With positions
    (boxes, pixels) the first factor is, for each class, the root mean square of p - e over the
    positions: its norm is that of an average position, its direction shows which classes are in
    doubt, and positions of opposite signs do not cancel.

    Args:
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.
    """

    requires = frozenset({Requirement.EMBEDDING})

    def __init__(self, *, embeddings_folder: str | Path | None = None) -> None:
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
        """Choose by gradients; scores are distances to the nearest sample chosen before."""
        rows = infer_rows(learner, candidates, _factors, folder=self.folder)
        num_classes = int(rows[0, 0])
        chosen, distances = badge(
            rows[:, 1 + num_classes :], rows[:, 1 : 1 + num_classes], budget, rng=rng
        )
        return Query(candidates[chosen], distances)


def _factors(prediction: Prediction) -> Tensor:
    """Extract (b, 1 + k + d): the number of classes, p - e, the embedding."""
    log_probs = prediction.log_probs
    residual = log_probs.exp()
    residual.scatter_add_(
        1, log_probs.argmax(1, keepdim=True), residual.new_full((1,), -1.0).expand_as(residual)
    )
    if residual.ndim > 2:
        residual = residual.flatten(2).square().mean(2).sqrt()
    count = residual.new_full((residual.shape[0], 1), residual.shape[1])
    return torch.cat([count, residual, embedding(prediction)], 1).float()


def badge(
    embeddings: Matrix, residuals: Matrix, budget: int, *, rng: np.random.Generator
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Choose rows by the seeding of k-means++ on the outer products of residuals and embeddings.

    The first is the longest gradient, as in the authors' code; each further one is drawn with
    probability proportional to its squared distance to the nearest chosen row. The gradients, k x d
    numbers each, are never formed: their inner products are products of the factors' inner
    products.

    The distribution is exactly that of the plain seeding, by rejection sampling. Distances only
    decrease, so the distances to the rows chosen up to the latest pass are upper bounds. Rows are
    proposed in proportion to these bounds and accepted with probability distance / bound, computed
    in float64. A pass over all rows renews the bounds once it costs less than the proposals that it
    saves, which is every few hundred picks. Differences within the rounding of float64 count as 0.

    Args:
        embeddings: (n, d).
        residuals: (n, k), p - e.
        budget: 0..n.
        rng: Source of all draws.

    Returns:
        (budget,) different rows in order of choice, and their distances to the nearest row chosen
        before; the length of its gradient for the first. Once all distances are 0, rows are drawn
        uniformly.
    """
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    seeding = _Seeding(embeddings, residuals, budget)
    first = int(seeding.norms.argmax())
    seeding.take(first, seeding.norms[first])
    while len(seeding.chosen) < budget:
        seeding.renew()
        if not seeding.cumulated[-1] > 0:
            left = np.setdiff1d(np.arange(len(embeddings)), seeding.chosen)
            for row in rng.choice(left, budget - len(seeding.chosen), replace=False).tolist():
                seeding.take(row, 0.0)
            break
        seeding.draw(rng)
    return np.array(seeding.chosen, np.int64), np.sqrt(np.array(seeding.squared))


class _Seeding:
    """The state of a seeding.

    `bound[i]` is a tight upper bound of the squared distance of row i to the first `seen` chosen
    rows, and exactly 0 where that distance is 0.
    """

    def __init__(self, embeddings: Matrix, residuals: Matrix, budget: int) -> None:
        self.embeddings, self.residuals = embeddings, residuals
        self.budget = budget
        self.norms = squared_norms(embeddings) * squared_norms(residuals)
        self.bound = np.full(len(embeddings), np.inf)
        self.cumulated = np.empty(0)
        self.chosen: list[int] = []
        self.squared: list[float] = []
        self.seen = 0
        self.num_terms = embeddings.shape[1] + residuals.shape[1]

    def take(self, row: int, squared_distance: float) -> None:
        """Choose a row."""
        self.chosen.append(row)
        self.squared.append(squared_distance)

    def renew(self) -> None:
        """Bring the bounds of all rows up to date."""
        new = np.array(self.chosen[self.seen :])
        for part in blocks(len(new), CENTERS):
            self._lower(new[part])
        self.bound[new] = 0
        self.seen = len(self.chosen)
        self.cumulated = np.cumsum(self.bound)

    def _lower(self, new: NDArray[np.int64]) -> None:
        """Lower all bounds by the distances to new rows, in float32 where that is accurate."""
        inexact = rounding(self.num_terms)
        embedded = tensor(self.embeddings[new]).T.contiguous()
        residual = tensor(self.residuals[new]).T.contiguous() * -2
        # An error of 2 |x| |y| is at most one of |x|^2 + |y|^2.
        constants = torch.from_numpy(self.norms[new] * (1 + 2 * inexact)).float()
        for block in blocks(len(self.bound)):
            products = tensor(self.embeddings[block]) @ embedded
            products.mul_(tensor(self.residuals[block]) @ residual).add_(constants)
            norms = self.norms[block]
            near = products.amin(1).double().numpy() + norms * (1 + inexact)
            told = (near >= np.maximum(CLOSE * inexact * norms, UNDERFLOW)) & (near < np.inf)
            close = np.flatnonzero(~told & (self.bound[block] > 0))
            if close.size:
                near[close] = self._distances(close + block.start, new).min(1)
            self.bound[block] = np.minimum(self.bound[block], near)

    def draw(self, rng: np.random.Generator) -> None:
        """Draw until the budget is met or a pass costs less than the proposals that it saves."""
        while len(self.chosen) < self.budget:
            before = len(self.chosen)
            self._propose(rng.random((2, PROPOSED)))
            accepted = len(self.chosen) - before
            left = self.budget - len(self.chosen)
            new = len(self.chosen) - self.seen
            saved = left * (PROPOSED - accepted)  # per accepted proposal
            if new and saved * PASS > accepted * new * len(self.bound):
                return

    def _propose(self, draws: NDArray[np.float64]) -> None:
        """Propose rows and accept them one after the other; `draws` (2, b) decides both."""
        rows = np.searchsorted(self.cumulated, draws[0] * self.cumulated[-1], "right")
        rows = np.minimum(rows, len(self.bound) - 1)
        marks = draws[1] * self.bound[rows]
        current = self.bound[rows]
        for part in blocks(len(self.chosen), CENTERS):
            nearest = self._distances(rows, np.array(self.chosen[part])).min(1)
            current = np.minimum(current, nearest)
        among = self._distances(rows, rows)
        place = -1
        while len(self.chosen) < self.budget:
            # Distances only decrease, so a row that is refused now stays refused.
            accepted = np.flatnonzero(marks[place + 1 :] < current[place + 1 :])
            if not accepted.size:
                return
            place += 1 + int(accepted[0])
            self.take(int(rows[place]), float(current[place]))
            current = np.minimum(current, among[place])

    def _distances(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> ScoreArray:
        """Return the squared distances of rows to others, (n, m), in float64."""
        x, y = (torch.from_numpy(self.embeddings[i]).double() for i in (rows, others))
        a, b = (torch.from_numpy(self.residuals[i]).double() for i in (rows, others))
        sums = torch.from_numpy(self.norms[rows][:, None] + self.norms[others])
        squared = (x @ y.T).mul_(a @ b.T).mul_(-2).add_(sums)
        squared[squared <= rounding(self.num_terms, torch.float64) * sums] = 0
        return squared.numpy()
