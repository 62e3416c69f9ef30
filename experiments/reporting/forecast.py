"""The gain of more labels, if the learning curve goes on as it has.

Source: Hestness et al., "Deep Learning Scaling is Predictable, Empirically" (arXiv 1712.00409): the
error falls as a power of the number of training samples. The line is fitted by least squares to the
logarithms; the interval of its slope (Student t) gives the interval of the gain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from experiments.metrics.columns import column, larger_is_better
from experiments.reporting.curves import Curve
from experiments.reporting.statistics import CONFIDENCE

FEWEST_CYCLES = 4
"""Fewer points leave a line no or hardly any freedom to be wrong."""


@dataclass(frozen=True)
class Forecast:
    """The gain that more labels would bring, positive for better, in the metric's unit.

    Attributes:
        labels: Number of further labels: as many as the last cycle had.
        gain: The expected gain.
        low: Lower end of its interval.
        high: Upper end.
    """

    labels: float
    gain: float
    low: float
    high: float


def forecast(curve: Curve, metric: str) -> Forecast | None:
    """Extrapolate a learning curve by as many labels as its last cycle added.

    None with fewer than FEWEST_CYCLES cycles, for a metric without a best value, or where the
    error does not fall for certain.
    """
    declared = column(metric)
    best = declared.highest if larger_is_better(metric) else declared.lowest
    if len(curve) < FEWEST_CYCLES or best is None:
        return None
    labels = np.array([point.x for point in curve])
    errors = np.array([abs(best - point.estimate.mean) for point in curve])
    step = float(labels[-1] - labels[-2])
    if errors.min() <= 0 or labels[0] <= 0 or step <= 0:
        return None
    x, y = np.log(labels), np.log(errors)
    spread = x - x.mean()
    slope = float(spread @ y / (spread @ spread))
    residuals = y - y.mean() - slope * spread
    freedom = len(curve) - 2
    error = math.sqrt(float(residuals @ residuals) / freedom / float(spread @ spread))
    half = float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2)) * error
    fitted = math.exp(float(y.mean() + slope * spread[-1]))
    ratio = math.log((labels[-1] + step) / labels[-1])

    def gain(exponent: float) -> float:
        return fitted * (1 - math.exp(exponent * ratio))

    if slope + half >= 0:
        return None
    return Forecast(step, gain(slope), gain(slope + half), gain(slope - half))
