"""A law for the learning curve of one run: the gain of more labels, and the labels for a target.

Source: PALM (ICCV 2025) describes the metric at B labels, queried b at a time, by
`A(B) = A_max (1 - (1 - delta)^((B / b + alpha)^beta))`: A_max is reached in the end, delta is what
a query covers of the rest, alpha the head start, and beta how much later queries still cover.

Differs: not one fit of the four parameters, which a few noisy cycles cannot determine, but the
weights of a grid of them (Bayes' rule, even weights before the first cycle). So every result has an
interval, which is as wide as the cycles leave it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.metrics.columns import column
from experiments.reporting.numbers import count, difference_unit

FloatArray = NDArray[np.float64]

FEWEST_CYCLES = 3
"""Two points fit any law."""
CONFIDENCE = 0.95
"""Probability of the intervals."""
RATES = np.geomspace(1e-3, 1, 36)  # -log(1 - delta): a query covers 63 % of the rest at most
BETAS = np.linspace(0.1, 1.5, 15)
ALPHAS = np.array([0.0, 0.25, 0.5, 1.0, 2.0, 4.0])
MAXIMA = np.linspace(0.02, 1.0, 50)  # of the largest value that the metric can have
NOISE, NOISE_WEIGHT = 0.02, 3.0
"""Deviation of a cycle from the law before anything is known of it, as a share of the metric's
range, and how many cycles that guess is worth. With half the deviation intervals were too narrow on
the tuning seeds of docs/stopping.md."""


@dataclass(frozen=True)
class Range:
    """A quantity with its interval.

    Attributes:
        middle: The median.
        low: Lower end of the interval.
        high: Upper end; infinite for labels where the target may be out of reach.
    """

    middle: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The laws that the cycles of a run leave possible.

    Attributes:
        unit: Labels of a query, b.
        top: The largest value that the metric can have.
        weights: (rates, betas, alphas, maxima) probability of each law.
    """

    unit: float
    top: float
    weights: FloatArray

    def gain(self, start: float, end: float) -> Range:
        """Return the gain of the metric between two numbers of labels, without noise."""
        rises = _covered(end, self.unit) - _covered(start, self.unit)
        return self._range(rises[..., None] * MAXIMA * self.top)

    def labels_for(self, target: float) -> Range:
        """Return the number of labels with which the metric reaches a target."""
        share = target / (MAXIMA * self.top)
        needed = np.full(self.weights.shape, np.inf)
        rate, beta, alpha = np.meshgrid(RATES, BETAS, ALPHAS, indexing="ij")
        within = share < 1
        exponent = -np.log1p(-share[within]) / rate[..., None]
        with np.errstate(over="ignore"):
            queries = exponent ** (1 / beta[..., None]) - alpha[..., None]
        needed[..., within] = np.maximum(queries, 0.0) * self.unit
        return self._range(needed)

    def _range(self, values: FloatArray) -> Range:
        order = np.argsort(values, axis=None)
        total = np.cumsum(self.weights.ravel()[order])
        tail = (1 - CONFIDENCE) / 2
        ends = np.searchsorted(total, np.array([0.5, tail, 1 - tail]) * total[-1])
        return Range(*values.ravel()[order[ends]].tolist())


def learning_curve(
    labels: Sequence[float], values: Sequence[float], metric: str, *, noise: float = 0.0
) -> LearningCurve | None:
    """Weigh the laws by the cycles of a run.

    Args:
        labels: (n,) numbers of labels.
        values: (n,) the metric with them.
        metric: Its column.
        noise: Deviation of a value from the law that is known beforehand, in the metric's unit,
            where it is larger than NOISE: that of a small test set.

    Returns:
        The laws; None with fewer than FEWEST_CYCLES cycles, for a metric without a largest value or
        of which less is better, or where no label was added.
    """
    declared = column(metric)
    counts, measured = np.asarray(labels, np.float64), np.asarray(values, np.float64)
    if declared.better != "larger" or declared.highest is None:
        return None
    if counts.size < FEWEST_CYCLES or (np.diff(counts) <= 0).any() or counts[0] <= 0:
        return None
    unit, top = float(np.median(np.diff(counts))), declared.highest
    covered = np.stack([_covered(count, unit) for count in counts], -1)
    maxima = MAXIMA * top
    squares = (
        (measured**2).sum()
        - 2 * (covered @ measured)[..., None] * maxima
        + (covered**2).sum(-1)[..., None] * maxima**2
    )
    before = NOISE_WEIGHT * max(NOISE * top, noise) ** 2
    # The noise is unknown too: integrated out under an inverse-gamma prior, as in Student's t.
    log_weights = -(NOISE_WEIGHT + counts.size) / 2 * np.log(before + np.maximum(squares, 0.0))
    weights = np.exp(log_weights - log_weights.max())
    return LearningCurve(unit, top, weights / weights.sum())


def next_gain(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Return a sentence on the gain of as many labels as the last cycle added; "" if unknown.

    Args:
        rows: The cycles of a run, as in `cycles.csv`.
        metric: The metric that the run is judged by.
    """
    known = [row for row in rows if isinstance(row.get(metric), int | float)]
    labels = [float(row["num_labeled"]) for row in known]
    law = learning_curve(labels, [float(row[metric]) for row in known], metric)
    if law is None:
        return ""
    more = labels[-1] - labels[-2]
    gain, unit = law.gain(labels[-1], labels[-1] + more), difference_unit(metric)
    return (
        f"{count(more)} more labels would bring about {gain.middle:.1f} {unit} of "
        f"{column(metric).title} ({gain.low:.1f} to {gain.high:.1f})"
    )


def _covered(labels: float, unit: float) -> FloatArray:
    """Return the share of A_max with this many labels: (rates, betas, alphas)."""
    rate, beta, alpha = np.meshgrid(RATES, BETAS, ALPHAS, indexing="ij")
    covered: FloatArray = -np.expm1(-rate * (labels / unit + alpha) ** beta)
    return covered
