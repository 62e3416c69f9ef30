"""Comparisons of many strategies at once: pairwise penalties, mean ranks, performance profiles.

The pairwise penalty matrix is that of Ash et al., "Deep Batch Active Learning by Diverse, Uncertain
Gradient Lower Bounds" (ICLR 2020, section 4); mean ranks with Nemenyi's critical difference follow
Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 7, 2006); profiles
follow Dolan and More, "Benchmarking optimization software with performance profiles" (Mathematical
Programming 91, 2002).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.reporting.statistics import CONFIDENCE, FEWEST_SEEDS

Values = Mapping[str, Mapping[int, NDArray[np.float64]]]
"""Strategy and seed to the metric cycle by cycle, the same cycles for all; larger is better."""


@dataclass(frozen=True)
class Penalties:
    """Pairwise penalties, uncorrected as published.

    `cells[a][b]` is the share of cycles in which a was significantly better than b; `columns[b]` is
    the mean of column b, how often b was beaten.
    """

    labels: tuple[str, ...]
    cells: NDArray[np.float64]
    columns: NDArray[np.float64]
    num_cycles: int


@dataclass(frozen=True)
class Ranks:
    """Mean ranks over the seeds, 1 the best.

    `p_value` is that of Friedman's test of no difference at all. Strategies of a clique differ by
    less than the critical difference.
    """

    mean_ranks: Mapping[str, float]  # the best first
    num_blocks: int
    p_value: float
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]

    def letters(self, label: str) -> str:
        """Return the letters of the cliques that a strategy is in; empty for none."""
        return " ".join(
            chr(ord("a") + number) for number, clique in enumerate(self.cliques) if label in clique
        )


@dataclass(frozen=True)
class Profile:
    """Share of the problems that each strategy solves with at most `ratios` times the labels of
    the problem's best strategy. A strategy that never reaches the level does not solve it.
    """

    ratios: NDArray[np.float64]
    shares: Mapping[str, NDArray[np.float64]]
    num_problems: int


def penalty_matrix(values: Values) -> Penalties | None:
    """Run paired two-sided t tests at each cycle but the first, where labels are still the same.

    None with fewer than two strategies, FEWEST_SEEDS common seeds or two cycles.
    """
    labels, common = _complete(values)
    if len(labels) < 2 or len(common) < FEWEST_SEEDS:
        return None
    stacked = np.stack([[values[label][seed][1:] for seed in common] for label in labels])
    num_cycles = stacked.shape[-1]
    if not num_cycles:
        return None
    differences = stacked[:, None] - stacked[None, :]  # (a, b, seed, cycle)
    error = differences.std(axis=2, ddof=1) / math.sqrt(len(common))
    threshold = stats.t.ppf(0.5 + CONFIDENCE / 2, len(common) - 1)
    beats = differences.mean(axis=2) > threshold * error
    cells = beats.mean(axis=2)
    return Penalties(tuple(labels), cells, cells.mean(axis=0), num_cycles)


def mean_ranks(areas: Mapping[str, Mapping[int, float]]) -> Ranks | None:
    """Rank the areas (larger is better) over the common seeds, with Friedman's test and Nemenyi's
    critical difference; None for fewer than three strategies or FEWEST_SEEDS common seeds.
    """
    labels, common = _complete(areas)
    k, n = len(labels), len(common)
    if k < 3 or n < FEWEST_SEEDS:
        return None
    table = np.array([[areas[label][seed] for label in labels] for seed in common])
    means = stats.rankdata(-table, axis=1).mean(axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # all tied: no statistic
        p_value = float(stats.friedmanchisquare(*table.T).pvalue)
    critical = _nemenyi(k) * math.sqrt(k * (k + 1) / (6 * n))
    order = np.argsort(means, kind="stable")
    ranks = {labels[i]: float(means[i]) for i in order}
    return Ranks(ranks, n, 1.0 if math.isnan(p_value) else p_value, critical,
                 _cliques(ranks, critical))  # fmt: skip


@cache
def _nemenyi(num_strategies: int) -> float:
    """Return the studentized range with infinite degrees of freedom, over root two (Demsar 2006,
    section 3.2.2).
    """
    return float(stats.studentized_range.ppf(CONFIDENCE, num_strategies, np.inf)) / math.sqrt(2)


def _cliques(ranks: Mapping[str, float], critical: float) -> tuple[tuple[str, ...], ...]:
    """Return maximal sequences of neighbors within the critical difference."""
    labels, found = list(ranks), []
    end = 0
    for start, label in enumerate(labels):
        last = max(i for i, other in enumerate(labels) if ranks[other] - ranks[label] < critical)
        if last > start and last + 1 > end:
            found.append(tuple(labels[start : last + 1]))
        end = max(end, last + 1)
    return tuple(found)


def profile(needed: Mapping[str, Sequence[float]]) -> Profile | None:
    """Return the profile of the labels that each strategy needed for each problem.

    A level that was never reached is inf. None if no problem was solved, or with one strategy.
    """
    if len(needed) < 2:
        return None
    table = np.array(list(needed.values()), dtype=np.float64)
    best = table.min(axis=0, initial=np.inf)
    solved = np.isfinite(best) & (best > 0)
    if not solved.any():
        return None
    ratio = table[:, solved] / best[solved]
    ratios = np.unique(np.concatenate([[1.0], ratio[np.isfinite(ratio)]]))
    shares = {
        label: (row[:, None] <= ratios + 1e-12).mean(axis=0)
        for label, row in zip(needed, ratio, strict=True)
    }
    return Profile(ratios, shares, int(solved.sum()))


def _complete(values: Mapping[str, Mapping[int, object]]) -> tuple[list[str], list[int]]:
    """Return the strategies that have runs, and the seeds that all of these have."""
    labels = [label for label, by_seed in values.items() if by_seed]
    common = set.intersection(*(set(values[label]) for label in labels)) if labels else set()
    return labels, sorted(common)
