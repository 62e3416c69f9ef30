"""Learning curves: a quantity cycle by cycle, with its mean and interval over the seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiments.reporting.runs import Run
from experiments.reporting.statistics import Estimate, mean_interval

Series = tuple[Mapping[int, float], Mapping[int, float]]
"""Values and positions of one seed, both by cycle."""


@dataclass(frozen=True)
class Point:
    """One cycle of one strategy.

    Attributes:
        cycle: Its number.
        x: The position, averaged over the seeds that have the cycle: labeled images, or a cost.
        estimate: The value over the same seeds.
        seeds: Position and value of each of these seeds.
    """

    cycle: int
    x: float
    estimate: Estimate
    seeds: Mapping[int, tuple[float, float]] = field(default_factory=dict)


Curve = tuple[Point, ...]


def curve(runs: Mapping[int, Run], column: str) -> Curve:
    """Return the curve of `column` over the number of labeled images; `runs` are by seed."""
    series = {seed: (run.series(column), run.series("num_labeled")) for seed, run in runs.items()}
    return curve_of(series)


def curve_of(series: Mapping[int, Series]) -> Curve:
    """Return the curve of the series of several seeds, in ascending order of the cycles."""
    points = []
    for cycle in sorted({cycle for values, _ in series.values() for cycle in values}):
        seeds = {
            s: (x[cycle], values[cycle]) for s, (values, x) in series.items() if cycle in values
        }
        mean_x = sum(x for x, _ in seeds.values()) / len(seeds)
        points.append(Point(cycle, mean_x, mean_interval([v for _, v in seeds.values()]), seeds))
    return tuple(points)
