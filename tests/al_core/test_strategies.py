from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_core import (
    IndexArray,
    Learner,
    Pool,
    Prediction,
    Query,
    QueryStrategy,
    Random,
    Subsampled,
    TopK,
    entropy,
    least_confidence,
    margin,
    predicted_loss,
)
from al_core.errors import InvalidSetting, NonFiniteValue
from tests.al_core.fakes import FakeLearner

SHOWN = 12
"""Candidates that the thinned strategies are shown."""

STRATEGIES: dict[str, Callable[[], QueryStrategy]] = {
    "random": Random,
    "predicted_loss": lambda: TopK(predicted_loss),
    "entropy": lambda: TopK(entropy),
    "margin": lambda: TopK(margin),
    "least_confidence": lambda: TopK(least_confidence),
    "subsampled_random": lambda: Subsampled(Random(), SHOWN),
    "subsampled_predicted_loss": lambda: Subsampled(TopK(predicted_loss), SHOWN),
}
ALL = pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
SCORING = pytest.mark.parametrize(
    "build",
    [build for name, build in STRATEGIES.items() if "random" not in name],
    ids=[name for name in STRATEGIES if "random" not in name],
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Pool, FakeLearner, int, int]:
    """A pool partly labeled, values with ties, a budget that can be met, and a seed."""
    n = draw(st.integers(1, 30))
    pool = Pool(n)
    pool.label(draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n)))
    values = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    budget = draw(st.integers(0, min(SHOWN, pool.unlabeled.size)))
    return pool, FakeLearner(values), budget, draw(st.integers(0, 2**32))


def select(
    strategy: QueryStrategy,
    pool: Pool,
    learner: Learner,
    budget: int,
    seed: int = 0,
    candidates: IndexArray | None = None,
) -> Query:
    """Query with a fresh generator."""
    shown = pool.unlabeled if candidates is None else candidates
    return strategy.select(pool, shown, learner, budget, np.random.default_rng(seed))


@ALL
@given(situation=situations())
def test_budget_is_met_by_different_unlabeled_samples(
    build: Callable[[], QueryStrategy], situation: tuple[Pool, FakeLearner, int, int]
) -> None:
    """A query holds exactly the budget, no sample twice, none labeled, and changes no pool."""
    pool, learner, budget, seed = situation
    before = pool.state_dict()
    query = select(build(), pool, learner, budget, seed)
    assert query.indices.shape == (budget,)
    assert query.indices.dtype == np.int64
    assert np.unique(query.indices).size == budget
    assert not set(query.indices.tolist()) & set(pool.labeled.tolist())
    assert pool.state_dict() == before


@ALL
@given(situation=situations())
def test_same_seed_same_query(
    build: Callable[[], QueryStrategy], situation: tuple[Pool, FakeLearner, int, int]
) -> None:
    """The query depends on the pool, the model and the generator, on nothing else."""
    pool, learner, budget, seed = situation
    one, two = (select(build(), pool, learner, budget, seed) for _ in range(2))
    np.testing.assert_array_equal(one.indices, two.indices)


@ALL
@given(situation=situations(), data=st.data())
def test_order_of_candidates_does_not_matter(
    build: Callable[[], QueryStrategy],
    situation: tuple[Pool, FakeLearner, int, int],
    data: st.DataObject,
) -> None:
    """Shuffled candidates give the same query, even where scores tie."""
    pool, learner, budget, seed = situation
    shuffled = np.asarray(data.draw(st.permutations(pool.unlabeled.tolist())), dtype=np.int64)
    one = select(build(), pool, learner, budget, seed)
    two = select(build(), pool, learner, budget, seed, shuffled)
    np.testing.assert_array_equal(one.indices, two.indices)


