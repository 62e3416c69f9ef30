"""Repeated looks at a comparison while seeds come in, with a fixed share of wrong verdicts.

Testing at 5 % after each new seed calls equal strategies different in far more than 5 % of studies.
Here the looks are fixed beforehand, at numbers of common seeds that grow by half, and the 5 % is
divided equally among all looks at all pairs (alpha spending with Bonferroni's inequality; Lan and
DeMets, Biometrika 70, 1983, spend it more efficiently under assumptions that a handful of seeds
does not meet). Each look is an exact paired t test of the first seeds. So a wrong verdict occurs in
at most 5 % of studies, however the next pair and the end of the study are chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from experiments.reporting.statistics import CONFIDENCE, Estimate, mean_interval, paired_p

FIRST_LOOK = 3
GROWTH = 1.5


@dataclass(frozen=True)
class Plan:
    """Plan of a study, fixed before its first seed: the looks at each pair, in common seeds."""

    num_pairs: int
    most_seeds: int

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of seeds at which a pair is tested, ascending; the last is `most_seeds`."""
        found, look = [], float(FIRST_LOOK)
        while round(look) < self.most_seeds:
            found.append(round(look))
            look = max(look * GROWTH, look + 1)
        return (*found, self.most_seeds)

    @property
    def level(self) -> float:
        """The level of each test."""
        return (1 - CONFIDENCE) / (self.num_pairs * len(self.looks))


@dataclass(frozen=True)
class Standing:
    """State of a pair.

    `settled_at` is the look at which its difference was distinguishable from zero, None if it was
    at none. The estimate is that of this look, or else of all seeds; its interval has the level
    of a look. `openness` is described at `standing`.
    """

    difference: Estimate | None
    settled_at: int | None
    exhausted: bool
    openness: float

    @property
    def is_open(self) -> bool:
        """True if more seeds could still settle the pair."""
        return self.settled_at is None and not self.exhausted


def standing(differences: Sequence[float], plan: Plan) -> Standing:
    """Judge a pair by its differences, in the order of the seeds.

    `openness` is the t statistic as a fraction of the value that would settle the pair. Near 1, a
    little more evidence decides; near 0, the difference is too small to be worth the next seed. It
    is infinite for a pair that has not been tested yet.
    """
    for look in plan.looks:
        if len(differences) < look:
            break
        p_value = paired_p(differences[:look])
        if p_value is not None and p_value < plan.level:
            estimate = mean_interval(differences[:look], confidence=1 - plan.level)
            return Standing(estimate, look, exhausted=False, openness=0.0)
    exhausted = len(differences) >= plan.most_seeds
    if not differences:
        return Standing(None, None, exhausted, np.inf)
    estimate = mean_interval(differences, confidence=1 - plan.level)
    if len(differences) < FIRST_LOOK:
        return Standing(estimate, None, exhausted, np.inf)
    return Standing(estimate, None, exhausted, _fraction(differences, plan.level))


def _fraction(differences: Sequence[float], level: float) -> float:
    p_value = paired_p(differences)
    if p_value is None:
        return 0.0
    degrees = len(differences) - 1
    statistic = special.stdtrit(degrees, 1 - p_value / 2)
    return float(statistic / special.stdtrit(degrees, 1 - level / 2))


def most_open(standings: Mapping[tuple[str, str], Standing]) -> tuple[str, str] | None:
    """Return the pair to spend the next seed on; None if all are settled or exhausted."""
    candidates = [pair for pair, how in standings.items() if how.is_open]
    return max(candidates, key=lambda pair: standings[pair].openness, default=None)
