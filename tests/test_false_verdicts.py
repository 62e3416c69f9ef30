"""Verdicts of the report and of the sequential comparison on simulated studies of known truth.

The table of docs/statistics.md has more of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.false_verdicts import NOISES, sequential_verdicts, verdicts
from experiments.reporting.sequential import Plan, standing
from experiments.reporting.statistics import paired_p


def at_most(share: float, studies: int) -> int:
    """Return the count that is not exceeded 999 times of 1,000 at a true share of `share`."""
    return int(stats.binom.ppf(0.999, studies, share))


def test_equal_strategies_are_rarely_called_better() -> None:
    """With no true difference, "better" or "worse" is said in at most 5 % of studies."""
    said = list(verdicts(150, NOISES["normal"], seed=3))
    claims = sum(any(word.startswith(("better", "worse")) for word in s.values()) for s in said)
    assert claims <= at_most(0.05, len(said))


def test_a_true_difference_is_found() -> None:
    """A difference of four paired standard deviations is found, and no other is reported."""
    said = list(verdicts(60, NOISES["normal"], gain=4.0, seed=4))
    assert sum(study["a"] == "better" for study in said) >= 50
    wrong = sum(any(study[s] == "better" for s in "bcd") for study in said)
    assert wrong <= at_most(0.05, len(said))


def test_looking_again_and_again_is_paid_for() -> None:
    """Equal strategies are settled in at most 5 % of sequential comparisons, and unequal ones are
    settled the right way round.
    """
    runs = list(sequential_verdicts(150, NOISES["normal"], seed=5))
    wrong = sum(any(mean is not None for mean in settled.values()) for settled, _ in runs)
    assert wrong <= at_most(0.05, len(runs))
    runs = list(sequential_verdicts(40, NOISES["normal"], gain=2.0, seed=6))
    found = [settled["random", "a"] for settled, _ in runs]
    assert sum(mean is not None and mean < 0 for mean in found) >= 35
    assert all(mean is None or mean < 0 for mean in found)
    assert np.median([num_runs for _, num_runs in runs]) < 60


def test_the_same_looks_at_five_per_cent_each_would_deceive() -> None:
    """The simulation does see what the plan guards against: unspent looks exceed 5 % by far."""
    rng = np.random.default_rng(7)
    plan = Plan(num_pairs=1, most_seeds=20)
    naive = paid = 0
    for _ in range(1500):
        differences = rng.normal(size=20).tolist()
        naive += any((paired_p(differences[:look]) or 1) < 0.05 for look in plan.looks)
        paid += standing(differences, plan).settled_at is not None
    assert naive > 0.09 * 1500
    assert paid <= at_most(0.05, 1500)


def test_looks_are_fixed_beforehand() -> None:
    """Looks grow by half up to the most seeds, and their levels sum to 5 % over all pairs."""
    plan = Plan(num_pairs=3, most_seeds=20)
    assert plan.looks == (3, 4, 7, 10, 15, 20)
    assert plan.level * 6 * 3 == pytest.approx(0.05)
    assert Plan(1, 3).looks == (3,)
    assert Plan(1, 4).looks == (3, 4)
    assert standing([1.0, 1.1, 0.9, 1.0], Plan(1, 3)).settled_at == 3
    assert standing([0.0] * 3, Plan(1, 3)).exhausted
    assert standing([1.0, -1.0], Plan(1, 20)).openness == np.inf
