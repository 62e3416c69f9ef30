"""Rankings against hand counts, published values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from experiments.reporting import rankings
from experiments.reporting.labels_needed import labels_to_reach, needed_by_all, savings


def test_penalty_counts_the_cycles_won() -> None:
    """A strategy that is clearly better in one of two later cycles is paid half; the first cycle,
    where all have the same labels, does not count.
    """
    rng = np.random.default_rng(0)
    base = rng.normal(50, 1, (5, 3))
    noise = rng.normal(0, 0.1, (5, 3))
    gain = np.array([9.0, 0.0, 2.0])  # the nine is of the first cycle
    values = {
        "random": dict(enumerate(base)),
        "good": dict(enumerate(base + gain + noise - noise.mean(axis=0))),
    }
    found = rankings.penalty_matrix(values)
    assert found is not None
    assert found.labels == ("random", "good")
    assert found.num_cycles == 2
    assert found.cells.tolist() == [[0.0, 0.0], [0.5, 0.0]]
    assert found.columns.tolist() == [0.25, 0.0]


def test_penalty_is_the_paired_t_test() -> None:
    """A cell is won exactly where scipy's paired test has p < 0.05 in its favor."""
    rng = np.random.default_rng(1)
    values = {name: {s: rng.normal(shift, 1, 40) for s in range(6)}
              for name, shift in (("a", 0.0), ("b", 0.8))}  # fmt: skip
    found = rankings.penalty_matrix(values)
    assert found is not None
    a, b = (np.stack([values[name][s] for s in range(6)])[:, 1:] for name in "ab")
    test = stats.ttest_rel(b, a, axis=0)
    won = (test.pvalue < 0.05) & (test.statistic > 0)
    assert found.cells[1, 0] == pytest.approx(won.mean())
    assert 0 < won.mean() < 1


@pytest.mark.parametrize(
    ("num_strategies", "q"), [(3, 2.343), (5, 2.728), (10, 3.164)]
)  # Demsar (2006), table 5(a): the two-tailed Nemenyi test at 0.05
def test_critical_difference_is_the_published_one(num_strategies: int, q: float) -> None:
    """It is q times the root of k (k + 1) / 6 N with the tabulated q."""
    rng = np.random.default_rng(0)
    areas = {f"s{k}": dict(enumerate(rng.normal(size=8))) for k in range(num_strategies)}
    found = rankings.mean_ranks(areas)
    assert found is not None
    expected = q * math.sqrt(num_strategies * (num_strategies + 1) / (6 * 8))
    assert found.critical_difference == pytest.approx(expected, abs=2e-3)


def test_ranks_and_cliques() -> None:
    """The largest area has rank one; ties share; neighbors nearer than the critical difference
    share a letter.
    """
    areas = {
        "worst": dict.fromkeys(range(30), 1.0),
        "best": dict.fromkeys(range(30), 9.0),
        "tie_a": dict.fromkeys(range(30), 5.0),
        "tie_b": dict.fromkeys(range(30), 5.0),
    }
    found = rankings.mean_ranks(areas)
    assert found is not None
    assert found.mean_ranks == {"best": 1.0, "tie_a": 2.5, "tie_b": 2.5, "worst": 4.0}
    assert found.cliques == (("tie_a", "tie_b"),)
    assert found.p_value < 1e-6
    same = rankings.mean_ranks({name: dict.fromkeys(range(3), 1.0) for name in "abc"})
    assert same is not None
    assert (same.p_value, same.cliques) == (1.0, (("a", "b", "c"),))


def test_profile_by_hand() -> None:
    """Shares of problems within a ratio of the best; unreached levels count against a strategy,
    and a problem that nobody solves for nobody.
    """
    inf = math.inf
    found = rankings.profile({"a": [100, 200, inf, inf], "b": [200, 100, 300, inf]})
    assert found is not None
    assert found.num_problems == 3
    assert found.ratios.tolist() == [1.0, 2.0]
    assert found.shares["a"] == pytest.approx([1 / 3, 2 / 3])
    assert found.shares["b"] == pytest.approx([2 / 3, 1.0])


def test_labels_to_reach_is_where_the_line_crosses() -> None:
    """Between two cycles the curve is straight; the first crossing counts; too high is never."""
    counts, values = [100, 200, 400], [10.0, 30.0, 20.0]
    assert labels_to_reach(counts, values, 5) == 100
    assert labels_to_reach(counts, values, 20) == 150
    assert labels_to_reach(counts, values, 30) == 200
    assert labels_to_reach(counts, values, 31) == math.inf


def test_savings_are_paired_by_seed() -> None:
    """Each seed's level is the baseline's own; a seed that never gets there is counted, not
    averaged.
    """
    counts = {name: {s: np.array([100.0, 200.0, 300.0]) for s in (0, 1)} for name in "rs"}
    values = {
        "r": {0: np.array([0.0, 1.0, 2.0]), 1: np.array([0.0, 2.0, 4.0])},
        "s": {0: np.array([0.0, 2.0, 3.0]), 1: np.array([0.0, 4.0, 4.0]) - 0.5},
    }
    ((middle, last),) = savings(values, counts, "r", [1, 2]).values()
    assert (middle.num_labeled, middle.num_reached, middle.num_seeds) == (200, 2, 2)
    assert middle.saved is not None
    assert middle.saved.mean == pytest.approx((50 + 100 * (1 - 2.5 / 4)) / 2)
    assert (last.num_reached, last.num_seeds) == (1, 2)
    assert last.saved is not None
    assert last.saved.mean == pytest.approx(100)  # of seed 0; seed 1 stays below 4
    needed = needed_by_all(values, counts, "r")
    assert needed["r"] == [200, 300, 200, 300]
    assert needed["s"][:2] == [150, 200]
    assert needed["s"][3] == math.inf
