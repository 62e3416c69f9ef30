"""Numbers as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from experiments.metrics.columns import column

if TYPE_CHECKING:  # statistics imports scipy, which pages without statistics do without
    from experiments.reporting.statistics import Estimate

NONE = "\N{EN DASH}"
"""Stands for a number that does not exist."""


def count(value: float) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def decimals_of(values: Sequence[float]) -> int:
    """Return how many decimals a column of numbers is printed with."""
    return 2 if max((abs(value) for value in values), default=0.0) >= 10 else 3


def estimate_text(e: Estimate, decimals: int, *, signed: bool = False) -> str:
    """Return the mean and how far the seeds agree: an interval, or the values of too few seeds."""
    sign = "+" if signed else ""
    mean = f"{e.mean:{sign}.{decimals}f}"
    if interval := e.shown_interval:
        if signed:
            return f"{mean} [{interval[0]:+.{decimals}f}, {interval[1]:+.{decimals}f}]"
        return f"{mean} ± {interval[1] - e.mean:.{decimals}f}"
    if len(e.values) < 2:
        return mean
    return f"{mean} ({', '.join(f'{value:{sign}.{decimals}f}' for value in e.values)})"


def quantity(value: float, metric: str) -> str:
    """Return a value of a metric with its unit and name: "71.2 % accuracy"."""
    found = column(metric)
    unit = f" {found.unit}" if found.unit else ""
    return f"{value:.{1 if abs(value) >= 10 else 3}f}{unit} {found.title}"


def difference_unit(metric: str) -> str:
    """Return the unit of differences of a metric; those of percentages are in points."""
    unit = column(metric).unit
    return "points" if unit == "%" else unit


def change(value: float, metric: str, decimals: int | None = None) -> str:
    """Return a difference of a metric with its unit: "+1.90 points", "-0.100 nats"."""
    return f"{signed(value, decimals)} {difference_unit(metric)}".rstrip()


def gain(value: float, metric: str, decimals: int | None = None) -> str:
    """Return a difference of a metric with its name: "+1.90 points of accuracy"."""
    unit = " of" if difference_unit(metric) else ""
    return f"{change(value, metric, decimals)}{unit} {column(metric).title}"


def area_gain(mean: float, metric: str, interval: tuple[float, float] | None) -> str:
    """Return a difference of areas with its interval, if it has one, to the same decimals:
    "+2.65 points of accuracy over the budget [-0.05, +5.35]".
    """
    if interval is None:
        return f"{gain(mean, metric)} over the budget"
    largest = max(map(abs, (mean, *interval)))
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 2
    low, high = (signed(end, decimals) for end in interval)
    return f"{gain(mean, metric, decimals)} over the budget [{low}, {high}]"


def signed(value: float, decimals: int | None = None) -> str:
    """Return a number with its sign and so many decimals, or three significant digits."""
    return f"{value:+#.3g}".rstrip(".") if decimals is None else f"{value:+.{decimals}f}"


def seconds_text(value: float) -> str:
    """Return a duration in seconds."""
    if value >= 1000:
        return count(value)
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def p_text(p: float) -> str:
    """Return a p-value."""
    return f"{p:.1g}" if p < 0.001 else f"{p:.3f}"


def listed(words: Sequence[str]) -> str:
    """Return words as an enumeration: "a", "a and b", "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
