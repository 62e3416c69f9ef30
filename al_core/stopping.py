"""When to stop labeling: stabilizing predictions, measured without a label.

Source: Bloodgood & Vijay-Shanker, "A Method for Stopping Active Learning Based on Stabilizing
Predictions and the Need for User-Adjustable Stopping" (CoNLL 2009): labeling ends when the
predictions of consecutive models for a fixed set of unlabeled samples agree. Agreement is Cohen's
kappa ("A coefficient of agreement for nominal scales", 1960), which leaves out what would agree by
chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from al_core.errors import InvalidSetting

THRESHOLD, WINDOW = 0.99, 3
"""The kappa of the paper, and over how many comparisons of consecutive models it is averaged."""

ROUNDING = 1e-12


def cohen_kappa(first: ArrayLike, second: ArrayLike) -> float:
    """Return the agreement of two series of classes, corrected for chance.

    Args:
        first: (n,) classes, whole numbers of at least 0.
        second: (n,) likewise.

    Returns:
        1 for equal series, 0 for the agreement of independent ones, below 0 for less; NaN if n = 0.

    Raises:
        InvalidSetting: Shapes differ, or a value is no class.
    """
    a, b = np.asarray(first), np.asarray(second)
    if a.ndim != 1 or a.shape != b.shape:
        raise InvalidSetting(f"both series must have the shape (n,), got {a.shape} and {b.shape}")
    if not a.size:
        return math.nan
    for values in (a, b):
        if not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
            raise InvalidSetting("classes must be whole numbers of at least 0")
    num_classes = int(max(a.max(), b.max())) + 1
    shares = [np.bincount(values, minlength=num_classes) / a.size for values in (a, b)]
    agreed, by_chance = float((a == b).mean()), float(shares[0] @ shares[1])
    if agreed == 1.0:  # also of a single class, where chance alone agrees
        return 1.0
    return (agreed - by_chance) / (1.0 - by_chance)


def has_stabilized(
    agreements: Sequence[float | None], *, threshold: float = THRESHOLD, window: int = WINDOW
) -> bool:
    """Return True if the last models agreed so well that labeling may end.

    Args:
        agreements: Kappa of each cycle with the cycle before, the oldest first; None or NaN where
            it was not measured, as in the first cycle.
        threshold: The mean that the last `window` of them must reach.
        window: How many of the last cycles must have been measured.

    Raises:
        InvalidSetting: The threshold is above 1, or the window below 1.
    """
    if not threshold <= 1:
        raise InvalidSetting(f"threshold must be at most 1, got {threshold!r}")
    if window < 1:
        raise InvalidSetting(f"window must be at least 1, got {window!r}")
    last = [math.nan if value is None else value for value in agreements[-window:]]
    # A mean of numbers that all equal the threshold may be rounded to just below it.
    return len(last) == window and float(np.mean(last)) >= threshold - ROUNDING
