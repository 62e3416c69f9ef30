"""What a query costs in memory, beside the seconds that the loop counts."""

from __future__ import annotations

import numpy as np

from al_core import IndexArray, Learner, Pool, Query, QueryStrategy
from experiments.engine.engine import Engine
from experiments.engine.memory import give_back_freed_memory, host_memory_mb


class MeasuredStrategy:
    """A strategy that is watched while it selects.

    Args:
        strategy: Selects.
        engine: Knows the peak of memory of the cycle so far, which is kept.

    Attributes:
        memory_mb: What the latest query took of this process's memory at its peak, scoring
            included, beyond what was held when it began.
        earlier_peak_mb: The peak of the cycle before it.
    """

    def __init__(self, strategy: QueryStrategy, engine: Engine) -> None:
        self._strategy, self._engine = strategy, engine
        self.memory_mb = self.earlier_peak_mb = 0.0

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Let the strategy select, and measure."""
        self.earlier_peak_mb = self._engine.peak_memory_mb()
        give_back_freed_memory()  # or the query would take from there, unseen
        self._engine.reset_peak_memory()
        held = host_memory_mb(peak=False)
        query = self._strategy.select(pool, candidates, learner, budget, rng)
        self.memory_mb = max(0.0, host_memory_mb(peak=True) - held)
        return query
