"""When to stop: Cohen's kappa, the rule of stabilizing predictions, and rules in the loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from al_core import TopK, margin
from al_core.errors import InvalidSetting
from al_core.stopping import cohen_kappa, has_stabilized
from tests.al_core.test_loop import Run

PAIRS = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n)] * 2)
)


@given(PAIRS)
def test_kappa_is_that_of_a_count_over_all_pairs(pair: tuple[list[int], list[int]]) -> None:
    """Chance is the share of all pairs of a first and a second answer that are equal."""
    first, second = pair
    n = len(first)
    agreed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    chance = sum(a == b for a in first for b in second) / n**2
    expected = 1.0 if agreed == 1 else (agreed - chance) / (1 - chance)
    assert cohen_kappa(first, second) == pytest.approx(expected, abs=1e-12)


def test_kappa_is_that_of_scikit_learn() -> None:
    """An independent implementation gives the same value."""
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 300)
    second = np.where(rng.random(300) < 0.7, first, rng.integers(0, 5, 300))
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score(first, second))


def test_kappa_of_extremes() -> None:
    """Equal series agree fully, even of one class; opposite ones disagree; nothing has no value."""
    assert cohen_kappa([2, 2, 2], [2, 2, 2]) == 1.0
    assert cohen_kappa([0, 1], [1, 0]) == -1.0
    assert cohen_kappa([0, 0, 0], [0, 0, 1]) == 0.0
    assert math.isnan(cohen_kappa(np.empty(0, np.int64), np.empty(0, np.int64)))


@pytest.mark.parametrize(
    ("first", "second"), [([0], [0, 1]), ([[0]], [[0]]), ([-1], [0]), ([0.5], [0.5])]
)
def test_kappa_refuses_what_are_no_classes(first, second) -> None:
    """Shapes that differ and values that are no classes are errors, not numbers."""
    with pytest.raises(InvalidSetting):
        cohen_kappa(first, second)


@pytest.mark.parametrize(
    ("agreements", "reached"),
    [
        ([], False),
        ([None, 1.0, 1.0], False),
        ([None, 1.0, 1.0, 1.0], True),
        ([None, 0.5, 1.0, 1.0, 1.0], True),
        ([None, 1.0, 1.0, 0.97], True),
        ([None, 0.99, 0.99, 0.99], True),
        ([None, 1.0, 1.0, 0.96], False),
        ([1.0, math.nan, 1.0, 1.0], False),
    ],
)
def test_the_mean_of_the_last_three_must_reach_the_threshold(agreements, reached) -> None:
    """Only the last cycles count, all of them measured."""
    assert has_stabilized(agreements, threshold=0.99, window=3) is reached


def test_impossible_settings_are_refused() -> None:
    """No agreement is above 1, and none is averaged over no cycle."""
    with pytest.raises(InvalidSetting, match="threshold"):
        has_stabilized([], threshold=1.1)
    with pytest.raises(InvalidSetting, match="window"):
        has_stabilized([], window=0)


class AfterCycle:
    """A stop rule that ends a run with one cycle; it measures the number of the cycle."""

    def __init__(self, last: int) -> None:
        self.last, self.measured = last, -1

    def measure(self, cycle: int) -> dict[str, float]:
        """Keep the number of the cycle."""
        self.measured = cycle
        return {"measured": float(cycle)}

    def is_reached(self) -> bool:
        """Return True from the last cycle on."""
        return self.measured >= self.last


@pytest.mark.parametrize("last", [0, 1, 2, 3])
def test_a_stop_rule_ends_the_run_with_a_cycle_that_only_scores(last: int) -> None:
    """The records before are the same, the last one is marked, and its query stays unlabeled."""
    unbroken = [record.query.indices.tolist() for record in Run().cycles(TopK(margin), 3)]
    run = Run()
    records = list(run.cycles(TopK(margin), 3, stop_rule=AfterCycle(last)))
    done = min(last + 1, 3)
    assert [record.query.indices.tolist() for record in records] == unbroken[:done]
    assert [record.metrics["measured"] for record in records] == [*range(done)]
    assert [record.stopped for record in records] == [k == last and last < 2 for k in range(done)]
    assert run.pool.num_labeled == 5 + 4 * (done - 1)
