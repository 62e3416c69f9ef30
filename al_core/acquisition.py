"""Acquisition functions: map a `Prediction` to one score per sample; the larger is queried first.

If a prediction has positions (boxes, pixels), the score is computed at each and aggregated.

Sources of the scores of one prediction:

- entropy: Shannon 1948; Settles 2009 (Active Learning Literature Survey), section 2.1
- margin: Scheffer, Decomain & Wrobel 2001
- least confidence: Lewis & Gale 1994; Culotta & McCallum 2005
- predicted loss: Yoo & Kweon, CVPR 2019 (arXiv 1905.03677)
- multi-peak entropy: Liu & Ferrari, ICCV 2017

Sources of the scores of several posterior samples, which come from Monte-Carlo dropout (Gal &
Ghahramani, ICML 2016) or from an ensemble:

- predictive entropy and BALD: Houlsby et al., arXiv 1112.5745, in the form of Gal, Islam &
  Ghahramani, ICML 2017, section 4
- variation ratio: Freeman 1965, in the form of the same section
- variance: the ranking of pixels in superannotateai/active_learning @aa2b9ae
- output discrepancy: Huang et al., ICCV 2021, between two moments of one training
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from al_core.contracts import Prediction, Requirement
from al_core.errors import InvalidSetting
from al_core.requirements import requires

Aggregation = Literal["mean", "max", "sum"]


def _aggregate(scores: Tensor, how: Aggregation) -> Tensor:
    """Reduce (b, *positions) to (b,)."""
    if how not in ("mean", "max", "sum"):
        raise InvalidSetting(f"aggregation must be mean, max or sum, got {how!r}")
    if scores.ndim == 1:
        return scores
    flat = scores.flatten(1)
    return flat.amax(1) if how == "max" else flat.mean(1) if how == "mean" else flat.sum(1)


def _answers(prediction: Prediction) -> Tensor:
    """Return the log-probabilities of different answers: of the classes, unless some are alike."""
    alternatives = prediction.alternatives
    return prediction.log_probs if alternatives is None else alternatives


def _others(log_probs: Tensor) -> Tensor:
    """Return the probabilities (b, k, *positions) with the most probable class set to zero.

    Their sum is one minus the largest probability. Unlike the difference, it is exact for confident
    samples, whose largest probability rounds to 1 in float32, so they keep their order.
    """
    return log_probs.exp().scatter(1, log_probs.argmax(1, keepdim=True), 0.0)


def entropy(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Shannon entropy of the predicted distribution, in nats, in [0, log k].

    Returns:
        (b,) scores; a probability of zero contributes zero.
    """
    # entr instead of -p * log p, which at p = 0 is 0 * -inf = NaN.
    return _aggregate(torch.special.entr(prediction.log_probs.exp()).sum(1), aggregation)


