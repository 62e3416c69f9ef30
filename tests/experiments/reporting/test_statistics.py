"""Statistics against closed forms and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.reporting import statistics


def test_interval_is_student_t() -> None:
    """The interval of a mean is scipy's Student t interval."""
    values = [71.0, 69.5, 72.25, 70.0]
    estimate = statistics.mean_interval(values)
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert estimate.num_seeds == 4
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((70.6875, low, high))


def test_two_seeds_by_hand() -> None:
    """For 1 and 3 the mean is 2 and the half width t(0.975, 1) = 12.7062 times 1."""
    estimate = statistics.mean_interval([1.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half_width == pytest.approx(12.7062, abs=1e-4)


def test_one_seed_has_no_interval() -> None:
    """A single value is a mean without an interval."""
    assert statistics.mean_interval([5.0]) == statistics.Estimate(5.0, None, None, 1)


def test_area_is_the_mean_over_the_budget_range() -> None:
    """The area of a constant is that constant; unequal steps weigh by their width."""
    assert statistics.area_under_budget([100, 250, 1000], [42.0] * 3) == pytest.approx(42.0)
    assert statistics.area_under_budget([0, 10, 40], [0.0, 2.0, 4.0]) == pytest.approx(
        (10 * 1 + 30 * 3) / 40
    )


@pytest.mark.parametrize("counts", [[100], [100, 100]])
def test_no_area_without_a_budget_range(counts: list[float]) -> None:
    """One point, or two at one number of labels, have no area."""
    assert statistics.area_under_budget(counts, [1.0] * len(counts)) is None


def test_single_comparison_is_the_paired_t_test() -> None:
    """With one strategy p-value and interval are those of scipy's paired t test."""
    a, b = np.array([1.0, 2.0, 4.0, 3.5]), np.array([0.5, 1.8, 3.1, 3.6])
    comparison = statistics.compare({"x": list(a - b)})["x"]
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert comparison.p_value == pytest.approx(expected.pvalue)
    assert comparison.difference.low == pytest.approx(interval.low)
    assert comparison.difference.high == pytest.approx(interval.high)


def test_holm_by_hand() -> None:
    """Adjusted p-values are Holm's, and the first of three is tested at a third of 5%."""
    differences = {
        "a": [1.0, 1.2, 0.9, 1.1, 1.3],
        "b": [0.5, 0.1, 0.6, -0.1, 0.3],
        "c": [0.1, -0.2, 0.3, -0.3, 0.2],
    }
    p = [float(stats.ttest_1samp(d, 0).pvalue) for d in differences.values()]
    assert p[0] < p[1] < p[2]
    found = statistics.compare(differences)
    assert [found[name].p_value for name in "abc"] == pytest.approx(
        [3 * p[0], max(3 * p[0], 2 * p[1]), max(3 * p[0], 2 * p[1], p[2])]
    )
    half = stats.t.ppf(1 - 0.05 / 3 / 2, 4) * stats.sem(differences["a"])
    assert found["a"].difference.half_width == pytest.approx(half)


def test_intervals_agree_with_holm() -> None:
    """Over random families an interval excludes zero exactly where the adjusted p is below 5%."""
    rng = np.random.default_rng(0)
    verdicts = set()
    for _ in range(300):
        family = {str(k): list(rng.normal(rng.uniform(0, 1.5), 1, size=5)) for k in range(4)}
        for comparison in statistics.compare(family).values():
            assert comparison.p_value is not None
            assert comparison.distinguishable == (comparison.p_value < 0.05)
            verdicts.add(comparison.distinguishable)
    assert verdicts == {True, False}


@pytest.mark.parametrize("differences", [[1.0], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_no_test_without_spread(differences: list[float]) -> None:
    """One common seed, or differences that do not vary, give neither p-value nor interval."""
    comparison = statistics.compare({"x": differences})["x"]
    assert comparison.p_value is None
    assert comparison.difference.low is None
    assert not comparison.distinguishable


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_the_power_tables(effect: float, seeds: int) -> None:
    """Cohen's standard effects at 0.05 and a power of 0.8, as G*Power and statsmodels give them."""
    spread = np.array([-1.0, 1.0, -1.0, 1.0])
    differences = spread / spread.std(ddof=1) + effect
    assert statistics.seeds_needed(differences.tolist(), level=0.05) == seeds


def test_seeds_needed_have_the_power_promised() -> None:
    """Four fifths of the simulated studies with so many seeds see the difference; with one seed
    fewer no more than that.
    """
    rng = np.random.default_rng(0)
    needed = statistics.seeds_needed([0.0, 2.0], level=0.05)  # an effect of one over root two
    assert needed is not None
    for seeds, low, high in ((needed, 0.79, 0.85), (needed - 2, 0.7, 0.8)):
        studies = rng.normal(1.0, 2**0.5, (20_000, seeds))
        seen = stats.ttest_1samp(studies, 0.0, axis=1).pvalue < 0.05
        assert low < seen.mean() < high


def test_no_difference_needs_no_number_of_seeds() -> None:
    """A difference of zero would not be seen with a thousand seeds."""
    assert statistics.seeds_needed([-1.0, 1.0], level=0.05) is None
