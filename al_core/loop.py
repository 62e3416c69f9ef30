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


def draw_initial_set(pool: Pool, oracle: Oracle, *, size: int, seed: int) -> None:
    """Label the initial set: `size` samples drawn uniformly, the same for every strategy.

    Raises:
        InvalidSetting: The pool is smaller than that, or `size` is not positive.
    """
    unlabeled = pool.unlabeled
    if not 1 <= size <= unlabeled.size:
        raise InvalidSetting(
            f"an initial set of {size} cannot be drawn from {unlabeled.size} unlabeled samples"
        )
    indices = stream(seed, 0, "initial set").choice(unlabeled, size, replace=False)
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
        budget = min(query_size, candidates.size)
        query = strategy.select(pool, candidates, timed, budget, stream(seed, cycle, "query"))
        queried = time.perf_counter()
        _check_query(query, candidates, budget)
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


def _check_query(query: Query, candidates: IndexArray, budget: int) -> None:
    """Refuse a strategy's answer that is not `budget` different ones of the candidates."""
    assert query.indices.shape == (budget,), "a query strategy did not meet its budget"
    unique = np.unique(query.indices)
    assert unique.size == query.indices.size, "a query strategy returned a sample twice"
    assert np.isin(unique, candidates).all(), "a query strategy returned no candidate"
