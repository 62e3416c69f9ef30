"""Learning curves: a quantity cycle by cycle, its mean and interval over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.reporting.runs import Run
from experiments.reporting.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Point:
    """One cycle of one strategy: the mean over the seeds that have it, at `x`, the mean over the
    same seeds of what the curve is drawn over: the number of labels, or a cost.
    """

    cycle: int
    x: float
    estimate: Estimate


Curve = tuple[Point, ...]


def curve(runs: Sequence[Run], column: str) -> Curve:
    """Mean and interval of `column` over the number of labels."""
    return curve_of([(run.series(column), run.series("num_labeled")) for run in runs])


def curve_of(series: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> Curve:
    """The curve of values over positions; both are given for each seed, by cycle."""
    points = []
    for cycle in sorted({cycle for values, _ in series for cycle in values}):
        have = [(values[cycle], x[cycle]) for values, x in series if cycle in values]
        mean_x = sum(x for _, x in have) / len(have)
        points.append(Point(cycle, mean_x, mean_interval([value for value, _ in have])))
    return tuple(points)
