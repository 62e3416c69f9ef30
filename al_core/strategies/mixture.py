"""Mixture of several strategies that share one budget."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from al_core.contracts import Learner, Query, QueryStrategy, Requirement
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.scoring import check_budget


class Mixture:
    """Each strategy in turn selects its share of the budget from the remaining candidates.

    The query is ordered so that every prefix has nearly the same shares: a team that stops
    annotating early still has the intended mixture.

    Args:
        strategies: The strategies.
        shares: Share of the budget for each strategy, above 0 and summing to 1. Counts are rounded
            by largest remainders.

    Raises:
        InvalidSetting: The number of shares is not that of strategies, or shares are out of range.
    """

    def __init__(self, strategies: Sequence[QueryStrategy], shares: Sequence[float]) -> None:
        if not strategies or len(strategies) != len(shares):
            raise InvalidSetting(
                f"a mixture needs a share for each strategy, got {len(shares)} shares for "
                f"{len(strategies)} strategies"
            )
        if not all(share > 0 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise InvalidSetting(f"shares must be above 0 and of sum 1, got {list(shares)}")
        self.strategies, self.shares = list(strategies), np.array(shares, np.float64)

    @property
    def requires(self) -> frozenset[Requirement]:
        """Union of the requirements of all strategies."""
        return frozenset().union(*(requirements_of(each) for each in self.strategies))

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Merge the queries of all strategies; there are no scores, as they do not compare."""
        check_budget(budget, candidates)
        exact = self.shares * budget
        parts = np.floor(exact + 1e-9).astype(np.int64)
        parts[np.argsort(parts - exact, kind="stable")[: budget - parts.sum()]] += 1
        chosen: list[IndexArray] = []
        place: list[np.ndarray] = []
        for strategy, part, own in zip(
            self.strategies, parts.tolist(), rng.spawn(len(self.strategies)), strict=True
        ):
            if not part:
                continue
            query = strategy.select(pool, candidates, learner, part, own)
            candidates = np.setdiff1d(candidates, query.indices, assume_unique=True)
            chosen.append(query.indices)
            place.append((np.arange(part) + 0.5) / part)
        if not chosen:
            return Query(np.empty(0, np.int64))
        return Query(np.concatenate(chosen)[np.argsort(np.concatenate(place), kind="stable")])
