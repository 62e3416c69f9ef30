"""Queries for samples with different labeling costs, whose budget is an amount to spend.

Source: Settles 2009, section 6.2 (variable labeling costs), in its simplest form: the strategy
ranks the samples as if costs were equal, and the query ends when the budget is spent.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from al_core.contracts import Learner, Query, QueryStrategy, Requirement
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of

CostArray = NDArray[np.int64]
"""Labeling cost of each sample: positive integers in the unit of the budget."""


class Affordable:
    """Limit the query of another strategy to samples whose total cost is within the budget.

    The inner strategy selects as many samples as the budget could buy if they were the cheapest.
    The first of these, in the order of the query, are taken as long as the sum of their costs stays
    within the budget. At least one sample is taken, even if it costs more.

    Args:
        strategy: The strategy that selects.
        costs: (num_samples,) positive labeling costs.

    Raises:
        InvalidSetting: A cost is not positive.
    """

    def __init__(self, strategy: QueryStrategy, costs: CostArray) -> None:
        if costs.size and costs.min() < 1:
            raise InvalidSetting(
                f"costs must be positive, sample {costs.argmin()} has {min(costs)}"
            )
        self.strategy = strategy
        self.costs = costs

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
        """Return candidates whose costs sum to at most `budget`, or the first one alone."""
        cheapest = np.cumsum(np.sort(self.costs[candidates]))
        most = max(int(np.searchsorted(cheapest, budget, side="right")), min(1, candidates.size))
        query = self.strategy.select(pool, candidates, learner, most, rng)
        paid = np.searchsorted(np.cumsum(self.costs[query.indices]), budget, side="right")
        taken = max(int(paid), min(1, query.indices.size))
        scores = None if query.scores is None else query.scores[:taken]
        return replace(query, indices=query.indices[:taken], scores=scores)
