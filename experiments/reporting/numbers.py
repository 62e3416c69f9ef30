"""Numbers as the report prints them."""

from __future__ import annotations

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


def change(value: float, metric: str) -> str:
    """Return a difference of a metric with its unit: "+1.90 points", "-0.100 nats"."""
    return f"{signed(value)} {difference_unit(metric)}".rstrip()


def gain(value: float, metric: str) -> str:
    """Return a difference of a metric with its name: "+1.90 points of accuracy"."""
    unit = " of" if difference_unit(metric) else ""
    return f"{change(value, metric)}{unit} {column(metric).title}"


def signed(value: float) -> str:
    """Return a number with its sign and three significant digits."""
    return f"{value:+#.3g}".rstrip(".")


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
