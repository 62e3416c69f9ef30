"""Labels that a strategy needs to reach what the baseline reaches, and labels that this saves.

A level is the value that the baseline itself has at some cycle, in the same seed. Between two
cycles a curve is taken to be straight. The comparison is therefore paired by seed and independent
of the metric's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from experiments.reporting.rankings import Values
from experiments.reporting.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Saving:
    """Labels saved to reach the level that the baseline has at `num_labeled` labels.

    `saved` is the mean over the seeds that reach the level, None if none does. It has an interval
    only if all `num_seeds` common seeds reach it: the seeds that do not would save less than any
    other, by an unknown number.
    """

    num_labeled: float
    saved: Estimate | None
    num_seeds: int

    @property
    def num_reached(self) -> int:
        """Number of seeds that reach the level."""
        return 0 if self.saved is None else self.saved.num_seeds

    @property
    def by_all(self) -> bool:
        """True if every common seed reaches the level."""
        return self.num_reached == self.num_seeds


def labels_to_reach(
    num_labeled: Sequence[float] | NDArray[np.float64],
    values: Sequence[float] | NDArray[np.float64],
    level: float,
) -> float:
    """Return the labels at which the curve first is at `level` or above; inf if it never is."""
    for place, value in enumerate(values):
        if value >= level:
            if place == 0:
                return float(num_labeled[0])
            before = values[place - 1]
            share = (level - before) / (value - before)
            return float(
                num_labeled[place - 1] + share * (num_labeled[place] - num_labeled[place - 1])
            )
    return math.inf


def savings(
    values: Values, counts: Values, baseline: str, places: Sequence[int]
) -> dict[str, list[Saving]]:
    """Return the labels saved by each strategy but the baseline, at each of `places`.

    Args:
        values: The metric, larger is better.
        counts: The numbers of labels, of the same shape.
        baseline: Label of the baseline.
        places: Positions among the cycles.
    """
    found: dict[str, list[Saving]] = {}
    for label, by_seed in values.items():
        common = [seed for seed in by_seed if seed in values.get(baseline, {})]
        if label == baseline or not common:
            continue
        found[label] = []
        for place in places:
            saved, at = [], []
            for seed in common:
                level = float(values[baseline][seed][place])
                own = labels_to_reach(counts[label][seed], by_seed[seed], level)
                # Not simply the labels at `place`: the baseline may have been there before.
                base = labels_to_reach(counts[baseline][seed], values[baseline][seed], level)
                at.append(float(counts[baseline][seed][place]))
                if math.isfinite(own):
                    saved.append(base - own)
            estimate = mean_interval(saved) if saved else None
            if estimate and len(saved) < len(common):
                estimate = replace(estimate, low=None, high=None)
            found[label].append(Saving(float(np.mean(at)), estimate, len(common)))
    return found


def needed_by_all(values: Values, counts: Values, baseline: str) -> Mapping[str, list[float]]:
    """Return the labels that each strategy needs for each problem.

    A problem is the level of the baseline in one seed at one cycle after the first, for the seeds
    that all strategies have.
    """
    labels = [label for label in values if values[label]]
    if baseline not in labels:
        return {}
    common = sorted(set.intersection(*(set(values[label]) for label in labels)))
    return {
        label: [
            labels_to_reach(counts[label][seed], values[label][seed], float(level))
            for seed in common
            for level in values[baseline][seed][1:]
        ]
        for label in labels
    }
