"""Confident learning: labels that look wrong."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax

from al_core.label_issues import label_issues, num_label_errors


def simulated(
    *, accuracy: float, noise: float, overconfidence: float, num_classes: int = 3, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return probabilities of a model for 200 images, their labels, and which of these are wrong.

    Without overconfidence (1) the probabilities are those of Gaussian classes, hence calibrated.
    """
    rng = np.random.default_rng(seed)
    truth, every = rng.integers(0, num_classes, 200), np.arange(200)
    drawn, hot = rng.normal(0, 1, (200, num_classes)), np.eye(num_classes)[truth]
    distance = next(
        one
        for one in np.arange(0, 10, 0.05)
        if ((drawn + one * hot).argmax(1) == truth).mean() >= accuracy
    )
    probs = softmax(overconfidence * distance * (drawn + distance * hot), axis=1)
    wrong = np.zeros(200, bool)
    wrong[rng.choice(200, int(200 * noise), replace=False)] = True
    labels = (truth + wrong * rng.integers(1, num_classes, 200)) % num_classes
    assert (labels[every] != truth).sum() == wrong.sum()
    return probs, labels, wrong


def test_thresholds_are_the_mean_confidence_of_each_class() -> None:
    """A case by hand: a class of low confidence is suggested where it is surer than usual."""
    probs = [
        *[[0.98, 0.01, 0.01]] * 10,  # class 0, threshold (10 * 0.98 + 0.02) / 11 = 0.89
        *[[0.01, 0.98, 0.01]] * 10,  # class 1, threshold 0.98
        *[[0.30, 0.00, 0.70]] * 10,  # class 2, threshold (10 * 0.70 + 0.01) / 11 = 0.64
        [0.02, 0.33, 0.65],  # suspicious: class 2 is sure
        [0.80, 0.19, 0.01],  # class 0 is more probable, but not sure
    ]
    found = label_issues(probs, [0] * 10 + [1] * 10 + [2] * 10 + [0, 2])
    assert found.rows.tolist() == [30]
    assert found.suggested.tolist() == [2]
    np.testing.assert_allclose(found.self_confidence, [0.02])


@pytest.mark.parametrize("num_classes", [3, 10])
@pytest.mark.parametrize("overconfidence", [1.0, 3.0])
def test_clean_labels_are_hardly_doubted(num_classes: int, overconfidence: float) -> None:
    """A model that errs on 20 % of 200 images doubts 1 % of the correct labels at most, by mean."""
    listed = []
    for seed in range(20):
        probs, labels, _ = simulated(
            accuracy=0.8, noise=0, overconfidence=overconfidence, num_classes=num_classes, seed=seed
        )
        listed.append(label_issues(probs, labels).rows.size)
    assert np.mean(listed) <= 2
    assert max(listed) <= 10


@pytest.mark.parametrize(
    ("accuracy", "overconfidence", "recall", "precision"),
    [(0.95, 1.0, 0.7, 0.8), (0.95, 3.0, 0.7, 0.8), (0.8, 1.0, 0.4, 0.45), (0.8, 3.0, 0.4, 0.45)],
)
def test_planted_errors_are_found(
    accuracy: float, overconfidence: float, recall: float, precision: float
) -> None:
    """Most of 20 wrong labels by a good model, and 40 % of them by one of 80 % accuracy."""
    hits = listed = 0
    for seed in range(20):
        probs, labels, wrong = simulated(
            accuracy=accuracy, noise=0.1, overconfidence=overconfidence, seed=seed
        )
        found = label_issues(probs, labels)
        hits, listed = hits + wrong[found.rows].sum(), listed + found.rows.size
        assert (np.diff(found.self_confidence) >= 0).all()
        assert (found.suggested != labels[found.rows]).all()
    assert hits / (20 * 20) >= recall
    assert hits / listed >= precision


def test_the_number_of_errors_is_that_of_the_noise() -> None:
    """Confidence that is too high by a factor does not raise the estimate."""
    for noise in (0.0, 0.1, 0.2):
        for overconfidence in (1.0, 3.0):
            estimates = [
                num_label_errors(*simulated(
                    accuracy=0.9, noise=noise, overconfidence=overconfidence, seed=seed
                )[:2])
                for seed in range(10)
            ]  # fmt: skip
            assert abs(np.mean(estimates) - 200 * noise) < 6


def test_clean_or_missing_labels_give_none() -> None:
    """A sure and right model suspects nothing; a class without samples is never suggested."""
    assert label_issues(np.eye(3)[[0, 1, 2]], [0, 1, 2]).rows.size == 0
    assert label_issues(np.zeros((0, 3)), np.zeros(0, int)).rows.size == 0
    assert label_issues([[0.1, 0.9], [0.2, 0.8]], [0, 0]).rows.size == 0
    assert num_label_errors([[1.0], [1.0]], [0, 0]) == 0


@pytest.mark.parametrize(
    ("probs", "labels", "said"),
    [
        ([[1.0, 0.0]], [0, 1], r"got \(1, 2\) and \(2,\)"),
        ([[1.0, 0.0]], [2], "from 0 to 1"),
        ([[1.0, 0.0]], [0.5], "whole numbers"),
        ([[np.nan, 0.0]], [0], "finite"),
    ],
)
def test_wrong_arguments_are_refused(probs: object, labels: object, said: str) -> None:
    """With what is wrong and what is permitted."""
    with pytest.raises(ValueError, match=said):
        label_issues(probs, labels)  # type: ignore[arg-type]
