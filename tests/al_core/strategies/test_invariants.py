"""Guarantees of every strategy, tested over the list of all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import al_core
from al_core import Pool, QueryStrategy, requirements_of
from al_core.errors import InvalidSetting, NonFiniteValue
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import (
    CHANGES,
    NAMES,
    STRATEGIES,
    Limited,
    configured,
    node,
    select,
    situations,
    targets,
)

Build = Callable[[], QueryStrategy]
ALL = pytest.mark.parametrize("build", STRATEGIES.values(), ids=STRATEGIES)
ASKS_NOTHING = {"random", "subsampled_random", "precomputed"}
"""Strategies without inference."""
IN_ITS_OWN_ORDER = {"precomputed"}
"""Strategies that distinguish samples with equal predictions."""


def test_every_strategy_of_the_library_is_listed() -> None:
    """Every class with a `select` is built by some file under conf/strategy."""
    offered = {
        f"al_core.{name}"
        for name in al_core.__all__
        if isinstance(getattr(al_core, name), type) and hasattr(getattr(al_core, name), "select")
    } - {"al_core.QueryStrategy", "al_core.Subsampled", "al_core.Affordable"}
    # The last two are put around any strategy, by cycle.candidates and by what is queried.
    built = {target for name in NAMES for target in targets(OmegaConf.to_container(node(name)))}
    assert offered - built == set()


@ALL
@given(situation=situations(), data=st.data())
@settings(max_examples=20)
def test_a_query_is_what_was_asked_for(
    build: Build, situation: tuple[Pool, FakeLearner, int, int], data: st.DataObject
) -> None:
    """The budget is met by different unlabeled samples, and the pool is unchanged.

    The same generator gives the same query whatever the order of the candidates, even where the
    model finds them alike, and whatever the size of the batches.
    """
    pool, learner, budget, seed = situation
    before = pool.state_dict()
    strategy = build()
    query = select(strategy, pool, learner, budget, seed)
    assert query.indices.shape == (budget,)
    assert query.indices.dtype == np.int64
    assert np.unique(query.indices).size == budget
    assert not set(query.indices.tolist()) & set(pool.labeled.tolist())
    assert query.scores is None or query.scores.shape == (budget,)
    assert query.scores is None or bool(np.isfinite(query.scores).all())
    assert pool.state_dict() == before
    shuffled = np.asarray(data.draw(st.permutations(pool.unlabeled.tolist())), dtype=np.int64)
    learner.batch_size = 7
    again = select(strategy, pool, learner, budget, seed, shuffled)
    np.testing.assert_array_equal(query.indices, again.indices)


@ALL
def test_empty_pool_and_budget_zero(build: Build) -> None:
    """A budget of zero or an empty pool gives an empty query, the latter without inference."""
    learner = FakeLearner(np.arange(5.0))
    pool = Pool(5)
    strategy = build()
    assert select(strategy, pool, learner, 0).indices.size == 0
    pool.label(range(5))
    learner.calls.clear()
    query = select(strategy, pool, learner, 0)
    assert query.indices.size == 0
    assert query.indices.dtype == np.int64
    assert learner.calls == []


@ALL
@pytest.mark.parametrize("budget", [-1, 6])
def test_impossible_budget_is_refused(build: Build, budget: int) -> None:
    """A negative budget or one above the candidates raises with both numbers."""
    with pytest.raises(InvalidSetting, match=rf"query of {budget} samples .* 5 candidates"):
        select(build(), Pool(5), FakeLearner(np.arange(5.0)), budget)


@ALL
def test_the_whole_pool_can_be_asked_for(build: Build) -> None:
    """A budget of all candidates returns each of them once, even a single one."""
    strategy = build()
    for n in (1, 2, 11):
        query = select(strategy, Pool(n), FakeLearner(np.linspace(-2, 2, n)), n)
        assert sorted(query.indices.tolist()) == list(range(n))


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - IN_ITS_OWN_ORDER))
def test_samples_that_are_alike_have_the_same_chance(name: str) -> None:
    """Samples with equal predictions are chosen equally often, whatever their positions."""
    learner, strategy = FakeLearner(np.zeros(10)), STRATEGIES[name]()
    counts = np.zeros(10)
    for seed in range(150):
        counts[select(strategy, Pool(10), learner, 2, seed).indices] += 1
    # 30 expected each; standard deviation sqrt(150 * 0.2 * 0.8) = 4.9.
    assert counts.min() > 30 - 23
    assert counts.max() < 30 + 23


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - ASKS_NOTHING))
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stops_and_names_the_sample(name: str, bad: float) -> None:
    """A prediction that is NaN or infinite raises with the first such position."""
    values = np.arange(10.0) / 3
    values[[4, 7]] = bad
    pool = Pool(10)
    pool.label([0, 1])
    with pytest.raises(NonFiniteValue, match="sample 4 is not finite"):
        select(STRATEGIES[name](), pool, FakeLearner(values), 2, candidates=pool.unlabeled[::-1])


@ALL
def test_the_declared_requirements_are_those_it_has(build: Build) -> None:
    """The declared parts suffice for every query, and without any one of them some query fails.

    Some have few labels and some have many, on which a strategy may depend.
    """
    strategy, declared = build(), requirements_of(build())
    refused = set()
    for num_labeled in (2, 16):
        values = np.linspace(-2, 2, 20)
        pool = Pool(20)
        pool.label(range(num_labeled))
        assert select(strategy, pool, Limited(values, declared), 3).indices.size == 3
        for requirement in declared:
            try:
                select(strategy, pool, Limited(values, declared - {requirement}), 3)
            except InvalidSetting:
                refused.add(requirement)
    assert refused == declared


@pytest.mark.parametrize("name", [name for name in NAMES if "embeddings_folder" in node(name)])
def test_embeddings_in_a_folder_give_the_same_query(name: str, tmp_path: Path) -> None:
    """A memory-mapped file instead of memory changes nothing and leaves nothing behind."""
    pool = Pool(30)
    pool.label(range(5))
    learner = FakeLearner(np.random.default_rng(0).normal(size=30))
    changes = CHANGES.get(name, {})
    query = select(configured(name, **changes), pool, learner, 7)
    other = configured(name, embeddings_folder=str(tmp_path), **changes)
    np.testing.assert_array_equal(select(other, pool, learner, 7).indices, query.indices)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted(ASKS_NOTHING & set(STRATEGIES)))
def test_the_blind_ask_nothing_of_the_model(name: str) -> None:
    """Strategies that need no predictions run no inference."""
    learner = FakeLearner(np.full(20, np.nan))
    select(STRATEGIES[name](), Pool(20), learner, 5)
    assert learner.calls == []