@ALL
def test_empty_pool_and_budget_zero(build: Callable[[], QueryStrategy]) -> None:
    """Nothing asked, or nothing left, gives an empty query; of nothing the model infers nothing."""
    learner = FakeLearner(np.arange(5.0))
    pool = Pool(5)
    assert select(build(), pool, learner, 0).indices.size == 0
    pool.label(range(5))
    learner.calls.clear()
    query = select(build(), pool, learner, 0)
    assert query.indices.size == 0
    assert query.indices.dtype == np.int64
    assert learner.calls == []


@ALL
@pytest.mark.parametrize("budget", [-1, 6])
def test_impossible_budget_is_refused(build: Callable[[], QueryStrategy], budget: int) -> None:
    """A budget under zero or above the candidates raises and gives both numbers."""
    with pytest.raises(InvalidSetting, match=rf"query of {budget} samples .* 5 candidates"):
        select(build(), Pool(5), FakeLearner(np.arange(5.0)), budget)


@ALL
def test_equal_scores_are_ordered_at_random(build: Callable[[], QueryStrategy]) -> None:
    """With equal scores every sample has the same chance, whatever its position."""
    learner = FakeLearner(np.zeros(10))
    counts = np.zeros(10)
    for seed in range(600):
        counts[select(build(), Pool(10), learner, 2, seed).indices] += 1
    # 120 expected each; standard deviation sqrt(600 * 0.2 * 0.8) = 9.8.
    assert counts.min() > 120 - 45
    assert counts.max() < 120 + 45


@pytest.mark.parametrize(
    ("build", "bad"),
    [
        *((STRATEGIES[name], np.nan) for name in STRATEGIES if "random" not in name),
        (STRATEGIES["predicted_loss"], np.inf),
        (STRATEGIES["subsampled_predicted_loss"], -np.inf),
    ],
)
def test_a_score_that_is_not_finite_stops_and_names_the_sample(
    build: Callable[[], QueryStrategy], bad: float
) -> None:
    """A NaN or infinite score raises NonFiniteValue with the first such position."""
    values = np.arange(10.0)
    values[[4, 7]] = bad
    pool = Pool(10)
    pool.label([0, 1])
    with pytest.raises(NonFiniteValue, match="sample 4 is not finite"):
        select(build(), pool, FakeLearner(values), 2, candidates=pool.unlabeled[::-1])


@SCORING
@given(situation=situations())
def test_ranking_holds_every_scored_candidate(
    build: Callable[[], QueryStrategy], situation: tuple[Pool, FakeLearner, int, int]
) -> None:
    """The ranking has each candidate shown once, scores do not increase, and the query heads it."""
    pool, learner, budget, seed = situation
    query = select(build(), pool, learner, budget, seed)
    assert query.ranking is not None
    assert query.scores is not None
    shown = learner.calls[-1][1] if pool.unlabeled.size else []
    assert sorted(query.ranking.indices.tolist()) == sorted(shown)
    assert query.ranking.scores.dtype == query.scores.dtype == np.float64
    assert (np.diff(query.ranking.scores) <= 0).all()
    np.testing.assert_array_equal(query.indices, query.ranking.indices[:budget])
    np.testing.assert_array_equal(query.scores, query.ranking.scores[:budget])


@given(situation=situations())
def test_top_k_takes_the_largest_scores(situation: tuple[Pool, FakeLearner, int, int]) -> None:
    """No candidate left out scores more than one taken, and scores belong to their samples."""
    pool, learner, budget, seed = situation
    query = select(TopK(predicted_loss), pool, learner, budget, seed)
    expected = sorted(learner.values[pool.unlabeled], reverse=True)
    assert query.scores is not None
    assert query.scores.tolist() == expected[:budget]
    assert learner.values[query.indices].tolist() == expected[:budget]


def test_uncertainty_is_wanted_first() -> None:
    """Of samples from sure to unsure all three uncertainty scores query the unsure first."""
    learner = FakeLearner([9.0, 0.1, -5.0, 0.0, 2.0, -1.0])
    for acquisition in (entropy, margin, least_confidence):
        query = select(TopK(acquisition), Pool(6), learner, 6)
        assert query.indices.tolist() == [3, 1, 5, 4, 2, 0]