def multi_peak_entropy(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Shannon entropy over the peaks of heatmaps, in nats.

    Unlike `entropy`, it does not grow with the width of a single peak. Of a prediction without
    heatmaps it is `entropy`.

    Returns:
        (b,) scores; about 0 where every map has one peak.
    """
    return _aggregate(torch.special.entr(_answers(prediction).exp()).sum(1), aggregation)


def margin(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """One minus the gap between the two most probable classes, or peaks of heatmaps, in [0, 1].

    Returns:
        (b,) scores; 1 if the two are equally probable.

    Raises:
        InvalidSetting: The prediction has only one class.
    """
    answers = _answers(prediction)
    if answers.shape[1] < 2:
        raise InvalidSetting("margin needs at least two classes; the prediction has one")
    others = _others(answers)
    return _aggregate(others.sum(1) + others.amax(1), aggregation)


def least_confidence(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """One minus the largest probability of a class, or of a heatmap's peak, in [0, 1 - 1/k].

    Returns:
        (b,) scores.
    """
    return _aggregate(_others(_answers(prediction)).sum(1), aggregation)


@requires(Requirement.PREDICTED_LOSS)
def predicted_loss(prediction: Prediction) -> Tensor:
    """Loss predicted by the loss-prediction module; only the order of the values has a meaning.

    Returns:
        (b,) scores.

    Raises:
        InvalidSetting: The model has no loss-prediction module.
    """
    if prediction.predicted_loss is None:
        raise InvalidSetting(
            "predicted_loss needs a model with a loss-prediction module: "
            "wrap it in ActiveLearning (on the command line loss_prediction.enabled=true)"
        )
    return prediction.predicted_loss


@requires(Requirement.LOG_PROB_SAMPLES)
def predictive_entropy(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Entropy of the mean of the posterior samples, in nats, in [0, log k].

    Returns:
        (b,) scores.

    Raises:
        InvalidSetting: The prediction has no posterior samples.
    """
    mean, _, _ = _sample_moments(prediction)
    return _aggregate(torch.special.entr(mean).sum(1), aggregation)


@requires(Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES)
def bald(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Mutual information of prediction and weights, in nats, in [0, min(log k, log m)].

    It is the entropy of the mean of the posterior samples minus the mean of their entropies. It is
    large where the samples disagree although each is confident.

    Returns:
        (b,) scores.

    Raises:
        InvalidSetting: The prediction has fewer than two posterior samples.
    """
    mean, _, expected_entropy = _sample_moments(prediction, at_least=2)
    # Rounding can make the difference negative where the samples agree.
    information = (torch.special.entr(mean).sum(1) - expected_entropy).clamp(min=0)
    return _aggregate(information, aggregation)


@requires(Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES)
def variance(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Variance of the probabilities over the posterior samples, summed over classes, in [0, 1].

    The sum of squares is divided by m, not by m - 1.

    Returns:
        (b,) scores.

    Raises:
        InvalidSetting: The prediction has fewer than two posterior samples.
    """
    _, spread, _ = _sample_moments(prediction, at_least=2)
    return _aggregate(spread.sum(1), aggregation)


@requires(Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES)
def output_discrepancy(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Euclidean distance of the first and the last posterior sample's probabilities.

    Returns:
        (b,) scores in [0, sqrt(2)].

    Raises:
        InvalidSetting: The prediction has fewer than two posterior samples.
    """
    samples = _samples(prediction, at_least=2)
    distances = (samples[:, -1].exp() - samples[:, 0].exp()).square().sum(1).sqrt()
    return _aggregate(distances, aggregation)


@requires(Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES)
def variation_ratio(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Share of the posterior samples that do not vote for the most frequent class, in [0, 1).

    Each sample votes for its most probable class.

    Returns:
        (b,) scores, at most 1 - 1/min(m, k).

    Raises:
        InvalidSetting: The prediction has fewer than two posterior samples.
    """
    samples = _samples(prediction, at_least=2)
    votes = samples.argmax(2)  # (b, m, *positions)
    most = torch.zeros_like(votes[:, 0])
    for number in range(votes.shape[1]):  # one of the samples votes for the most frequent class
        most = torch.maximum(most, (votes == votes[:, number, None]).sum(1))
    # The second term is 0, or NaN if a sample is not finite, so that the score is NaN as well.
    scores = 1 - most.to(samples.dtype) / votes.shape[1] + 0 * samples.sum((1, 2)).exp()
    return _aggregate(scores, aggregation)


def _samples(prediction: Prediction, *, at_least: int) -> Tensor:
    samples = prediction.log_prob_samples
    num_samples = 0 if samples is None else samples.shape[1]
    if samples is None or num_samples < at_least:
        raise InvalidSetting(
            f"this score needs at least {at_least} posterior samples, the prediction has "
            f"{num_samples}: use Monte-Carlo dropout or an ensemble (on the command line "
            "+strategy.mc_dropout_passes=10 or +strategy.ensemble_size=5)"
        )
    return samples


def _sample_moments(prediction: Prediction, *, at_least: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of the probabilities (b, k, *positions), and the mean entropy.

    The samples are processed one by one: temporary tensors for all of them at once would take
    several times their memory.
    """
    samples = _samples(prediction, at_least=at_least)
    num_samples = samples.shape[1]
    mean = torch.zeros_like(samples[:, 0])
    squares = torch.zeros_like(mean)  # sum of squared distances to the running mean (Welford 1962)
    expected_entropy = torch.zeros_like(mean[:, 0])
    for count in range(1, num_samples + 1):
        probabilities = samples[:, count - 1].exp()
        expected_entropy += torch.special.entr(probabilities).sum(1)
        distance = probabilities - mean
        mean += distance / count
        squares += distance * (probabilities - mean)
    return mean, squares / num_samples, expected_entropy / num_samples
