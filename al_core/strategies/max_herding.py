"""MaxHerding and uncertainty herding: samples similar to many that resemble no labeled sample.

Source: Bae, Noh & Sutherland, *Generalized Coverage for More Robust Low-Budget Active Learning*,
ECCV 2024 (arXiv 2407.12212), algorithm 1; weighted by uncertainty, Bae, Oliveira & Sutherland,
*Uncertainty Herding: One Active Learning Method for All Label Budgets*, ICLR 2025 (arXiv
2412.20644). Lazy evaluation of a submodular gain is Minoux 1978.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import (
    AcquisitionFunction,
    Learner,
    Prediction,
    Query,
    Requirement,
    ScoreArray,
)
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.blocks import blocks, squared_distances, tensor
from al_core.strategies.coverage import Coverage
from al_core.strategies.rows import (
    EmbeddingChoice,
    Matrix,
    infer_rows,
    required_embedding,
    shuffled_candidates,
    unit_embedding,
)
from al_core.strategies.scoring import check_scores

SMALLEST_SIGMA = 0.01
"""Its square is a thousand times the resolution of float32 in squared distances of unit vectors."""


class MaxHerding:
    """Greedy maximization of a generalized coverage of the candidates.

    The coverage of a candidate x is its similarity exp(-|x - s|^2 / sigma^2) to the most similar
    labeled or chosen sample s, on embeddings of length 1. The strategy maximizes the mean coverage,
    weighted by an acquisition score where one is given (uncertainty herding).

    Differs: uncertainty herding calibrates the model on labeled samples before it takes
    uncertainties; a strategy sees no labels, so scores are those of the model as it is.

    Args:
        acquisition: Weights of the candidates, at least 0; None for equal weights.
        sigma: Width of the kernel, at least 0.01; None to take the smallest distance between two
            different labeled samples (the radius of uncertainty herding), 1 while there is none.
        embedding: "model" for the model's own embeddings, "pretrained" for those of a network that
            was trained on other data.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: The acquisition is no function, or the width is out of range.
    """

    def __init__(
        self,
        acquisition: AcquisitionFunction | None = None,
        *,
        sigma: float | None = 1.0,
        embedding: EmbeddingChoice = "model",
        embeddings_folder: str | Path | None = None,
    ) -> None:
        if acquisition is not None and not callable(acquisition):
            raise InvalidSetting(f"acquisition must be a function or null, got {acquisition!r}")
        if sigma is not None:
            _check_sigma(sigma)
        self.acquisition, self.sigma = acquisition, sigma
        self._required = required_embedding(embedding)
        self._embedded = partial(unit_embedding, choice=embedding)
        self.folder = embeddings_folder

    @property
    def requires(self) -> frozenset[Requirement]:
        """Embeddings, and the requirements of the acquisition function."""
        return requirements_of(self.acquisition) | {self._required}

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose by embeddings; scores are the increases of the mean coverage.

        Raises:
            InvalidSetting: An acquisition score is negative.
        """
        rows = infer_rows(learner, candidates, self._extract, folder=self.folder)
        weights, offered = rows[:, 0], rows[:, 1:]
        if (weights < 0).any():
            raise InvalidSetting(
                f"uncertainty herding needs scores of at least 0, sample "
                f"{candidates[weights < 0][0]} has {weights.min():g}"
            )
        labeled = np.empty((0, offered.shape[1]), np.float32)
        if pool.labeled.size:
            labeled = infer_rows(learner, pool.labeled, self._embedded, folder=self.folder)
        sigma = smallest_distance(labeled) if self.sigma is None else self.sigma
        chosen, gains = max_herding(offered, budget, weights=weights, sigma=sigma, labeled=labeled)
        return Query(candidates[chosen], gains)

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + d): the weight and the embedding."""
        embedded = self._embedded(prediction)
        weights = embedded.new_ones(len(embedded))
        if self.acquisition is not None:
            weights = check_scores(self.acquisition(prediction), len(embedded)).float()
        return torch.cat([weights[:, None], embedded], 1)


def smallest_distance(embeddings: Matrix) -> float:
    """Return the smallest distance between two different rows, at least 0.01; 1 without two.

    Args:
        embeddings: (l, d), rows of length 1. Rows closer than 1e-6 count as equal.
    """
    smallest = torch.inf
    for block in blocks(len(embeddings), 1024):
        rows = tensor(embeddings[block]).double()
        for others in blocks(block.stop, 1024):
            squared = squared_distances(rows, tensor(embeddings[others]).double())
            squared[squared <= 1e-12] = torch.inf
            smallest = min(smallest, float(squared.amin()))
    return 1.0 if smallest == torch.inf else max(smallest**0.5, SMALLEST_SIGMA)


def max_herding(
    embeddings: Matrix,
    budget: int,
    *,
    weights: NDArray[np.float32] | None = None,
    sigma: float = 1.0,
    labeled: Matrix | None = None,
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Repeatedly choose the row that increases the weighted mean coverage of all rows the most.

    The greedy choice is exact up to the rounding of float32. With labels the time is that of one
    pass over half of the n x n kernel matrix, and of a few such passes with few labels or none. The
    matrix is never held as a whole.

    Args:
        embeddings: (n, d), rows of length 1; `blocks.normalized` scales them.
        budget: 0..n.
        weights: (n,) at least 0; None for ones.
        sigma: Width of the kernel exp(-|x - y|^2 / sigma^2), at least 0.01.
        labeled: (l, d) embeddings of length 1 that cover rows from the beginning.

    Returns:
        (budget,) different rows, the first among equals, and the increase of the mean by each.

    Raises:
        InvalidSetting: The width is out of range.
    """
    _check_sigma(sigma)
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    coverage = Coverage(embeddings, weights, sigma)
    if labeled is not None:
        coverage.cover_by(labeled)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < budget:
        row, gain = coverage.best()
        chosen.append(row)
        gains.append(gain)
        if len(chosen) < budget:
            coverage.take(row)
    return np.array(chosen, np.int64), np.array(gains)


def _check_sigma(sigma: float) -> None:
    if isinstance(sigma, bool) or not SMALLEST_SIGMA <= sigma < np.inf:
        raise InvalidSetting(f"sigma must be a number of at least {SMALLEST_SIGMA}, got {sigma!r}")
