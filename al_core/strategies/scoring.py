"""Query strategies by one score per candidate, and the wrapper that samples candidates.

Sources: `Random` is the baseline of every paper; `TopK` is Settles 2009, section 2.1; `Subsampled`
is the random candidate subset of Beluch et al., CVPR 2018, and of Yoo & Kweon, CVPR 2019, section
4.1, without which top-k picks near-duplicates.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from al_core.contracts import (
    AcquisitionFunction,
    Learner,
    Query,
    QueryStrategy,
    Ranking,
    Requirement,
    ScoreArray,
)
from al_core.errors import InvalidSetting, NonFiniteValue, require_positive
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of


def check_budget(budget: int, candidates: IndexArray) -> None:
    """Raise InvalidSetting unless 0 <= budget <= len(candidates)."""
    if not 0 <= budget <= candidates.size:
        raise InvalidSetting(
            f"a query of {budget} samples cannot be met by {candidates.size} candidates"
        )


def rank(candidates: IndexArray, scores: ScoreArray, rng: np.random.Generator) -> Ranking:
    """Order candidates by decreasing score; equal scores are ordered at random.

    Candidates are sorted by position, shuffled, and then sorted by score. The result therefore
    depends neither on the order in which candidates are given, nor on that of the data set, which
    is often sorted by class.
    """
    shuffled = rng.permutation(np.argsort(candidates))
    order = shuffled[np.argsort(-scores[shuffled], kind="stable")]
    return Ranking(candidates[order], scores[order])


def scored(
    learner: Learner, candidates: IndexArray, acquisition: AcquisitionFunction
) -> ScoreArray:
    """Return the acquisition score of each candidate, (n,) float64.

    Raises:
        InvalidSetting: The function does not return one score per sample.
        NonFiniteValue: A score is NaN or infinite; the text names the first such position.
    """
    scores = np.empty(0)
    if candidates.size:  # learners need not support empty inference
        rows = learner.infer(candidates, acquisition)
        scores = check_scores(rows, candidates.size).double().numpy()
    finite = np.isfinite(scores)
    if not finite.all():
        at = int(candidates[~finite].min())
        raise NonFiniteValue(f"the acquisition score of sample {at} is not finite")
    return scores


def check_scores(scores: Tensor, num_samples: int) -> Tensor:
    """Return the scores; raise InvalidSetting unless there is one per sample."""
    if scores.shape != (num_samples,):
        raise InvalidSetting(
            f"an acquisition function must return one score a sample, "
            f"got shape {tuple(scores.shape)} for {num_samples} samples"
        )
    return scores


class Random:
    """Uniform sampling without replacement and without inference."""

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Return `budget` candidates, drawn uniformly."""
        check_budget(budget, candidates)
        return Query(rng.choice(np.sort(candidates), budget, replace=False))


class TopK:
    """The candidates of largest acquisition score.

    Args:
        acquisition: Score of the candidates; see `al_core.acquisition`.
    """

    def __init__(self, acquisition: AcquisitionFunction) -> None:
        if not callable(acquisition):
            raise InvalidSetting(f"acquisition must be a function, got {acquisition!r}")
        self.acquisition = acquisition

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
        """Score all candidates and return the first `budget` of their ranking."""
        check_budget(budget, candidates)
        ranking = rank(candidates, scored(learner, candidates, self.acquisition), rng)
        return Query(ranking.indices[:budget], ranking.scores[:budget], ranking)


class Subsampled:
    """Wrapper that shows a strategy only a random subset of the candidates.

    Args:
        strategy: The strategy that selects.
        size: Maximum number of candidates that it is shown, or of groups of candidates.
        groups: (num_samples,) the group of each sample; whole groups are drawn then.

    Raises:
        InvalidSetting: `size` is not a positive whole number.
    """

    def __init__(
        self, strategy: QueryStrategy, size: int, *, groups: IndexArray | None = None
    ) -> None:
        require_positive("the number of candidates", size)
        self.strategy = strategy
        self.size = size
        self.groups = groups

    @property
    def requires(self) -> frozenset[Requirement]:
        """Requirements of the inner strategy."""
        return requirements_of(self.strategy)

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Draw the subset, ascending, and let the inner strategy select from it.

        Raises:
            InvalidSetting: The subset is smaller than the budget.
        """
        candidates = np.sort(candidates)
        of = candidates if self.groups is None else self.groups[candidates]
        offered = np.unique(of)
        if offered.size > self.size:
            shown = rng.choice(offered, self.size, replace=False)
            candidates = candidates[np.isin(of, shown)]
        return self.strategy.select(pool, candidates, learner, budget, rng)
