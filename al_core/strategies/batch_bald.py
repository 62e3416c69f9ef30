"""BatchBALD: the batch whose labels together carry most information about the weights.

Source: Kirsch, van Amersfoort & Gal, *BatchBALD: Efficient and Diverse Batch Acquisition for Deep
Bayesian Active Learning*, NeurIPS 2019 (arXiv 1906.08158), section 3 and algorithm 1.

The gain of a further sample i is the mutual information I(y_i; w | y_1 .. y_b), by the chain rule.
The m posterior samples stand for the weights, so a configuration of labels y_1 .. y_b is known by
its probability and by a distribution over the m, its posterior. Kept in this form nothing
underflows, however long the batch is. The gain is the mean over configurations of the mutual
information under each posterior: where configurations are drawn it is never below zero nor above
the entropy that is left, unlike the difference of two entropies of which one is estimated.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query, Requirement, ScoreArray
from al_core.errors import require_positive
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks
from al_core.strategies.image_level import sampled_distributions
from al_core.strategies.rows import infer_rows, shuffled_candidates

EVALUATED = 256
"""Rows whose gains are computed at once."""
NOTHING_LEFT = 1e-3
"""Entropy of the posterior over the m samples, in nats, below which labels are worth nothing."""


class BatchBald:
    """Greedy maximization of the joint mutual information of labels and weights.

    With m posterior samples a batch can carry at most log m nats. Once these are exhausted, the
    rest of the batch is chosen by BALD alone. With positions (boxes, pixels), the label of an image
    is treated as drawn from the mean of the distributions at its positions.

    Args:
        num_configurations: Number of configurations of the batch's labels that are enumerated. All
            of them are, while there are no more; beyond that, this many are drawn.
        background: Class of positions that show nothing, which is left out; None for no such class.

    Raises:
        InvalidSetting: A number that is not positive.
    """

    requires = frozenset({Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES})

    def __init__(self, *, num_configurations: int = 500, background: int | None = None) -> None:
        require_positive("num_configurations", num_configurations)
        self.num_configurations, self.background = num_configurations, background

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose greedily; scores are the gains in nats, and BALD for the rest of the batch."""
        rows = infer_rows(learner, candidates, self._extract)
        num_samples = int(rows[0, 0])
        probabilities = rows[:, 1:].reshape(candidates.size, num_samples, -1)
        chosen, gains = batch_bald(
            probabilities, budget, num_configurations=self.num_configurations, rng=rng
        )
        return Query(candidates[chosen], gains)

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + m * k): the number of posterior samples and their distributions."""
        sampled = sampled_distributions(prediction, self.background)
        count = sampled.new_full((sampled.shape[0], 1), sampled.shape[1])
        return torch.cat([count, sampled.flatten(1)], 1).float()


def batch_bald(
    probabilities: NDArray[np.float32],
    budget: int,
    *,
    num_configurations: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Choose rows of posterior samples.

    The choice is exact while all configurations are enumerated. A gain never grows as the batch
    does (it is submodular), so it is computed again only for rows whose last gain may be largest.

    Args:
        probabilities: (n, m, k), each a distribution over k classes.
        budget: 0..n.
        num_configurations: Configurations of labels, at most.
        rng: Draws configurations once there are more.

    Returns:
        (budget,) different rows in order of choice, and the gain of each in nats.
    """
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    joint = _Joint(probabilities.shape[1])
    alone = np.concatenate(
        [joint.gains(probabilities[block]) for block in blocks(len(probabilities), EVALUATED)]
    )
    bound = alone.copy()
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < budget and joint.doubt() > NOTHING_LEFT:
        row = _best(probabilities, bound, joint)
        chosen.append(row)
        gains.append(float(bound[row]))
        bound[row] = -np.inf
        joint.extend(probabilities[row], num_configurations, rng)
    rest = np.setdiff1d(np.arange(len(alone)), chosen)
    rest = rest[np.argsort(-alone[rest], kind="stable")][: budget - len(chosen)]
    order = np.concatenate([np.array(chosen, np.int64), rest])
    return order, np.maximum(np.concatenate([np.array(gains), alone[rest]]), 0.0)


def _best(probabilities: NDArray[np.float32], bound: ScoreArray, joint: _Joint) -> int:
    """Return the row of largest gain, the first among equals; bring `bound` up to date."""
    order = np.argsort(-bound, kind="stable")
    best = -np.inf
    for block in blocks(len(order), EVALUATED):
        rows = order[block]
        if bound[rows[0]] <= best:
            break
        open_ = rows[np.isfinite(bound[rows])]
        bound[open_] = joint.gains(probabilities[open_])
        best = max(best, bound[open_].max(initial=-np.inf))
    return int(bound.argmax())


class _Joint:
    """Configurations of the labels chosen so far.

    `weights` (s,) are their probabilities, and `posterior` (s, m) is the distribution over the
    posterior samples given each of them.
    """

    def __init__(self, num_samples: int) -> None:
        self.weights = torch.ones(1, dtype=torch.float64)
        self.posterior = torch.full((1, num_samples), 1 / num_samples, dtype=torch.float64)

    def doubt(self) -> float:
        """Return the mean entropy of the posterior in nats, a bound of any further gain."""
        return float(self.weights @ torch.special.entr(self.posterior).sum(1))

    def gains(self, probabilities: NDArray[np.float32]) -> ScoreArray:
        """Return I(y_i; w | y_1 .. y_b) of rows (r, m, k), nats, (r,), to about 1e-6."""
        rows = torch.from_numpy(probabilities)
        r, m, k = rows.shape
        mixed = self.posterior.float() @ rows.permute(1, 0, 2).reshape(m, r * k)
        # Logarithms are all that takes time: in float32, and by the vectorized function.
        entropy = mixed.clamp(min=torch.finfo(torch.float32).tiny).log_().mul_(mixed)
        entropy = self.weights @ entropy.reshape(-1, r, k).sum(2).double().neg_()
        given_weights = torch.special.entr(rows.double()).sum(2) @ (self.weights @ self.posterior)
        return np.asarray((entropy - given_weights).numpy())

    def extend(
        self, probabilities: NDArray[np.float32], limit: int, rng: np.random.Generator
    ) -> None:
        """Add the label of a row (m, k): extend every configuration by each class."""
        row = torch.from_numpy(probabilities).double()
        joint = self.posterior[:, :, None] * row  # (s, m, k)
        joint = joint.transpose(1, 2).reshape(-1, row.shape[0])
        chance = joint.sum(1)
        weights = self.weights.repeat_interleave(row.shape[1]) * chance
        if weights.numel() > limit:
            # Systematic resampling (Kitagawa 1996): copies in proportion to weights, to within 1.
            marks = (np.arange(limit) + rng.random()) / limit * float(weights.sum())
            drawn = np.searchsorted(weights.cumsum(0).numpy(), marks, "right")
            kept = torch.from_numpy(np.minimum(drawn, weights.numel() - 1))
            self.weights = torch.full((limit,), 1 / limit, dtype=torch.float64)
        else:
            kept = torch.nonzero(weights > 0).squeeze(1)
            self.weights = weights[kept] / weights[kept].sum()
        self.posterior = joint[kept] / chance[kept, None]
