"""The ports between the loop, the strategies and whatever trains a model.

al_core knows samples by position and models by these protocols; `experiments` implements them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from al_core.pool import IndexArray, Pool

ScoreArray = NDArray[np.float64]
"""One acquisition score per sample; the larger is wanted first."""


@dataclass(frozen=True)
class Prediction:
    """Predictions of a model for one batch of samples, for any task.

    Attributes:
        log_probs: (b, k, *positions) log-probabilities over k classes; positions are () for
            images, (priors,) for boxes, (h, w) for pixels.
        embedding: (b, d) pooled features, or None.
        predicted_loss: (b,) output of the loss-prediction module, or None without one.
        log_prob_samples: (b, m, k, *positions) posterior samples (Monte-Carlo dropout, an
            ensemble), or None.
        pretrained_embedding: (b, d) features by a network that was trained on other data, or None.
        alternatives: (b, a, *positions) log-probabilities of the answers that there are to choose
            from, where several of the k classes are the same answer: places beside each other in a
            heatmap, of which a peak is one answer. None where every class is an answer of its own.
    """

    log_probs: Tensor
    embedding: Tensor | None = None
    predicted_loss: Tensor | None = None
    log_prob_samples: Tensor | None = None
    pretrained_embedding: Tensor | None = None
    alternatives: Tensor | None = None


class Requirement(StrEnum):
    """A part of a `Prediction` beyond `log_probs` that a strategy cannot do without.

    A strategy or an acquisition function declares its requirements in an attribute `requires`, and
    `al_core.requirements_of` reads it, so that a run that cannot meet them is refused before it
    trains. Embeddings and predicted losses exist for whole images only: a strategy that requires
    either cannot rank regions of images.
    """

    EMBEDDING = "embedding"
    PRETRAINED_EMBEDDING = "pretrained_embedding"
    PREDICTED_LOSS = "predicted_loss"
    LOG_PROB_SAMPLES = "log_prob_samples"
    """At least one posterior pass."""
    SEVERAL_PASSES = "several_passes"
    """At least two posterior passes; declared beside LOG_PROB_SAMPLES."""


AcquisitionFunction = Callable[[Prediction], Tensor]
"""Scores (b,) of a batch; the larger is queried first, always."""


class Learner(Protocol):
    """A model that can be trained from labels, tested, and asked about unlabeled samples."""

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Train on these samples; `seed` alone decides weights, order and augmentation."""
        ...

    def evaluate(self) -> Mapping[str, float]:
        """Measure the model of the last `fit` on the test set, last epoch."""
        ...

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the rows of `extract`, one per index, in the order of `indices`, on the CPU.

        `extract` runs batch by batch, so that a pool's predictions never exist at once. The result
        is the same on every process.
        """
        ...


@dataclass(frozen=True)
class Ranking:
    """Every candidate that was scored, most wanted first.

    Attributes:
        indices: (n,) positions.
        scores: (n,) float64, non-increasing.
    """

    indices: IndexArray
    scores: ScoreArray


@dataclass(frozen=True)
class Query:
    """The samples to label next, most wanted first.

    Attributes:
        indices: (budget,) positions.
        scores: (budget,) float64 acquisition scores of `indices`, or None for a strategy that does
            not score.
        ranking: All scored candidates, or None.
    """

    indices: IndexArray
    scores: ScoreArray | None = None
    ranking: Ranking | None = None


class QueryStrategy(Protocol):
    """Decides which candidates to label next. It pulls what it needs through `learner.infer`.

    A strategy that uses more of a prediction than `log_probs` declares it in an attribute
    `requires`, a frozenset of `Requirement`; one that wraps other strategies declares theirs too.
    """

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Return `budget` of the `candidates`.

        Args:
            pool: Which samples are labeled; a strategy must not change it.
            candidates: (n,) different positions to choose from.
            learner: Trained on the labeled samples; strategies call only its `infer`.
            budget: Number of candidates to return, 0 <= budget <= n.
            rng: Source of every random draw.

        Raises:
            InvalidSetting: The budget cannot be met, or predictions lack a required part.
            NonFiniteValue: A prediction is not finite; the text names the sample.
        """
        ...


class Oracle(Protocol):
    """The only holder of labels."""

    def annotate(self, indices: IndexArray) -> bool:
        """Ask for the labels of these samples.

        Returns:
            True where the labels can be read now; False where people answer later.
        """
        ...
