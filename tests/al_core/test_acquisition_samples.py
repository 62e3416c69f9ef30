from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from al_core import Prediction, bald, predictive_entropy, variance, variation_ratio
from al_core.errors import InvalidSetting

FUNCTIONS = [predictive_entropy, bald, variance, variation_ratio]
LOG_2 = math.log(2)


def sampled(samples: Any) -> Prediction:
    """Return a prediction from probabilities (b, m, k, *positions), zeros included."""
    probabilities = torch.as_tensor(samples, dtype=torch.float64)
    return Prediction(probabilities.mean(1).log(), log_prob_samples=probabilities.log())


def plain_entropy(row: np.ndarray) -> float:
    """Return the Shannon entropy in plain Python."""
    return -sum(p * math.log(p) for p in row.tolist() if p > 0)


def by_hand(samples: np.ndarray, function: Callable[..., Tensor]) -> float:
    """Return the closed form of a score of (m, k) probabilities."""
    mean = samples.mean(0)
    if function is variation_ratio:
        votes = np.bincount(samples.argmax(1), minlength=samples.shape[1])
        return float(1 - votes.max() / len(samples))
    if function is variance:
        return float(((samples - mean) ** 2).mean(0).sum())
    expected = np.mean([plain_entropy(row) for row in samples])
    return plain_entropy(mean) - (expected if function is bald else 0)


@pytest.mark.parametrize(
    ("samples", "scores"),
    [
        ([[0.5, 0.5], [0.5, 0.5]], (LOG_2, 0.0, 0.0, 0.0)),  # unsure, and agreed about it
        ([[1.0, 0.0], [0.0, 1.0]], (LOG_2, LOG_2, 0.5, 0.5)),  # sure, and at odds
        ([[1.0, 0.0], [1.0, 0.0]], (0.0, 0.0, 0.0, 0.0)),  # sure, and agreed
    ],
)
def test_doubt_and_disagreement_are_told_apart(
    samples: list[list[float]], scores: tuple[float, float, float, float]
) -> None:
    """BALD and variance are zero where samples agree; BALD is log 2 where two disagree."""
    for function, expected in zip(FUNCTIONS, scores, strict=True):
        np.testing.assert_allclose(function(sampled([samples])), [expected], atol=1e-15)


@pytest.mark.parametrize("function", FUNCTIONS)
@given(
    raw=st.lists(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4), min_size=2, max_size=6)
)
def test_any_samples_agree_with_the_closed_form(
    function: Callable[..., Tensor], raw: list[list[float]]
) -> None:
    """The formula holds for any samples, within the range that is documented."""
    samples = np.array([[p / sum(row) for p in row] for row in raw])
    score = function(sampled(samples[None])).item()
    assert score == pytest.approx(by_hand(samples, function), abs=1e-12)
    upper = {
        predictive_entropy: math.log(4),
        bald: min(math.log(4), math.log(len(samples))),
        variance: 1.0,
        variation_ratio: 1 - 1 / min(4, len(samples)),
    }[function]
    assert 0 <= score <= upper + 1e-12


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(("how", "reduce"), [("mean", np.mean), ("max", np.max), ("sum", np.sum)])
def test_positions_are_scored_one_by_one_and_aggregated(
    function: Callable[..., Tensor], how: str, reduce: Callable[..., np.ndarray]
) -> None:
    """With pixels the score is the mean, maximum or sum over the pixels' own scores."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2, 5, 4, 3, 2, generator=generator, dtype=torch.float64).softmax(2)
    scores = function(sampled(samples), aggregation=how)
    flat = samples.flatten(3).numpy()
    each = [[by_hand(flat[b, :, :, p], function) for p in range(6)] for b in range(2)]
    np.testing.assert_allclose(scores, [reduce(row) for row in each], rtol=1e-10)


def test_agreement_in_float32_is_not_below_zero() -> None:
    """Equal samples have no information, never a negative one by rounding."""
    one = torch.randn(50, 1, 19, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    prediction = Prediction(one[:, 0], log_prob_samples=one.expand(50, 10, 19))
    for function in (bald, variance, variation_ratio):
        scores = function(prediction)
        assert scores.dtype == torch.float32
        assert bool((scores >= 0).all())
        assert bool((scores < 1e-5).all())


@pytest.mark.parametrize("function", FUNCTIONS)
def test_without_samples_they_say_what_is_missing(function: Callable[..., Tensor]) -> None:
    """A prediction without posterior samples raises and names the setting."""
    with pytest.raises(InvalidSetting, match=r"posterior samples.*mc_dropout_passes=10"):
        function(Prediction(torch.zeros(2, 3)))


@pytest.mark.parametrize("function", [bald, variance, variation_ratio])
def test_one_sample_shows_no_spread(function: Callable[..., Tensor]) -> None:
    """A single posterior sample, which would score zero everywhere, raises."""
    with pytest.raises(InvalidSetting, match="at least 2 posterior samples, the prediction has 1"):
        function(sampled([[[0.4, 0.6]]]))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_samples_are_left_alone(function: Callable[..., Tensor]) -> None:
    """Scoring changes nothing in place: several functions may score one prediction."""
    prediction = sampled([[[0.4, 0.6], [0.1, 0.9]]])
    assert prediction.log_prob_samples is not None
    before = prediction.log_prob_samples.clone()
    function(prediction)
    assert torch.equal(prediction.log_prob_samples, before)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_unknown_aggregation_is_refused(function: Callable[..., Tensor]) -> None:
    """A misspelt aggregation raises and names the three."""
    with pytest.raises(InvalidSetting, match="mean, max or sum, got 'median'"):
        function(sampled([[[0.4, 0.6], [0.1, 0.9]]]), aggregation="median")
