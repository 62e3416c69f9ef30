"""The loop: order, resuming, people, streams, contracts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from al_core import (
    CycleRecord,
    IndexArray,
    Learner,
    Pool,
    Prediction,
    Query,
    QueryStrategy,
    Random,
    Stopwatch,
    Subsampled,
    TopK,
    draw_initial_set,
    margin,
    predicted_loss,
    run_cycles,
)
from al_core import loop as loop_module
from al_core.errors import InvalidSetting, LabelHidden
from tests.al_core.fakes import FakeLearner, FakeOracle

N = 40
STRATEGIES: dict[str, Callable[[], QueryStrategy]] = {
    "random": Random,
    "predicted_loss": lambda: TopK(predicted_loss),
    "subsampled_margin": lambda: Subsampled(TopK(margin), 15),
}


class Run:
    """A pool, a learner that drifts with its seed, and an oracle, noting every call in one list."""

    def __init__(self, pool: Pool | None = None, *, seed: int = 0) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.oracle = FakeOracle(self.calls)
        self.learner = FakeLearner(
            np.linspace(-2, 2, N), oracle=self.oracle, calls=self.calls, drifting=True
        )
        self.seed = seed
        if pool is None:
            self.pool = Pool(N)
            draw_initial_set(self.pool, self.oracle, size=5, seed=seed)
        else:
            self.pool = pool
            self.oracle.revealed.update(pool.labeled.tolist())

    def cycles(self, strategy: QueryStrategy, cycles: int, query_size: int = 4, **how: Any) -> Any:
        """The generator of records."""
        return run_cycles(
            self.pool,
            self.learner,
            strategy,
            self.oracle,
            cycles=cycles,
            query_size=query_size,
            seed=self.seed,
            **how,
        )

    def fits(self) -> list[tuple[Any, ...]]:
        """The fit calls."""
        return [call for call in self.calls if call[0] == "fit"]


def facts(record: CycleRecord) -> tuple[Any, ...]:
    """All of a record but its seconds."""
    scores = None if record.query.scores is None else record.query.scores.tolist()
    metrics = dict(record.metrics)
    return record.cycle, record.num_labeled, metrics, record.query.indices.tolist(), scores


def test_each_cycle_fits_evaluates_scores_and_labels_in_this_order() -> None:
    """Fit, evaluate, infer, annotate; the last cycle does all but annotate."""
    run = Run()
    run.calls.clear()
    for _ in run.cycles(TopK(predicted_loss), 3):
        run.calls.append(("record",))
    cycle = ["fit", "evaluate", "infer"]
    assert [call[0] for call in run.calls] == [
        *[*cycle, "annotate", "record"] * 2,
        *cycle,
        "record",
    ]


def test_nothing_is_trained_before_a_record_is_asked_for() -> None:
    """A cycle starts when its record is asked for, so that a caller saves one before the next."""
    run = Run()
    records = run.cycles(Random(), 3)
    assert run.fits() == []
    for cycle in range(3):
        next(records)
        assert len(run.fits()) == cycle + 1


@pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
def test_records_say_what_happened(build: Callable[[], QueryStrategy]) -> None:
    """A record has its cycle, the labels trained on, the metrics of both steps, and the query."""
    run = Run()
    for cycle, record in enumerate(run.cycles(build(), 4)):
        trained_on = run.fits()[-1][1]
        assert record.cycle == cycle
        assert record.num_labeled == len(trained_on) == 5 + 4 * cycle
        assert record.metrics.keys() == {"train_loss", "accuracy"}
        assert record.query.indices.shape == (4,)
        if cycle < 3:
            assert run.pool.labeled.tolist() == trained_on + record.query.indices.tolist()


def test_last_cycle_scores_but_labels_nothing() -> None:
    """The last cycle has query and ranking for a team to upload; its samples stay unlabeled."""
    run = Run()
    *_, last = run.cycles(TopK(predicted_loss), 3)
    assert last.query.ranking is not None
    assert last.query.ranking.indices.size == N - 13
    assert run.pool.num_labeled == 13
    assert not np.isin(last.query.indices, run.pool.labeled).any()
    assert [call[0] for call in run.calls].count("annotate") == 3  # the initial set and two queries


@pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("stop_after", [0, 1, 3, 4])
def test_a_resumed_run_equals_an_unbroken_one(
    build: Callable[[], QueryStrategy], stop_after: int
) -> None:
    """Stopped after any cycle and continued from the saved pool, the records are the same."""
    unbroken = [facts(record) for record in Run(seed=3).cycles(build(), 5)]
    first = Run(seed=3)
    records = [facts(r) for r in itertools.islice(first.cycles(build(), 5), stop_after)]
    saved = json.dumps(first.pool.state_dict())
    second = Run(Pool.from_state_dict(json.loads(saved)), seed=3)
    records += [facts(record) for record in second.cycles(build(), 5)]
    assert records == unbroken
    assert len(second.fits()) == 5 - stop_after


def test_more_cycles_later_continue_the_run() -> None:
    """A run of 2 cycles, then of 4, gives the records of a run of 4; the second is run again."""
    unbroken = [facts(record) for record in Run().cycles(TopK(margin), 4)]
    run = Run()
    short = [facts(record) for record in run.cycles(TopK(margin), 2)]
    assert short == unbroken[:2]
    assert [facts(record) for record in run.cycles(TopK(margin), 4)] == unbroken[1:]


def test_a_pool_that_is_through_gives_no_records() -> None:
    """With as many cycles behind it as asked for, nothing is trained."""
    run = Run()
    list(run.cycles(Random(), 4))
    fits = len(run.fits())
    assert list(run.cycles(Random(), 2)) == []
    assert len(run.fits()) == fits


@pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
def test_a_pool_that_runs_out_ends_the_run(build: Callable[[], QueryStrategy]) -> None:
    """The last query takes what is left, one more cycle trains on everything, and the run ends."""
    run = Run()
    records = list(run.cycles(build(), 50, query_size=14))
    assert [record.num_labeled for record in records] == [5, 19, 33, 40]
    assert [record.query.indices.size for record in records] == [14, 14, 7, 0]
    assert run.pool.unlabeled.size == 0
    assert len(run.fits()) == 4


def test_excluded_samples_are_never_seen() -> None:
    """Unreadable images are in no initial set, no training, no scoring and no query."""
    bad = list(range(0, N, 3))
    run = Run(Pool(N, excluded=bad))
    draw_initial_set(run.pool, run.oracle, size=5, seed=0)
    list(run.cycles(TopK(predicted_loss), 50))
    touched = {i for call in run.calls if len(call) > 1 for i in call[1]}
    assert touched == set(range(N)) - set(bad)


def test_people_get_the_record_before_the_run_stops() -> None:
    """If people answer later the record says so, the loop ends, and nothing is labeled."""
    run = Run()
    run.oracle.answers_later = True
    before = run.pool.state_dict()
    records = run.cycles(TopK(predicted_loss), 3)
    record = next(records)
    assert record.query.indices.size == 4
    assert run.calls[-1] == ("annotate", record.query.indices.tolist())
    assert record.awaits_labels
    assert list(records) == []
    assert run.pool.state_dict() == before
    assert len(run.fits()) == 1


def test_once_people_have_answered_the_run_goes_on_as_if_unbroken() -> None:
    """Labeling the waiting query and calling again gives the records of a quick oracle."""
    unbroken = [facts(record) for record in Run().cycles(TopK(predicted_loss), 3)]
    run = Run()
    run.oracle.answers_later = True
    records = []
    for _ in range(3):
        records += run.cycles(TopK(predicted_loss), 3)
        assert records[-1].awaits_labels == (len(records) < 3)
        if len(records) < 3:
            waiting = records[-1].query.indices
            run.oracle.revealed.update(waiting.tolist())
            run.pool.label(waiting)
    assert [facts(record) for record in records] == unbroken


def test_a_failing_oracle_labels_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If asking for labels fails, the error comes through and the pool is as before the cycle."""

    def fail(indices: IndexArray) -> None:
        raise OSError("no disk")

    run = Run()
    before = run.pool.state_dict()
    monkeypatch.setattr(run.oracle, "annotate", fail)
    with pytest.raises(OSError, match="no disk"):
        next(run.cycles(Random(), 3))
    assert run.pool.state_dict() == before


@pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
def test_only_annotated_labels_are_read(build: Callable[[], QueryStrategy]) -> None:
    """The learner is given annotated samples only; reading any other label would raise."""
    run = Run()
    list(run.cycles(build(), 5))
    assert run.oracle.revealed == set(run.pool.labeled.tolist())
    hidden = run.pool.unlabeled
    with pytest.raises(LabelHidden):
        run.learner.fit(hidden[:1], seed=0)


def test_strategies_under_one_seed_start_alike() -> None:
    """Two strategies with one seed share the initial set and every cycle's training seed."""
    runs = {name: Run(seed=7) for name in STRATEGIES}
    records = {name: list(run.cycles(STRATEGIES[name](), 4)) for name, run in runs.items()}
    fits = [run.fits() for run in runs.values()]
    assert fits[0][0] == fits[1][0] == fits[2][0]  # the same samples and the same seed
    seeds = [[fit[2] for fit in of_run] for of_run in fits]
    assert seeds[0] == seeds[1] == seeds[2]
    assert len(set(seeds[0])) == 4
    queries = {tuple(found[0].query.indices.tolist()) for found in records.values()}
    assert len(queries) == 3


def test_another_seed_changes_initial_set_training_and_queries() -> None:
    """Nothing random is the same under another seed."""
    one, two = Run(seed=1), Run(seed=2)
    first, second = next(one.cycles(Random(), 2)), next(two.cycles(Random(), 2))
    assert one.fits()[0][1] != two.fits()[0][1]
    assert one.fits()[0][2] != two.fits()[0][2]
    assert first.query.indices.tolist() != second.query.indices.tolist()


