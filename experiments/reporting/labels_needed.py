"""How many labels a strategy needs for what the baseline reaches, and how many that saves.

A level is what the baseline itself has, in the same seed, at some cycle; between two cycles a
curve is taken to be straight. So the comparison is paired by seed, and free of the metric's unit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.reporting.rankings import Values
from experiments.reporting.statistics import Estimate, mean_interval


@dataclass(frozen=True)
class Saving:
    """Labels saved to reach the baseline's level at `num_labeled` labels; over the seeds in which
    the level is reached, of `num_seeds` common ones.
    """

    num_labeled: float
    saved: Estimate | None
    num_seeds: int

    @property
    def num_reached(self) -> int:
        """Seeds in which the level is reached."""
        return 0 if self.saved is None else self.saved.num_seeds


def labels_to_reach(
    num_labeled: Sequence[float] | NDArray[np.float64],
    values: Sequence[float] | NDArray[np.float64],
    level: float,
) -> float:
    """Labels at which the curve first is at `level` or above; inf if it never is."""
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
    """For each strategy but the baseline, the labels saved at each of `places` among the cycles.

    Args:
        values: The metric, larger is better.
        counts: The numbers of labels, of the same shape.
        baseline: Its label.
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
                # the baseline may have been there before, too
                base = labels_to_reach(counts[baseline][seed], values[baseline][seed], level)
                at.append(float(counts[baseline][seed][place]))
                if math.isfinite(own):
                    saved.append(base - own)
            estimate = mean_interval(saved) if saved else None
            found[label].append(Saving(float(np.mean(at)), estimate, len(common)))
    return found


def needed_by_all(values: Values, counts: Values, baseline: str) -> Mapping[str, list[float]]:
    """Labels that each strategy needs for each problem: the level of the baseline in a seed and a
    cycle after the first. Over the seeds that all strategies have.
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
