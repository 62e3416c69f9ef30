"""Two strategies in sequence: one for few labels per class, another for more.

Source: Hacohen, Dekel & Weinshall, *Active Learning on a Budget: Opposite Strategies Suit High and
Low Budgets*, ICML 2022 (arXiv 2202.02794), show that a strategy which serves few labels fails with
many; Doucet, Estermann, Aczel & Wattenhofer, *Bridging Diversity and Uncertainty in Active Learning
with Self-Supervised Pre-Training*, 2024 (arXiv 2403.03728), switch from TypiClust to margin (TCM).
"""

from __future__ import annotations

import numpy as np
import torch

from al_core.contracts import Learner, Query, QueryStrategy, Requirement
from al_core.errors import InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.scoring import check_budget


class TwoPhase:
    """`first` while there are few labels per class, and `then` afterwards.

    The labels at the time of a query decide; its budget does not.

    Differs: TCM switches after a number of cycles that depends on the query size. Labels per class
    have the same meaning for any query size.

    Args:
        first: Strategy below `switch_at_labels_per_class`.
        then: Strategy from there on.
        switch_at_labels_per_class: Number of labels divided by the number of classes, above 0.
        num_classes: Number of classes, background included. None to take the number that the model
            predicts, which costs the inference of one candidate.

    Raises:
        InvalidSetting: A number that is not positive.
    """

    def __init__(
        self,
        first: QueryStrategy,
        then: QueryStrategy,
        *,
        switch_at_labels_per_class: float,
        num_classes: int | None = None,
    ) -> None:
        switch = switch_at_labels_per_class
        if isinstance(switch, bool) or not 0 < switch < np.inf:
            raise InvalidSetting(
                f"switch_at_labels_per_class must be a number above 0, got {switch!r}"
            )
        if num_classes is not None:
            require_positive("num_classes", num_classes)
        self.first, self.then = first, then
        self.switch, self.num_classes = float(switch), num_classes

    @property
    def requires(self) -> frozenset[Requirement]:
        """Union of the requirements of both phases."""
        return requirements_of(self.first) | requirements_of(self.then)

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Select by the strategy of the current phase."""
        check_budget(budget, candidates)
        if not budget:
            return Query(np.empty(0, np.int64))
        num_classes = self.num_classes or _num_classes(learner, candidates)
        early = pool.num_labeled < self.switch * num_classes
        strategy = self.first if early else self.then
        return strategy.select(pool, candidates, learner, budget, rng)


def _num_classes(learner: Learner, candidates: IndexArray) -> int:
    """Return the number of classes of a prediction."""
    counts = learner.infer(
        np.array([candidates.min()]),
        lambda prediction: torch.full((1,), float(prediction.log_probs.shape[1])),
    )
    return int(counts[0])
