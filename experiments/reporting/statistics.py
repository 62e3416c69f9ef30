"""The report's statistics: Student t intervals over seeds, the area under the budget curve, paired
comparisons under Holm's correction (Holm 1979, Scand. J. Statist. 6), and the seeds that it would
take to see a difference.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import special  # scipy.stats takes a second to import

CONFIDENCE = 0.95
POWER = 0.8  # the usual chance of seeing a difference that is there (Cohen 1988)
MOST_SEEDS = 1000

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its interval; one seed has no interval."""

    mean: float
    low: float | None
    high: float | None
    num_seeds: int

    @property
    def half_width(self) -> float | None:
        """Of the interval: what is written after "±"."""
        return None if self.high is None else self.high - self.mean


@dataclass(frozen=True)
class Comparison:
    """Paired differences to the baseline. The interval excludes zero exactly where Holm's
    procedure rejects; `p_value` is Holm's adjusted one. Both are None where no test is possible:
    fewer than two common seeds, or differences that do not vary over the seeds.

    `seeds_needed` is how many common seeds would show a difference like this one with a chance of
    POWER, at the level at which it was tested; None beyond MOST_SEEDS or where there is no test.
    """

    difference: Estimate
    p_value: float | None
    seeds_needed: int | None = None

    @property
    def distinguishable(self) -> bool:
        """Whether the interval leaves out zero."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and not low <= 0 <= high


def mean_interval(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and Student t interval of independent `values`; at least one value."""
    mean, error = _mean_and_error(values)
    if error is None:
        return Estimate(mean, None, None, len(values))
    half = float(special.stdtrit(len(values) - 1, 0.5 + confidence / 2)) * error
    return Estimate(mean, mean - half, mean + half, len(values))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    # In plain Python: there are a handful of values, and numpy takes thirty times as long for them.
    n = len(values)
    if n == 0:
        raise ValueError("a mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def area_under_budget(num_labeled: Sequence[float], values: Sequence[float]) -> float | None:
    """Mean of the metric over the budget range by the trapezoid rule, in units of the metric.

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
    """Two-sided paired t tests of one family, Holm-corrected over its testable members.

    `differences` maps a name to its differences to the baseline, one for each common seed (at
    least one). In order of p-values the i-th of m is tested at (1 - confidence) / (m - i), and
    after the first that is not rejected none is: those keep that one's level, so that interval
    and verdict always agree.
    """
    p_values = {name: p for name, d in differences.items() if (p := paired_p(d)) is not None}
    levels, adjusted = _holm(p_values, alpha=1 - confidence)
    return {
        name: Comparison(
            mean_interval(values, confidence=1 - levels[name])
            if name in levels
            else Estimate(_mean_and_error(values)[0], None, None, len(values)),
            adjusted.get(name),
            seeds_needed(values, level=levels[name]) if name in levels else None,
        )
        for name, values in differences.items()
    }


def seeds_needed(differences: Sequence[float], *, level: float) -> int | None:
    """Seeds with which a two-sided paired t test at `level` sees such differences in POWER of all
    studies, by the noncentral t distribution; None beyond MOST_SEEDS.

    The effect is taken to be the observed one, which is itself uncertain: an order of magnitude,
    no promise.
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
    """The p-value of the two-sided paired t test; None where no test is possible."""
    mean, error = _mean_and_error(differences)
    rounding = 1e-12 * max(abs(d) for d in differences)
    if error is None or error <= rounding:
        return None
    return 2 * float(special.stdtr(len(differences) - 1, -abs(mean) / error))


def _holm(p_values: Mapping[K, float], *, alpha: float) -> tuple[dict[K, float], dict[K, float]]:
    """Each test's level and adjusted p-value."""
    levels: dict[K, float] = {}
    adjusted: dict[K, float] = {}
    remaining, running, stopped = len(p_values), 0.0, False
    for name in sorted(p_values, key=lambda name: p_values[name]):
        running = max(running, min(1.0, (len(p_values) - len(levels)) * p_values[name]))
        levels[name], adjusted[name] = alpha / remaining, running
        stopped = stopped or p_values[name] >= levels[name]
        remaining -= not stopped
    return levels, adjusted