class Draws(Random):
    """Random, noting the state in which its generator comes."""

    def __init__(self) -> None:
        self.drawn: list[float] = []

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Draw once, then select."""
        self.drawn.append(rng.random())
        return super().select(pool, candidates, learner, budget, rng)


def test_each_cycle_queries_from_a_stream_of_its_own() -> None:
    """A strategy's draws differ between cycles and seeds, and repeat for the same of both."""
    drawn = []
    for seed in (0, 1, 0):
        strategy = Draws()
        list(Run(seed=seed).cycles(strategy, 4))
        drawn.append(strategy.drawn)
    assert len(set(drawn[0] + drawn[1])) == 8
    assert drawn[2] == drawn[0]


def test_seconds_are_split_by_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit, evaluate, reported inference and the rest of the query are timed; labeling is not."""
    now = [0.0]
    monkeypatch.setattr(loop_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def taking(seconds: float, function: Callable[..., Any]) -> Callable[..., Any]:
        def slow(*args: Any, **options: Any) -> Any:
            now[0] += seconds
            return function(*args, **options)

        return slow

    run, watch = Run(), Stopwatch()
    strategy = TopK(predicted_loss)
    for owner, name, seconds in (
        (run.learner, "fit", 5.0),
        (run.learner, "evaluate", 2.0),
        (run.learner, "infer", 3.0),
        (strategy, "select", 1.0),
        (run.oracle, "annotate", 100.0),
    ):
        setattr(owner, name, taking(seconds, getattr(owner, name)))
    infer = run.learner.infer

    def reported(*args: Any) -> Any:
        with watch.phase("score"):
            return infer(*args)

    run.learner.infer = reported  # type: ignore[method-assign]
    for record in run.cycles(strategy, 3, observer=watch):
        assert record.seconds == {"fit": 5.0, "evaluate": 2.0, "score": 3.0, "query": 1.0}


class Fixed:
    """Returns these samples, whatever is asked."""

    def __init__(self, choose: Callable[[IndexArray, Pool], Any]) -> None:
        self.choose = choose

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Return them."""
        learner.infer(candidates, _sum)
        return Query(np.asarray(self.choose(candidates, pool), dtype=np.int64))


def _sum(prediction: Prediction) -> Tensor:
    return prediction.log_probs.sum(1)


@pytest.mark.parametrize(
    ("choose", "text"),
    [
        (lambda candidates, pool: candidates[[0, 1, 2, 2]], "twice"),
        (lambda candidates, pool: pool.labeled[:4], "no candidate"),
        (lambda candidates, pool: candidates[:3], "budget"),
        (lambda candidates, pool: candidates[:5], "budget"),
        (lambda candidates, pool: candidates[:0], "budget"),
    ],
)
def test_a_strategy_that_breaks_its_contract_is_caught(
    choose: Callable[[IndexArray, Pool], Any], text: str
) -> None:
    """Repeats, samples not offered, and any size but the budget stop the run before labeling."""
    run = Run()
    before = list(run.oracle.revealed)
    with pytest.raises(AssertionError, match=text):
        next(run.cycles(Fixed(choose), 3))
    assert list(run.oracle.revealed) == before


@pytest.mark.parametrize(
    ("cycles", "query_size", "text"), [(0, 4, "cycles must"), (3, 0, "query_size must")]
)
def test_numbers_that_are_not_positive_are_refused(cycles: int, query_size: int, text: str) -> None:
    """No cycles, or queries of nothing, raise before anything is trained."""
    run = Run()
    with pytest.raises(InvalidSetting, match=text):
        next(run.cycles(Random(), cycles, query_size))
    assert run.fits() == []


@pytest.mark.parametrize("batches", [[], [[]]])
def test_a_pool_without_labels_is_refused(batches: list[list[int]]) -> None:
    """Without an initial set the run does not start, and says what to draw."""
    pool = Pool(N)
    for batch in batches:
        pool.label(batch)
    with pytest.raises(InvalidSetting, match="draw the initial set first"):
        next(Run(pool).cycles(Random(), 3))
