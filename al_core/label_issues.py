"""Labels that look wrong, by confident learning.

Source: Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021 (arXiv 1911.00068): sections 3.1 (confident
joint) and 3.2 (off-diagonal entries, ranked by normalized margin).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Samples whose label looks wrong, the most suspicious first.

    Attributes:
        rows: (n,) their positions in the given arrays.
        suggested: (n,) the class that each seems to be of.
        margins: (n,) probability of the label minus that of the suggested class, in [-1, 1],
            ascending.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    margins: NDArray[np.float64]


def label_issues(probs: ArrayLike, labels: ArrayLike) -> LabelIssues:
    """Find samples that a model is sure belong to another class than their label says.

    A class is sure for a sample if its probability is at least the mean probability of the class
    over the samples with that label, so a class of which a model is never sure is held to less than
    one that it knows well. A sample is suspicious if its surest such class is not its label.

    Args:
        probs: (n, k) probabilities by a model that was not trained on the sample.
        labels: (n,) whole numbers, 0 .. k-1.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    p, given = np.asarray(probs, np.float64), np.asarray(labels)
    if p.ndim != 2 or given.shape != p.shape[:1]:
        raise ValueError(f"probs must be (n, k) and labels (n,), got {p.shape} and {given.shape}")
    if not np.isfinite(p).all():
        raise ValueError("probabilities must be finite")
    if given.size and not (
        np.issubdtype(given.dtype, np.integer) and 0 <= given.min() <= given.max() < p.shape[1]
    ):
        raise ValueError(f"labels must be whole numbers from 0 to {p.shape[1] - 1}")
    given = given.astype(np.int64)
    every = np.arange(given.size)
    own = p[every, given] if given.size else np.zeros(0)
    counts = np.bincount(given, minlength=p.shape[1])
    sums = np.bincount(given, weights=own, minlength=p.shape[1])
    # A class without samples has no threshold that could be reached.
    thresholds = np.divide(sums, counts, out=np.full(p.shape[1], np.inf), where=counts > 0)
    sure = np.where(p >= thresholds, p, -1.0)
    surest = sure.argmax(1) if given.size else given
    rows = np.flatnonzero((surest != given) & (sure[every, surest] >= 0))
    margins = own[rows] - p[rows, surest[rows]]
    order = np.argsort(margins, kind="stable")
    rows = rows[order].astype(np.int64)
    return LabelIssues(rows, surest[rows].astype(np.int64), margins[order])
