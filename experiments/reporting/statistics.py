"""Statistics of the report: Student t intervals over seeds, the area under the budget curve, paired
comparisons under Holm's correction (Holm 1979, Scand. J. Statist. 6), and the number of seeds that
a difference of a given size takes to be seen.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CONFIDENCE = 0.95
POWER = 0.8  # the usual chance of seeing a difference that is there (Cohen 1988)
MOST_SEEDS = 1000
FEWEST_SEEDS = 3
"""Fewest seeds whose interval is shown or tested. Two seeds have one too, 12.7 standard errors to
either side, but it says less than the two values."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; `low` and `high` are None for a single seed.

    `values` are those of the seeds, in their order.
    """

    mean: float
    low: float | None
    high: float | None
    num_seeds: int
    values: tuple[float, ...] = field(default=(), compare=False)

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval."""
        return None if self.high is None else self.high - self.mean

    @property
    def shown_interval(self) -> tuple[float, float] | None:
        """The interval if there are seeds enough to show it, else None."""
        if self.low is None or self.high is None or self.num_seeds < FEWEST_SEEDS:
            return None
        return self.low, self.high


@dataclass(frozen=True)
class Comparison:
    """Paired differences of two strategies, over the seeds that both have.

    The interval excludes zero exactly where Holm's procedure rejects, and `p_value` is the one that
    Holm adjusted. Both are None where no test is possible: fewer than two common seeds, or
    differences that do not vary over the seeds.

    `seeds_needed` is the number of common seeds with which a test at the same level would see a
    difference of this size in POWER of all studies; None beyond MOST_SEEDS or without a test.
    """

    difference: Estimate
    p_value: float | None
    seeds_needed: int | None = None

    @property
    def distinguishable(self) -> bool:
        """True if the interval excludes zero."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean and Student t interval of independent `values`; at least one value."""
    mean, error = _mean_and_error(values)
    if error is None:
        return Estimate(mean, None, None, len(values), tuple(values))
    half = float(special.stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return Estimate(mean, mean - half, mean + half, len(values), tuple(values))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    # In plain Python: numpy takes thirty times as long for a handful of values.
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def area_under_budget(num_labeled: Sequence[float], values: Sequence[float]) -> float | None:
    """Return the mean of the metric over the budget range (trapezoid rule), in the metric's unit.

    None where the range is empty: fewer than two points, or all at one number of labels.
    """
    if len(values) < 2 or num_labeled[-1] <= num_labeled[0]:
        return None
    y = np.asarray(values, dtype=np.float64)
    total = float(np.diff(num_labeled) @ (y[1:] + y[:-1]) / 2)
    return total / (num_labeled[-1] - num_labeled[0])


def compare(
    differences: Mapping[K, Sequence[float]], *, confidence: float = CONFIDENCE
) -> dict[K, Comparison]:
    """Run two-sided paired t tests of one family, Holm-corrected over its testable members.

    `differences` maps a name to its paired differences, one for each common seed (at least one).
    In order of p-values the i-th of m (from 0) is tested at (1 - confidence) / (m - i). After the
    first that is not rejected, no other is; the rest keep the level of that one, so that intervals
    and verdicts always agree.
    """
    p_values = {name: p for name, d in differences.items() if (p := paired_p(d)) is not None}
    levels, adjusted = _holm(p_values, alpha=1 - confidence)
    return {
        name: Comparison(
            mean_interval(values, confidence=1 - levels[name])
            if name in levels
            else Estimate(_mean_and_error(values)[0], None, None, len(values), tuple(values)),
            adjusted.get(name),
            seeds_needed(values, level=levels[name]) if name in levels else None,
        )
        for name, values in differences.items()
    }


def seeds_needed(differences: Sequence[float], *, level: float) -> int | None:
    """Return the number of seeds with which a two-sided paired t test at `level` sees such
    differences in POWER of all studies (noncentral t distribution); None beyond MOST_SEEDS.

    The effect is taken to be the observed one. That is itself uncertain, so the number is an order
    of magnitude and no promise.
    """
    mean, error = _mean_and_error(differences)
    if not error:
        return None
    effect = abs(mean) / (error * np.sqrt(len(differences)))

    def power(n: int) -> float:
        threshold = special.stdtrit(n - 1, 1 - level / 2)
        return 1 - float(special.nctdtr(n - 1, effect * n**0.5, threshold))

    seeds = range(2, MOST_SEEDS + 1)
    place = bisect_left(seeds, POWER, key=power)  # more seeds, more power
    return seeds[place] if place < len(seeds) else None


def paired_p(differences: Sequence[float]) -> float | None:
    """Return the p-value of the two-sided paired t test; None where no test is possible."""
    mean, error = _mean_and_error(differences)
    rounding = 1e-12 * max(abs(d) for d in differences)
    if error is None or error <= rounding:
        return None
    return 2 * float(special.stdtr(len(differences) - 1, -abs(mean) / error))


def _holm(p_values: Mapping[K, float], *, alpha: float) -> tuple[dict[K, float], dict[K, float]]:
    """Return level and adjusted p-value of each test."""
    levels: dict[K, float] = {}
    adjusted: dict[K, float] = {}
    remaining, running, stopped = len(p_values), 0.0, False
    for name in sorted(p_values, key=lambda name: p_values[name]):
        running = max(running, min(1.0, (len(p_values) - len(levels)) * p_values[name]))
        levels[name], adjusted[name] = alpha / remaining, running
        stopped = stopped or p_values[name] >= levels[name]
        remaining -= not stopped
    return levels, adjusted
