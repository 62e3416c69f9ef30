"""Discriminative active learning: samples that differ most clearly from the labeled ones.

Source: Gissin & Shalev-Shwartz, *Discriminative Active Learning*, 2019 (arXiv 1907.06347), section
3 and algorithm 1. A classifier learns to separate labeled from unlabeled embeddings, and the
samples most probably unlabeled are queried, in several sub-queries with a new training before each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.contracts import Learner, Query, Requirement, ScoreArray
from al_core.errors import require_positive
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, tensor
from al_core.strategies.rows import Matrix, embeddings_of, shuffled_candidates, writable_folder

BATCH = 128
"""Rows of each kind per step; batches are balanced, however few labels there are."""
LEARNING_RATE = 1e-3
"""Learning rate of Adam, its default (Kingma & Ba, 2015)."""
SURE = 0.98
"""Accuracy at which training stops, because a classifier that memorized every row ranks nothing."""
MEASURED = 10
"""Steps over which that accuracy is measured."""


class Discriminative:
    """Candidates that a classifier predicts to be unlabeled with the largest probability.

    Args:
        sub_queries: Maximum number of smaller queries into which the budget is divided.
        width: Width of the classifier's two hidden layers.
        max_steps: Maximum number of optimizer steps of one training.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A number that is not positive.
    """

    requires = frozenset({Requirement.EMBEDDING})

    def __init__(
        self,
        *,
        sub_queries: int = 10,
        width: int = 256,
        max_steps: int = 300,
        embeddings_folder: str | Path | None = None,
    ) -> None:
        require_positive("sub_queries", sub_queries)
        require_positive("width", width)
        require_positive("max_steps", max_steps)
        self.sub_queries, self.width, self.max_steps = sub_queries, width, max_steps
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
        """Train and choose, sub-query by sub-query; scores are log-odds of being unlabeled.

        With nothing labeled the first sub-query is random.
        """
        offered, labeled = embeddings_of(learner, candidates, pool.labeled, folder=self.folder)
        left = np.arange(candidates.size)
        chosen = np.empty(0, np.int64)
        scores = np.empty(0)
        for part in np.array_split(np.arange(budget), min(self.sub_queries, budget)):
            if len(labeled) + chosen.size:
                known = np.concatenate([labeled, offered[chosen]])
                odds = self._odds(known, offered, left, rng)
            else:
                odds = np.zeros(left.size)
            order = np.argsort(-odds, kind="stable")[: part.size]
            chosen = np.concatenate([chosen, left[order]])
            scores = np.concatenate([scores, odds[order]])
            left = np.delete(left, order)
        return Query(candidates[chosen], scores)

    def _odds(
        self, known: Matrix, offered: Matrix, left: NDArray[np.int64], rng: np.random.Generator
    ) -> ScoreArray:
        """Train a new classifier; return the log-odds of being unlabeled of the rows `left`."""
        judge = train_discriminator(
            known, offered, left, width=self.width, max_steps=self.max_steps, rng=rng
        )
        odds = np.empty(left.size)
        with torch.inference_mode():
            for block in blocks(left.size):
                odds[block] = judge(torch.from_numpy(offered[left[block]])).double().numpy()
        return odds


class Discriminator(nn.Module):
    """Two hidden layers on standardized embeddings: (b, d) to log-odds of being unlabeled (b,)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, *, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.layers = nn.Sequential(
            nn.Linear(mean.numel(), width), nn.ReLU(),
            nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the log-odds."""
        odds: Tensor = self.layers((embeddings - self.mean) / self.scale)
        return odds.squeeze(1)


def train_discriminator(
    labeled: Matrix,
    offered: Matrix,
    left: NDArray[np.int64],
    *,
    width: int,
    max_steps: int,
    rng: np.random.Generator,
) -> Discriminator:
    """Train a classifier of labeled (0) and unlabeled (1) embeddings.

    Args:
        labeled: (l, d), at least one row.
        offered: (n, d).
        left: Rows of `offered` that are unlabeled, at least one.
        width: Width of the hidden layers.
        max_steps: Maximum number of steps; training stops early at an accuracy of `SURE`.
        rng: Decides weights and batches.
    """
    mean, scale = _moments(offered, left)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        judge = Discriminator(mean, scale, width=width)
    optimizer = torch.optim.Adam(judge.parameters(), lr=LEARNING_RATE)
    right: list[float] = []
    unlabeled, known = _drawn(left.size, rng), _drawn(len(labeled), rng)
    truth = torch.cat([torch.zeros(BATCH), torch.ones(BATCH)])
    for _ in range(max_steps):
        rows = np.concatenate([labeled[next(known)], offered[left[next(unlabeled)]]])
        odds = judge(torch.from_numpy(rows))
        loss = F.binary_cross_entropy_with_logits(odds, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        right.append(float(((odds > 0) == (truth > 0)).float().mean()))
        if len(right) >= MEASURED and np.mean(right[-MEASURED:]) >= SURE:
            break
    return judge.eval()


def _drawn(count: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield batches of `BATCH` numbers of 0..count - 1, in one random permutation after another."""
    waiting = np.empty(0, np.int64)
    while True:
        while waiting.size < BATCH:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:BATCH]
        waiting = waiting[BATCH:]


def _moments(offered: Matrix, left: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each column, (d,) float32; constant columns have deviation 1."""
    total = torch.zeros(offered.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for block in blocks(left.size):
        rows = tensor(offered[left[block]]).double()
        total += rows.sum(0)
        squares += rows.square().sum(0)
    mean = total / left.size
    scale = (squares / left.size - mean.square()).clamp(min=0).sqrt()
    constant = scale <= 1e-6 * mean.abs().clamp(min=1e-6)
    return mean.float(), torch.where(constant, 1.0, scale).float()
