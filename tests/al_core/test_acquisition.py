from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from al_core import (
    Prediction,
    entropy,
    least_confidence,
    margin,
    multi_peak_entropy,
    predicted_loss,
)
from al_core.errors import InvalidSetting

FROM_PROBABILITIES = [entropy, margin, least_confidence]
ROWS = [[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3], [1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]


def predicted(rows: list[list[float]]) -> Prediction:
    """Return a prediction from probabilities, zeros included."""
    return Prediction(torch.tensor(rows, dtype=torch.float64).log())


def by_hand(row: list[float], function: Callable[..., Tensor]) -> float:
    """Return the closed form of a score in plain Python."""
    first, second = sorted(row, reverse=True)[:2]
    if function is entropy:
        return -sum(p * math.log(p) for p in row if p > 0)
    return 1 - (first - second) if function is margin else 1 - first


@pytest.mark.parametrize("function", FROM_PROBABILITIES)
def test_scores_equal_their_closed_forms(function: Callable[..., Tensor]) -> None:
    """Each score is its textbook formula; a log-probability of -inf is a probability of zero."""
    expected = [by_hand(row, function) for row in ROWS]
    scores = function(predicted(ROWS))
    assert scores.shape == (4,)
    np.testing.assert_allclose(scores, expected, atol=1e-15)


@pytest.mark.parametrize("function", FROM_PROBABILITIES)
@given(
    rows=st.lists(st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4), min_size=1, max_size=5)
)
def test_any_distribution_agrees_with_the_closed_form(
    function: Callable[..., Tensor], rows: list[list[float]]
) -> None:
    """The formula holds for any distribution, within the range that is documented."""
    rows = [[p / sum(row) for p in row] for row in rows]
    scores = function(predicted(rows))
    np.testing.assert_allclose(scores, [by_hand(row, function) for row in rows], atol=1e-12)
    upper = {entropy: math.log(4), margin: 1.0, least_confidence: 0.75}[function]
    assert bool((scores >= 0).all())
    assert bool((scores <= upper + 1e-12).all())


@pytest.mark.parametrize("function", FROM_PROBABILITIES)
@pytest.mark.parametrize("k", [2, 3, 10])
def test_confident_samples_keep_their_order_in_float32(
    function: Callable[..., Tensor], k: int
) -> None:
    """A more confident sample scores lower even where probabilities round to 1 in float32."""
    gaps = torch.arange(8.0, 60.0, 0.05)
    logits = torch.zeros(len(gaps), k)
    logits[:, 1:] = -torch.arange(float(k - 1))
    logits[:, 0] = gaps
    log_probs = logits.log_softmax(1)
    assert (log_probs[:, 0] == 0).any()  # the case exists
    scores = function(Prediction(log_probs))
    assert scores.dtype == torch.float32
    assert bool((scores[1:] < scores[:-1]).all())
    np.testing.assert_allclose(
        scores,
        function(Prediction(logits.double().log_softmax(1))),
        rtol=0.1 if function is entropy else 1e-4,
    )


@pytest.mark.parametrize("function", FROM_PROBABILITIES)
@pytest.mark.parametrize(("how", "reduce"), [("mean", np.mean), ("max", np.max), ("sum", np.sum)])
@pytest.mark.parametrize("positions", [(7,), (3, 5)])
def test_positions_are_scored_one_by_one_and_aggregated(
    function: Callable[..., Tensor],
    how: str,
    reduce: Callable[..., np.ndarray],
    positions: tuple[int, ...],
) -> None:
    """With boxes or pixels the score is the mean, maximum or sum over the positions' own scores."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, *positions, generator=generator, dtype=torch.float64)
    log_probs = logits.log_softmax(1)
    scores = function(Prediction(log_probs), aggregation=how)
    flat = log_probs.flatten(2)
    each = [
        [function(Prediction(flat[b : b + 1, :, p])).item() for p in range(flat.shape[2])]
        for b in range(2)
    ]
    np.testing.assert_allclose(scores, [reduce(row) for row in each], rtol=1e-12)


def test_mean_is_the_default_aggregation() -> None:
    """Positions are averaged by default, so that scores do not grow with image size."""
    log_probs = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0)).log_softmax(1)
    for function in FROM_PROBABILITIES:
        torch.testing.assert_close(
            function(Prediction(log_probs)), function(Prediction(log_probs), aggregation="mean")
        )


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_unknown_aggregation_is_refused(shape: tuple[int, ...]) -> None:
    """A misspelt aggregation raises and names the three, even with nothing to aggregate."""
    with pytest.raises(InvalidSetting, match="mean, max or sum, got 'median'"):
        entropy(Prediction(torch.zeros(shape).log_softmax(1)), aggregation="median")


def test_alternatives_come_before_classes_that_are_alike() -> None:
    """Where several classes are one answer, margins are those of the answers; entropy is not."""
    classes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.3, 0.3, 0.2, 0.2]]).log()
    answers = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log()
    both = Prediction(classes, alternatives=answers)
    torch.testing.assert_close(margin(both), margin(Prediction(answers)))
    torch.testing.assert_close(least_confidence(both), least_confidence(Prediction(answers)))
    torch.testing.assert_close(multi_peak_entropy(both), entropy(Prediction(answers)))
    torch.testing.assert_close(entropy(both), entropy(Prediction(classes)))
    torch.testing.assert_close(multi_peak_entropy(Prediction(classes)), entropy(both))


def test_one_class_has_no_margin_and_no_uncertainty() -> None:
    """With one class, margin raises and the other two scores are zero."""
    prediction = Prediction(torch.zeros(3, 1))
    with pytest.raises(InvalidSetting, match="at least two classes"):
        margin(prediction)
    assert entropy(prediction).tolist() == least_confidence(prediction).tolist() == [0.0] * 3


def test_predicted_loss_is_passed_on_or_asked_for() -> None:
    """The predicted loss is the score; a model without it raises with advice."""
    loss = torch.tensor([0.5, -1.0])
    assert predicted_loss(Prediction(torch.zeros(2, 3), predicted_loss=loss)) is loss
    with pytest.raises(InvalidSetting, match="wrap it in ActiveLearning"):
        predicted_loss(Prediction(torch.zeros(2, 3)))


@pytest.mark.parametrize("function", FROM_PROBABILITIES)
def test_the_prediction_is_left_alone(function: Callable[..., Tensor]) -> None:
    """Scoring changes nothing in place: several functions may score one prediction."""
    prediction = predicted(ROWS)
    before = prediction.log_probs.clone()
    function(prediction)
    assert torch.equal(prediction.log_probs, before)