def test_random_asks_nothing_of_the_model_and_has_no_scores() -> None:
    """Random neither infers nor scores, and its query changes with the seed."""
    learner = FakeLearner(np.arange(50.0))
    queries = [select(Random(), Pool(50), learner, 5, seed) for seed in (1, 2)]
    assert learner.calls == []
    assert queries[0].scores is None
    assert queries[0].ranking is None
    assert queries[0].indices.tolist() != queries[1].indices.tolist()


@pytest.mark.parametrize(
    "acquisition",
    [lambda p: p.predicted_loss[:, None], lambda p: p.predicted_loss.sum()[None]],
    ids=["(b, 1)", "one a batch"],
)
def test_an_acquisition_function_of_wrong_shape_is_refused(
    acquisition: Callable[[Prediction], Any],
) -> None:
    """Scores that are not one a sample raise and show their shape."""
    with pytest.raises(InvalidSetting, match="one score a sample, got shape"):
        select(TopK(acquisition), Pool(7), FakeLearner(np.arange(7.0)), 2)


def test_an_acquisition_that_is_no_function_is_refused() -> None:
    """A name where a function is needed raises when the strategy is built."""
    with pytest.raises(InvalidSetting, match="must be a function, got 'entropy'"):
        TopK("entropy")  # type: ignore[arg-type]


class Spy:
    """Takes the first candidates and remembers what it was shown."""

    def __init__(self) -> None:
        self.shown: list[IndexArray] = []

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Note and take."""
        self.shown.append(candidates)
        return Query(candidates[:budget])


def test_subsampled_shows_a_random_ascending_subset() -> None:
    """The inner strategy sees `size` different candidates, ascending, others with another seed."""
    spy = Spy()
    for seed in (0, 1):
        select(Subsampled(spy, 8), Pool(40), FakeLearner(np.zeros(40)), 3, seed)
    for shown in spy.shown:
        assert shown.shape == (8,)
        assert (np.diff(shown) > 0).all()
    assert spy.shown[0].tolist() != spy.shown[1].tolist()


@pytest.mark.parametrize("n", [7, 8])
def test_subsampled_shows_all_when_there_are_no_more(n: int) -> None:
    """With no more candidates than `size` all are shown and nothing is drawn."""
    spy = Spy()
    rng = np.random.default_rng(0)
    pool = Pool(n)
    Subsampled(spy, 8).select(pool, pool.unlabeled, FakeLearner(np.zeros(n)), 2, rng)
    assert spy.shown[0].tolist() == list(range(n))
    assert rng.random() == np.random.default_rng(0).random()


def test_subsampled_scores_the_subset_only() -> None:
    """The model infers from the subset, so that scoring costs no more than `size` samples."""
    learner = FakeLearner(np.arange(1000.0))
    query = select(Subsampled(TopK(predicted_loss), 20), Pool(1000), learner, 3)
    assert [len(call[1]) for call in learner.calls] == [20]
    assert query.indices.tolist() == sorted(learner.calls[0][1], reverse=True)[:3]


def test_subsampled_smaller_than_the_budget_is_refused() -> None:
    """A subset that cannot meet the budget raises and gives both numbers."""
    with pytest.raises(InvalidSetting, match="query of 9 samples cannot be met by 8 candidates"):
        select(Subsampled(Random(), 8), Pool(40), FakeLearner(np.zeros(40)), 9)


@pytest.mark.parametrize("size", [0, -3, 2.5, "10", True, None])
def test_subsampled_refuses_a_size_that_is_no_positive_whole_number(size: Any) -> None:
    """A wrong size raises when the strategy is built, and shows the value."""
    with pytest.raises(
        InvalidSetting, match=f"candidates must be a positive whole number, got {size!r}"
    ):
        Subsampled(Random(), size)
