from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given

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
from al_core.errors import InvalidSetting
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import SHOWN, select, situations

RANKING: dict[str, Callable[[], QueryStrategy]] = {
    "predicted_loss": lambda: TopK(predicted_loss),
    "margin": lambda: TopK(margin),
    "subsampled_predicted_loss": lambda: Subsampled(TopK(predicted_loss), SHOWN),
}


@pytest.mark.parametrize("build", RANKING.values(), ids=RANKING)
@given(situation=situations())
def test_ranking_holds_every_scored_candidate(
    build: Callable[[], QueryStrategy], situation: tuple[Pool, FakeLearner, int, int]
) -> None:
    """The ranking holds each candidate once by decreasing score and begins with the query."""
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
    """No other candidate scores more than a chosen one, and scores belong to their samples."""
    pool, learner, budget, seed = situation
    query = select(TopK(predicted_loss), pool, learner, budget, seed)
    expected = sorted(learner.values[pool.unlabeled], reverse=True)
    assert query.scores is not None
    assert query.scores.tolist() == expected[:budget]
    assert learner.values[query.indices].tolist() == expected[:budget]


def test_uncertainty_is_wanted_first() -> None:
    """All three uncertainty scores query the most uncertain samples first."""
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
    """A function that does not return one score per sample raises with the shape."""
    with pytest.raises(InvalidSetting, match="one score a sample, got shape"):
        select(TopK(acquisition), Pool(7), FakeLearner(np.arange(7.0)), 2)


def test_an_acquisition_that_is_no_function_is_refused() -> None:
    """An acquisition that is no function raises when the strategy is built."""
    with pytest.raises(InvalidSetting, match="must be a function, got 'entropy'"):
        TopK("entropy")  # type: ignore[arg-type]


class Spy:
    """A strategy that takes the first candidates and records what it was shown."""

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
        """Record the candidates and return the first of them."""
        self.shown.append(candidates)
        return Query(candidates[:budget])


def test_subsampled_shows_a_random_ascending_subset() -> None:
    """The inner strategy sees `size` random candidates in ascending order."""
    spy = Spy()
    for seed in (0, 1):
        select(Subsampled(spy, 8), Pool(40), FakeLearner(np.zeros(40)), 3, seed)
    for shown in spy.shown:
        assert shown.shape == (8,)
        assert (np.diff(shown) > 0).all()
    assert spy.shown[0].tolist() != spy.shown[1].tolist()


@pytest.mark.parametrize("n", [7, 8])
def test_subsampled_shows_all_when_there_are_no_more(n: int) -> None:
    """All candidates are shown if there are at most `size`, and nothing is drawn."""
    spy = Spy()
    rng = np.random.default_rng(0)
    pool = Pool(n)
    Subsampled(spy, 8).select(pool, pool.unlabeled, FakeLearner(np.zeros(n)), 2, rng)
    assert spy.shown[0].tolist() == list(range(n))
    assert rng.random() == np.random.default_rng(0).random()


def test_subsampled_scores_the_subset_only() -> None:
    """Inference runs on the subset only."""
    learner = FakeLearner(np.arange(1000.0))
    query = select(Subsampled(TopK(predicted_loss), 20), Pool(1000), learner, 3)
    assert [len(call[1]) for call in learner.calls] == [20]
    assert query.indices.tolist() == sorted(learner.calls[0][1], reverse=True)[:3]


def test_subsampled_smaller_than_the_budget_is_refused() -> None:
    """A subset smaller than the budget raises with both numbers."""
    with pytest.raises(InvalidSetting, match="query of 9 samples cannot be met by 8 candidates"):
        select(Subsampled(Random(), 8), Pool(40), FakeLearner(np.zeros(40)), 9)


@pytest.mark.parametrize("size", [0, -3, 2.5, "10", True, None])
def test_subsampled_refuses_a_size_that_is_no_positive_whole_number(size: Any) -> None:
    """A wrong size raises with its value when the strategy is built."""
    with pytest.raises(
        InvalidSetting, match=f"candidates must be a positive whole number, got {size!r}"
    ):
        Subsampled(Random(), size)
