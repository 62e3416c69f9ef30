"""The active-learning loop: fit, evaluate, score, query, label, record, and again.

Source: pool-based active learning (Settles 2009, figure 1) with the protocol of Yoo & Kweon,
CVPR 2019, section 4: every cycle trains from fresh weights, the last epoch counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from al_core.contracts import Learner, Oracle, Query, QueryStrategy
from al_core.costs import CostArray
from al_core.errors import InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.randomness import stream, stream_seed


@dataclass(frozen=True)
class CycleRecord:
    """The outcome of one cycle.

    Attributes:
        cycle: The number of the cycle, from 0.
        num_labeled: The number of samples that the cycle trained on.
        metrics: The measurements of `fit` and `evaluate`.
        query: The samples to label next; the last cycle only names them.
        seconds: Wall time under the keys fit, evaluate, score (inference on candidates, where the
            learner reports it) and query (the rest of the selection).
        awaits_labels: People answer this query later, so the run cannot go on yet.
        stopped: A stop rule ended the run with this cycle, before the last one.
    """

    cycle: int
    num_labeled: int
    metrics: Mapping[str, float]
    query: Query
    seconds: Mapping[str, float]
    awaits_labels: bool = False
    stopped: bool = False


class Observer(Protocol):
    """Follows a run: the loop calls it at the start of a cycle and around every phase of it."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of the phases of the current cycle so far, by name."""
        ...

    def start_cycle(self, cycle: int) -> None:
        """Begin cycle number `cycle`, from 0."""
        ...

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Enclose a phase: "fit", "evaluate" or "query"; learners add "score" inside a query."""
        ...


class StopRule(Protocol):
    """Decides after each training whether there are enough labels."""

    def measure(self, cycle: int) -> Mapping[str, float]:
        """Measure what the rule needs of the network of a cycle; the values join its record."""
        ...

    def is_reached(self) -> bool:
        """Return True if the run should end with the cycle that was measured last."""
        ...


class Stopwatch:
    """An observer that measures seconds.

    A phase inside another one counts for itself only: the seconds of "query" are those of the
    selection without the inference that a learner encloses in "score".
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = 0.0

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of the phases of the current cycle so far, by name."""
        return dict(self._seconds)

    def start_cycle(self, cycle: int) -> None:
        """Forget the cycle before."""
        self._seconds = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time until the end of the `with` block to the phase of this name."""
        self._stop()
        self._running.append(name)
        try:
            yield
        finally:
            self._stop()
            self._running.pop()

    def credit(self, name: str, seconds: float) -> None:
        """Add seconds to a phase of the current cycle that were spent elsewhere."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def _stop(self) -> None:
        """Credit the time since the last change to the innermost phase."""
        now = time.perf_counter()
        if self._running:
            name = self._running[-1]
            self._seconds[name] = self._seconds.get(name, 0.0) + now - self._since
        self._since = now


def draw_initial_set(
    pool: Pool,
    oracle: Oracle,
    *,
    size: int,
    seed: int,
    groups: IndexArray | None = None,
    chosen: IndexArray | None = None,
) -> None:
    """Label the initial set: `size` samples drawn uniformly, the same for every strategy.

    Args:
        pool: Nothing of it labeled yet.
        oracle: Labels.
        size: How many samples, or groups of them.
        seed: Decides the draw.
        groups: (num_samples,) the group that each sample belongs to, where groups are drawn and
            all of their samples labeled: regions of one image, say.
        chosen: (size,) samples, or groups of them, to label instead of a draw.

    Raises:
        InvalidSetting: The pool is smaller than that, or `size` is not positive.
    """
    unlabeled = pool.unlabeled
    offered = unlabeled if groups is None else np.unique(groups[unlabeled])
    if not 1 <= size <= offered.size:
        raise InvalidSetting(
            f"an initial set of {size} cannot be drawn from {offered.size} unlabeled samples"
        )
    if chosen is None:
        indices = stream(seed, 0, "initial set").choice(offered, size, replace=False)
    else:
        indices = chosen
    if groups is not None:  # in the order in which the groups were drawn
        indices = np.concatenate([unlabeled[groups[unlabeled] == group] for group in indices])
    answered = oracle.annotate(indices)
    assert answered, "an initial set is drawn where labels are there at once"
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
    observer: Observer | None = None,
    stop_rule: StopRule | None = None,
) -> Iterator[CycleRecord]:
    """Run the cycles that the pool has not been through yet, yielding a record after each.

    When a record is yielded its query is labeled, except in the last cycle, which only scores, and
    where people answer later (`awaits_labels`), after which the loop ends. A cycle at which the
    stop rule ends the run is its last. The pool at that moment
    and the record are the whole state between two cycles: to continue, call again with the pool
    restored.

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
        observer: Follows the run and measures the seconds of each record; None for a `Stopwatch`.
        stop_rule: May end the run early; None for the full number of cycles. Its time counts as
            evaluation.

    Raises:
        InvalidSetting: No initial set, or numbers that are not positive.
    """
    require_positive("cycles", cycles)
    require_positive("query_size", query_size)
    if not pool.num_labeled:
        raise InvalidSetting("the pool has no labeled samples: draw the initial set first")
    observer = Stopwatch() if observer is None else observer
    for cycle in range(pool.cycle, cycles):
        observer.start_cycle(cycle)
        labeled = pool.labeled
        with observer.phase("fit"):
            fitted = learner.fit(labeled, seed=stream_seed(seed, cycle, "fit"))
        with observer.phase("evaluate"):
            measured = dict(learner.evaluate())
            if stop_rule is not None:
                measured |= stop_rule.measure(cycle)
        candidates = pool.unlabeled
        left = candidates.size if costs is None else int(costs[candidates].sum())
        budget = min(query_size, left)
        with observer.phase("query"):
            query = strategy.select(pool, candidates, learner, budget, stream(seed, cycle, "query"))
        _check_query(query, candidates, budget, costs)
        stopped = cycle + 1 < cycles and stop_rule is not None and stop_rule.is_reached()
        is_last = cycle + 1 == cycles or stopped
        is_last = is_last or not query.indices.size  # nothing is left to label then
        answered = is_last or oracle.annotate(query.indices)
        if answered and not is_last:
            pool.label(query.indices)
        yield CycleRecord(
            cycle=cycle,
            num_labeled=labeled.size,
            metrics={**fitted, **measured},
            query=query,
            seconds=observer.seconds,
            awaits_labels=not answered,
            stopped=stopped,
        )
        if is_last or not answered:
            return


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
