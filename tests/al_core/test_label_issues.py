"""Confident learning: labels that look wrong."""

from __future__ import annotations

import numpy as np
import pytest

from al_core.label_issues import label_issues


def test_thresholds_are_the_mean_confidence_of_each_class() -> None:
    """A case by hand: a class of low confidence is suggested where it is surer than usual."""
    probs = [
        [0.9, 0.1, 0.0],  # class 0, threshold (0.9 + 0.7 + 0.05) / 3 = 0.55
        [0.7, 0.3, 0.0],
        [0.05, 0.45, 0.5],  # suspicious: class 2 is at its threshold, and so is class 1
        [0.5, 0.4, 0.1],  # class 1, threshold 0.4; class 0 is more probable but not sure
        [0.6, 0.4, 0.0],  # suspicious: class 0 is sure, and surer than class 1
        [0.2, 0.3, 0.5],  # class 2, threshold 0.5
    ]
    found = label_issues(probs, [0, 0, 0, 1, 1, 2])
    assert found.rows.tolist() == [2, 4]
    assert found.suggested.tolist() == [2, 0]
    np.testing.assert_allclose(found.margins, [-0.45, -0.2])


def test_flipped_labels_are_found() -> None:
    """Most of 30 labels flipped among 600 that a good model knows, and hardly any other."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 600)
    logits = rng.normal(0, 1, (600, 5))
    logits[np.arange(600), truth] += 4
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = truth.copy()
    flipped = rng.choice(600, 30, replace=False)
    labels[flipped] = (labels[flipped] + rng.integers(1, 5, 30)) % 5
    found = label_issues(probs, labels)
    hits = np.isin(found.rows, flipped)
    assert hits.sum() >= 18  # the others are not sure enough
    assert hits.mean() > 0.9
    assert hits[:15].all()  # the most suspicious come first
    right = found.suggested[hits] == truth[found.rows[hits]]
    assert right.mean() > 0.9
    assert (np.diff(found.margins) >= 0).all()


def test_clean_or_missing_labels_give_none() -> None:
    """A sure and right model suspects nothing; a class without samples is never suggested."""
    assert label_issues(np.eye(3)[[0, 1, 2]], [0, 1, 2]).rows.size == 0
    assert label_issues(np.zeros((0, 3)), np.zeros(0, int)).rows.size == 0
    assert label_issues([[0.1, 0.9], [0.2, 0.8]], [0, 0]).rows.size == 0


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
