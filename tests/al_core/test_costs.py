"""Budgets that are amounts: `Affordable`, and groups of samples that are drawn together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_core import (
    Affordable,
    Pool,
    Random,
    Subsampled,
    TopK,
    draw_initial_set,
    predicted_loss,
    run_cycles,
)
from al_core.errors import InvalidSetting
from tests.al_core.fakes import FakeLearner, FakeOracle

COSTS = np.array([5, 1, 4, 2, 3, 5])


def test_the_most_wanted_are_taken_while_they_can_be_paid_for() -> None:
    """The query is the ranking up to where the budget ends; the ranking is kept whole."""
    learner = FakeLearner([0.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    pool = Pool(6)
    strategy = Affordable(TopK(predicted_loss), COSTS)
    query = strategy.select(pool, pool.unlabeled, learner, 8, np.random.default_rng(0))
    assert query.indices.tolist() == [1, 2, 3]  # 1 + 4 + 2; the next would make it 10
    assert query.scores is not None
    assert query.scores.tolist() == [5.0, 4.0, 3.0]
    assert query.ranking is not None
    assert query.ranking.indices.tolist() == [1, 2, 3, 4, 5, 0]


@given(budget=st.integers(1, 25), seed=st.integers(0, 99))
def test_no_query_costs_more_than_the_budget_but_one_sample_alone(budget: int, seed: int) -> None:
    """And none ends while its next sample could have been paid for."""
    pool = Pool(6)
    rng = np.random.default_rng(seed)
    query = Affordable(Random(), COSTS).select(
        pool, pool.unlabeled, FakeLearner(COSTS), budget, rng
    )
    spent = COSTS[query.indices].sum()
    assert spent <= budget or query.indices.size == 1
    if budget >= COSTS.sum():
        assert query.indices.size == 6


def test_costs_are_positive() -> None:
    """A sample that costs nothing would never end a query."""
    with pytest.raises(InvalidSetting, match="costs must be positive"):
        Affordable(Random(), np.array([1, 0]))


def test_cycles_spend_the_budget_until_the_pool_is_used_up() -> None:
    """With costs, `query_size` is an amount; the last query takes what is left."""
    pool, oracle = Pool(6), FakeOracle()
    pool.label([0])
    records = list(
        run_cycles(
            pool, FakeLearner(np.arange(6.0)), Affordable(TopK(predicted_loss), COSTS), oracle,
            cycles=9, query_size=9, seed=0, costs=COSTS,
        )
    )  # fmt: skip
    assert [record.query.indices.tolist() for record in records] == [[5, 4], [3, 2, 1], []]
    assert [record.num_labeled for record in records] == [1, 3, 6]


def test_the_initial_set_is_drawn_by_groups() -> None:
    """As many groups as asked for, each whole, and the groups that single samples would be."""
    groups = np.repeat(np.arange(8), 3)
    parts, whole = Pool(24, excluded=[]), Pool(8)
    draw_initial_set(parts, FakeOracle(), size=3, seed=5, groups=groups)
    draw_initial_set(whole, FakeOracle(), size=3, seed=5)
    assert parts.num_labeled == 9
    assert groups[parts.labeled][::3].tolist() == whole.labeled.tolist()  # in the same order


def test_a_subset_is_drawn_by_groups() -> None:
    """The inner strategy is shown all candidates of some groups, and none of the others."""
    groups = np.repeat(np.arange(8), 3)
    pool = Pool(24)
    pool.label([0, 1, 23])
    shown = Subsampled(TopK(predicted_loss), 4, groups=groups).select(
        pool, pool.unlabeled, FakeLearner(np.arange(24.0)), 2, np.random.default_rng(0)
    )
    assert shown.ranking is not None
    seen = set(groups[shown.ranking.indices].tolist())
    assert len(seen) == 4
    expected = [i for i in pool.unlabeled.tolist() if groups[i] in seen]
    assert sorted(shown.ranking.indices.tolist()) == expected
