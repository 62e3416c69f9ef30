"""The law of a learning curve: the gain of more labels, and the labels for a target."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from experiments.reporting.learning_curve import (
    ALPHAS,
    BETAS,
    MAXIMA,
    NOISE,
    NOISE_WEIGHT,
    RATES,
    learning_curve,
    next_gain,
)

LABELS = [100.0 * k for k in range(1, 9)]


def law(n: float, *, rate: float = 0.3, beta: float = 0.6, top: float = 90.0) -> float:
    """A curve of the family, in percent, for queries of 100."""
    return top * (1 - math.exp(-rate * (n / 100) ** beta))


def noisy(seed: int, size: float = 1.0) -> list[float]:
    """Return that curve with normal noise of `size` points."""
    rng = np.random.default_rng(seed)
    return [law(n) + size * rng.normal() for n in LABELS]


def test_weights_are_those_of_bayes_rule() -> None:
    """A law's weight is its likelihood over all laws, computed one by one for some of them."""
    values = noisy(0)
    found = learning_curve(LABELS, values, "accuracy")
    assert found is not None
    rng = np.random.default_rng(1)
    places = [tuple(rng.integers(0, n) for n in found.weights.shape) for _ in range(50)]
    likelihoods = []
    for rate, beta, alpha, top in places:
        squares = 0.0
        for n, value in zip(LABELS, values, strict=True):
            covered = 1 - math.exp(-RATES[rate] * (n / 100 + ALPHAS[alpha]) ** BETAS[beta])
            squares += (value - 100 * MAXIMA[top] * covered) ** 2
        scale = NOISE_WEIGHT * (100 * NOISE) ** 2 + squares
        likelihoods.append(scale ** (-(NOISE_WEIGHT + len(LABELS)) / 2))
    weights = np.array([found.weights[place] for place in places])
    assert weights / weights.max() == pytest.approx(np.array(likelihoods) / max(likelihoods))
    assert found.weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("size", [0.3, 1.0])
def test_intervals_hold_the_truth_in_most_studies(size: float) -> None:
    """Gain and labels of curves of the family lie in their intervals in at least 36 of 40 cases."""
    gains = labels = 0
    for seed in range(40):
        found = learning_curve(LABELS, noisy(seed, size), "accuracy")
        assert found is not None
        gain, needed = found.gain(800, 1200), found.labels_for(law(1200))
        gains += gain.low <= law(1200) - law(800) <= gain.high
        labels += needed.low <= 1200 <= needed.high
    assert min(gains, labels) >= 36


def test_more_noise_widens_the_interval() -> None:
    """Curves that jump say less."""
    widths = []
    for size in (0.1, 3.0):
        found = learning_curve(LABELS, noisy(2, size), "accuracy")
        assert found is not None
        gain = found.gain(800, 900)
        widths.append(gain.high - gain.low)
    assert widths[1] > 1.5 * widths[0]


def test_labels_and_gain_agree() -> None:
    """A target that is reached needs no more labels; one above every maximum needs infinitely many;
    higher targets need more.
    """
    found = learning_curve(LABELS, [law(n) for n in LABELS], "accuracy")
    assert found is not None
    low, high = found.labels_for(law(300)), found.labels_for(law(1600))
    assert low.middle == pytest.approx(300, rel=0.05)
    assert low.low <= low.middle <= low.high < high.middle <= high.high
    assert found.labels_for(100.0).high == math.inf
    assert found.gain(800, 800).high == 0.0


@pytest.mark.parametrize(
    ("labels", "value", "metric"),
    [
        (LABELS[:2], law, "accuracy"),
        (LABELS, lambda n: 100 / n, "test_loss"),
        (LABELS, lambda n: n, "an_unknown_metric"),
        ([100.0, 200.0, 300.0, 300.0], law, "accuracy"),
        ([0.0, 100.0, 200.0, 300.0], law, "accuracy"),
    ],
    ids=["too few cycles", "a loss", "no largest value", "no further labels", "no labels"],
)
def test_nothing_is_said_where_nothing_can_be(
    labels: list[float], value: Callable[[float], float], metric: str
) -> None:
    """Neither of two points nor of a metric without bounds."""
    values = [value(n) for n in labels]
    assert learning_curve(labels, values, metric) is None
    rows = [{"num_labeled": n, metric: v} for n, v in zip(labels, values, strict=True)]
    assert next_gain(rows, metric) == ""


def test_the_next_gain_is_a_sentence() -> None:
    """As many labels as the last cycle had, without the cycles that have no value."""
    rows = [{"num_labeled": n, "accuracy": law(n)} for n in LABELS]
    text = next_gain([*rows[:3], {"num_labeled": 350, "accuracy": None}, *rows[3:]], "accuracy")
    assert text.startswith("100 more labels would bring about 2.")
    assert text.endswith(")")
    assert " points of accuracy (" in text
