"""BADGE: samples whose gradients would be large and point in different directions.

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

from al_core.contracts import Learner, Prediction, Query, ScoreArray
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, squared_norms, tensor
from al_core.strategies.rows import Matrix, embedding, infer_rows, shuffled_candidates

PICKS = 64
"""Picks at most between two passes over the rows."""
ACCEPTED = 0.5
"""A pass is made early where fewer of the proposals are accepted."""


class Badge:
    """k-means++ seeding on the gradients of the last layer, by the label predicted.

    The gradient of the cross-entropy with the predicted label is the outer product of p - e, the
    probabilities less the indicator of the most probable class, and the embedding. With positions
    (boxes, pixels) the first factor is, class by class, the root of the mean square of p - e over
    the positions: its norm is that of an average position, its direction says which classes are in
    doubt, and positions of opposite signs do not cancel.

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
        """Choose by gradients; scores are distances to the nearest chosen one when chosen."""
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
    probability proportional to its squared distance to the nearest chosen one. The gradients, k x d
    numbers each, are never made: their products are the factors' products multiplied.

    Exact: distances only decrease, so rows are proposed by the distances of the latest pass, and
    accepted with the probability by which theirs has decreased since. What is drawn has the very
    distribution of the plain seeding, at one pass over memory for many picks.

    Args:
        embeddings: (n, d).
        residuals: (n, k), p - e.
        budget: 0..n.
        rng: Draws.

    Returns:
        (budget,) different rows, first chosen first, and their distances to the nearest row chosen
        before (of the first its length). Once all distances are 0, rows are drawn uniformly.
    """
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    seeding = _Seeding(embeddings, residuals)
    first = int(seeding.norms.argmax())
    seeding.take(first, seeding.norms[first])
    while len(seeding.chosen) < budget:
        seeding.renew()
        if not seeding.cumulated[-1] > 0:
            left = np.setdiff1d(np.arange(len(embeddings)), seeding.chosen)
            for row in rng.choice(left, budget - len(seeding.chosen), replace=False).tolist():
                seeding.take(row, 0.0)
            break
        seeding.draw(min(budget, len(seeding.chosen) + PICKS), rng)
    return np.array(seeding.chosen, np.int64), np.sqrt(np.array(seeding.squared))


class _Seeding:
    """The state of a seeding: `nearest[i]` is the squared distance to the first `seen` chosen."""

    def __init__(self, embeddings: Matrix, residuals: Matrix) -> None:
        self.embeddings, self.residuals = embeddings, residuals
        self.norms = squared_norms(embeddings) * squared_norms(residuals)
        self.nearest = np.full(len(embeddings), np.inf)
        self.cumulated = np.empty(0)
        self.chosen: list[int] = []
        self.squared: list[float] = []
        self.seen = 0

    def take(self, row: int, squared_distance: float) -> None:
        """Choose a row."""
        self.chosen.append(row)
        self.squared.append(squared_distance)

    def renew(self) -> None:
        """Bring the distances of all rows up to date: one pass over memory for all new picks."""
        new = self.chosen[self.seen :]
        embedded = tensor(self.embeddings[new]).T.contiguous()
        residual = tensor(self.residuals[new]).T.contiguous() * -2
        norms = torch.from_numpy(self.norms[new].astype(np.float32))
        for block in blocks(len(self.nearest)):
            products = tensor(self.embeddings[block]) @ embedded
            products.mul_(tensor(self.residuals[block]) @ residual).add_(norms)
            least = products.amin(1).double().numpy() + self.norms[block]
            self.nearest[block] = np.minimum(self.nearest[block], least)
        # What is left of a distance that cancels to nothing in float32 is rounding.
        rounding = 2.0**-20 * (self.norms + self.norms[new].max())
        self.nearest[self.nearest < rounding] = 0
        self.nearest[self.chosen] = 0
        self.seen = len(self.chosen)
        self.cumulated = np.cumsum(self.nearest)

    def draw(self, count: int, rng: np.random.Generator) -> None:
        """Draw until `count` are chosen, or too few proposals are accepted."""
        proposed = accepted = 0
        while len(self.chosen) < count:
            if proposed >= 16 and accepted < ACCEPTED * proposed:
                return
            proposed += 1
            row = int(np.searchsorted(self.cumulated, rng.random() * self.cumulated[-1], "right"))
            row = min(row, len(self.nearest) - 1)
            current = self._distance(row)
            if rng.random() * self.nearest[row] < current:
                self.take(row, current)
                accepted += 1

    def _distance(self, row: int) -> float:
        """Return the squared distance of a row to the nearest chosen one, now, in float64."""
        new = self.chosen[self.seen :]
        nearest = float(self.nearest[row])
        if row in new:
            return 0.0
        if new:
            x, a = self.embeddings[row].astype(np.float64), self.residuals[row].astype(np.float64)
            products = (self.embeddings[new] @ x) * (self.residuals[new] @ a)
            nearest = min(nearest, float((self.norms[row] + self.norms[new] - 2 * products).min()))
        return max(nearest, 0.0)
