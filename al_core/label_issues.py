"""Labels that look wrong, by confident learning.

Source: Northcutt, Jiang & Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021 (arXiv 1911.00068): section 3.1 (confident
joint) for the candidates, section 3.2 for the cut at the estimated number of errors.

Differs: the paper estimates the number of errors from the confident joint, in which a confident
mistake of the model counts as a wrong label. A model of 80 % accuracy that is too confident doubts
every eighth correct label by this count. `num_label_errors` gives the estimate that is used here.
Candidates are ranked by self-confidence, the probability of the given label.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

TEMPERATURES = np.geomspace(0.25, 8.0, 21)
"""Divisors of log-probabilities that are tried: 8 corrects a model that is far too confident."""
MAX_ERROR_RATE = 0.5
"""Largest share of wrong labels that is considered; with more, labels teach nothing."""
NUM_ERROR_RATES = 60
SMALLEST_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class LabelIssues:
    """Samples whose label looks wrong, the most suspicious first.

    Attributes:
        rows: (n,) their positions in the given arrays.
        suggested: (n,) the class that each seems to be of.
        self_confidence: (n,) probability of the label, in [0, 1], ascending.
    """

    rows: NDArray[np.int64]
    suggested: NDArray[np.int64]
    self_confidence: NDArray[np.float64]


def label_issues(probs: ArrayLike, labels: ArrayLike) -> LabelIssues:
    """Find samples that a model is sure belong to another class than their label says.

    A class is sure for a sample if its probability is at least the mean probability of the class
    over the samples with that label, so a class of which a model is never sure is held to less than
    one that it knows well. A sample is a candidate if its surest such class and its most probable
    class are not its label. At most `num_label_errors` candidates are returned.

    Args:
        probs: (n, k) probabilities by a model that was not trained on the sample.
        labels: (n,) whole numbers, 0 .. k-1.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    p, given = _checked(probs, labels)
    if not given.size:
        return LabelIssues(given, given, np.zeros(0))
    every = np.arange(given.size)
    own = p[every, given]
    counts = np.bincount(given, minlength=p.shape[1])
    sums = np.bincount(given, weights=own, minlength=p.shape[1])
    # A class without samples has no threshold that could be reached.
    thresholds = np.divide(sums, counts, out=np.full(p.shape[1], np.inf), where=counts > 0)
    sure = np.where(p >= thresholds, p, -1.0)
    surest = sure.argmax(1)
    is_sure = (surest != given) & (sure[every, surest] >= 0)
    rows = np.flatnonzero(is_sure & (p.argmax(1) != given)).astype(np.int64)
    rows = rows[np.argsort(own[rows], kind="stable")][: num_label_errors(p, given)]
    return LabelIssues(rows, surest[rows].astype(np.int64), own[rows])


def num_label_errors(probs: ArrayLike, labels: ArrayLike) -> int:
    """Estimate how many labels are wrong, apart from the mistakes of the model.

    A model errs where it is unsure, once its confidence is corrected by a temperature. A wrong
    label contradicts it also where it is sure. Temperature and share of wrong labels are therefore
    estimated together, as the maximum of the likelihood of the labels: with the share e and the
    corrected probability q of the label, its likelihood is (1 - e) q + e (1 - q) / (k - 1).
    A wrong label is assumed to be of any other class with equal probability.

    Source of the temperature: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.

    Args:
        probs: (n, k) probabilities by a model that was not trained on the sample.
        labels: (n,) whole numbers, 0 .. k-1.

    Returns:
        A number from 0 to n / 2.

    Raises:
        ValueError: Shapes do not fit, a label is out of range, or a probability is not finite.
    """
    p, given = _checked(probs, labels)
    size, num_classes = p.shape
    if not size or num_classes < 2:
        return 0
    logs = np.log(np.clip(p, SMALLEST_PROBABILITY, None))
    some = np.geomspace(0.5 / size, MAX_ERROR_RATE, NUM_ERROR_RATES)
    rates = np.concatenate([[0.0], some])[:, None]
    best, found = -np.inf, 0.0
    for temperature in TEMPERATURES:
        corrected = np.exp(logs / temperature)
        own = corrected[np.arange(size), given] / corrected.sum(1)
        likelihood = (1 - rates) * own + rates * (1 - own) / (num_classes - 1)
        totals = np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)).sum(1)
        if totals.max() > best:
            best, found = totals.max(), float(rates[totals.argmax(), 0])
    return round(found * given.size)


def _checked(probs: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return both as arrays, or raise `ValueError`."""
    p, given = np.asarray(probs, np.float64), np.asarray(labels)
    if p.ndim != 2 or given.shape != p.shape[:1]:
        raise ValueError(f"probs must be (n, k) and labels (n,), got {p.shape} and {given.shape}")
    if not np.isfinite(p).all():
        raise ValueError("probabilities must be finite")
    if given.size and not (
        np.issubdtype(given.dtype, np.integer) and 0 <= given.min() <= given.max() < p.shape[1]
    ):
        raise ValueError(f"labels must be whole numbers from 0 to {p.shape[1] - 1}")
    return p, given.astype(np.int64)
