"""Stochastic batches: perturbed scores, so that a batch is not full of near-duplicates.

Source: Kirsch, Farquhar, Atighehchian, Jesson, Branchaud-Charron & Gal, *Stochastic Batch
Acquisition: A Simple Baseline for Deep Active Learning*, TMLR 2023 (arXiv 2106.12059), section 3.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from al_core.contracts import AcquisitionFunction, Learner, Query, Requirement, ScoreArray
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.scoring import check_budget, rank, scored

Perturbation = Literal["power", "softmax", "softrank"]


class StochasticBatch:
    """Sampling without replacement with probabilities that grow with the score s.

    Proportional to s^beta ("power"), to exp(beta s) ("softmax"), or to r^-beta for the sample of
    rank r ("softrank"). The batch is drawn at once: the largest logarithms plus Gumbel noise.

    Args:
        acquisition: Score of the candidates; at least 0 with "power".
        perturbation: "power", "softmax" or "softrank".
        beta: Inverse temperature; 0 is random sampling, infinity would be top-k.

    Raises:
        InvalidSetting: An unknown perturbation or a negative beta.
    """

    def __init__(
        self,
        acquisition: AcquisitionFunction,
        *,
        perturbation: Perturbation = "power",
        beta: float = 1.0,
    ) -> None:
        if not callable(acquisition):
            raise InvalidSetting(f"acquisition must be a function, got {acquisition!r}")
        if perturbation not in ("power", "softmax", "softrank"):
            raise InvalidSetting(
                f"perturbation must be power, softmax or softrank, got {perturbation!r}"
            )
        if isinstance(beta, bool) or not 0 <= beta < np.inf:
            raise InvalidSetting(f"beta must be a number of at least 0, got {beta!r}")
        self.acquisition, self.perturbation, self.beta = acquisition, perturbation, float(beta)

    @property
    def requires(self) -> frozenset[Requirement]:
        """Requirements of the acquisition function."""
        return requirements_of(self.acquisition)

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Score all candidates and draw; scores are the perturbed ones.

        Raises:
            InvalidSetting: A score is below 0 with "power".
        """
        check_budget(budget, candidates)
        candidates = np.sort(candidates)
        scores = scored(learner, candidates, self.acquisition)
        noise = rng.gumbel(size=scores.size)
        ranking = rank(candidates, self.beta * self._logarithm(scores, candidates) + noise, rng)
        return Query(ranking.indices[:budget], ranking.scores[:budget], ranking)

    def _logarithm(self, scores: ScoreArray, candidates: IndexArray) -> ScoreArray:
        if self.perturbation == "softmax":
            return scores
        if self.perturbation == "power":
            if (scores < 0).any():
                raise InvalidSetting(
                    f"perturbation=power needs scores of at least 0, sample "
                    f"{candidates[scores < 0][0]} has {scores.min():g}: take softmax or softrank"
                )
            # A score of zero comes after all others, whatever the noise.
            return np.log(np.maximum(scores, np.finfo(np.float64).tiny))
        # Equal scores share their mean rank.
        _, place, counts = np.unique(-scores, return_inverse=True, return_counts=True)
        ranks = np.cumsum(counts) - (counts - 1) / 2
        return -np.log(ranks[place.ravel()])
