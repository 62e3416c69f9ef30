"""The active-learning loop: fit, evaluate, score, query, label, record, and again.

Source: pool-based active learning (Settles 2009, figure 1) with the protocol of Yoo & Kweon,
CVPR 2019, section 4: every cycle trains from fresh weights, the last epoch counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from al_core.contracts import Learner, Oracle, Prediction, Query, QueryStrategy
from al_core.costs import CostArray
from al_core.errors import AwaitingAnnotation, InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.randomness import stream, stream_seed


@dataclass(frozen=True)
class CycleRecord:
    """What one cycle did.

    Attributes:
        cycle: From 0.
        num_labeled: Labels that the cycle trained on.
        metrics: What `fit` and `evaluate` measured.
        query: What is to be labeled next (of the last cycle: would be).
        seconds: Wall time under the keys fit, evaluate, score (inference on candidates) and query
            (the rest of the selection).
    """

    cycle: int
    num_labeled: int
    metrics: Mapping[str, float]
    query: Query
    seconds: Mapping[str, float]


class _Timed:
    """A learner that counts the seconds spent in `infer`."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self.seconds = 0.0
        self.fit, self.evaluate = learner.fit, learner.evaluate

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        start = time.perf_counter()
        try:
            return self._learner.infer(indices, extract)
        finally:
            self.seconds += time.perf_counter() - start


def draw_initial_set(
    pool: Pool, oracle: Oracle, *, size: int, seed: int, groups: IndexArray | None = None
) -> None:
    """Label the initial set: `size` samples drawn uniformly, the same for every strategy.

    Args:
        pool: Nothing of it labeled yet.
        oracle: Labels.
        size: How many samples, or groups of them.
        seed: Decides the draw.
        groups: (num_samples,) the group that each sample belongs to, where groups are drawn and
            all of their samples labeled: regions of one image, say.

    Raises:
        InvalidSetting: The pool is smaller than that, or `size` is not positive.
    """
    unlabeled = pool.unlabeled
    offered = unlabeled if groups is None else np.unique(groups[unlabeled])
    if not 1 <= size <= offered.size:
        raise InvalidSetting(
            f"an initial set of {size} cannot be drawn from {offered.size} unlabeled samples"
        )
    indices = stream(seed, 0, "initial set").choice(offered, size, replace=False)
    if groups is not None:  # in the order in which the groups were drawn
        indices = np.concatenate([unlabeled[groups[unlabeled] == group] for group in indices])
    oracle.annotate(indices)
    pool.label(indices)


def run_cycles(
    pool: Pool,
    learner: Learner,
    strategy: QueryStrategy,
    oracle: Oracle,
    *,
    cycles: int,
    query_size: int,
    seed: int,
    costs: CostArray | None = None,
) -> Iterator[CycleRecord]:
    """Run the cycles that the pool has not been through yet, yielding a record after each.

    When a record is yielded its query is labeled, except in the last cycle, which only scores. So
    the pool as it stands then, with the record, is all the state there is between two cycles:
    continue by calling again with the pool restored.

    Args:
        pool: With the initial set labeled; changed in place.
        learner: Trains and infers.
        strategy: Selects.
        oracle: Labels.
        cycles: How many cycles the run has in all.
        query_size: Labels a cycle; less only when the pool runs out.
        seed: Decides, with the cycle, every random draw.
        costs: (num_samples,) what it costs to label each sample. `query_size` is then an amount,
            as is the budget that the strategy is given, and a query may stay below it (see
            `al_core.Affordable`). None: each costs 1, and budgets are met exactly.

    Raises:
        InvalidSetting: No initial set, or numbers that are not positive.
        AwaitingAnnotation: People answer later. The cycle's record has been yielded before.
    """
    require_positive("cycles", cycles)
    require_positive("query_size", query_size)
    if not pool.num_labeled:
        raise InvalidSetting("the pool has no labeled samples: draw the initial set first")
    for cycle in range(pool.cycle, cycles):
        labeled = pool.labeled
        start = time.perf_counter()
        fitted = learner.fit(labeled, seed=stream_seed(seed, cycle, "fit"))
        trained = time.perf_counter()
        measured = learner.evaluate()
        evaluated = time.perf_counter()
        timed = _Timed(learner)
        candidates = pool.unlabeled
        left = candidates.size if costs is None else int(costs[candidates].sum())
        budget = min(query_size, left)
        query = strategy.select(pool, candidates, timed, budget, stream(seed, cycle, "query"))
        queried = time.perf_counter()
        _check_query(query, candidates, budget, costs)
        awaiting: AwaitingAnnotation | None = None
        if cycle + 1 < cycles and query.indices.size:
            try:
                oracle.annotate(query.indices)
                pool.label(query.indices)
            except AwaitingAnnotation as later:
                awaiting = later
        yield CycleRecord(
            cycle=cycle,
            num_labeled=labeled.size,
            metrics={**fitted, **measured},
            query=query,
            seconds={
                "fit": trained - start,
                "evaluate": evaluated - trained,
                "score": timed.seconds,
                "query": queried - evaluated - timed.seconds,
            },
        )
        if awaiting is not None:
            raise awaiting
        if cycle + 1 < cycles and not query.indices.size:
            return  # the pool is used up: there is nothing left to learn from


def _check_query(
    query: Query, candidates: IndexArray, budget: int, costs: CostArray | None
) -> None:
    """Refuse a strategy's answer that is not worth `budget`, or not of different candidates."""
    if costs is None:
        assert query.indices.shape == (budget,), "a query strategy did not meet its budget"
    elif query.indices.size > 1:  # one alone may cost more than there is
        assert costs[query.indices].sum() <= budget, "a query strategy exceeded its budget"
    unique = np.unique(query.indices)
    assert unique.size == query.indices.size, "a query strategy returned a sample twice"
    assert np.isin(unique, candidates).all(), "a query strategy returned no candidate"
