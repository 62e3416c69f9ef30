"""Acquisition functions map a `Prediction` to one score per sample; the largest is queried first.

Where a prediction has positions (boxes, pixels), scores are computed per position and aggregated.

Sources: entropy, Shannon 1948 and Settles 2009 (Active Learning Literature Survey, 2.1); margin,
Scheffer, Decomain & Wrobel 2001; least confidence, Lewis & Gale 1994 and Culotta & McCallum 2005;
predicted loss, Yoo & Kweon, CVPR 2019 (arXiv 1905.03677). From posterior samples (Monte-Carlo
dropout, Gal & Ghahramani, ICML 2016; or an ensemble): predictive entropy and BALD, the mutual
information of prediction and weights, Houlsby et al., arXiv 1112.5745, in the form of Gal, Islam &
Ghahramani, ICML 2017, section 4, where the variation ratio (Freeman 1965) is too; variance of the
probabilities, as superannotateai/active_learning @ aa2b9ae ranks pixels.
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


def _others(log_probs: Tensor) -> Tensor:
    """Return the probabilities (b, k, *positions), that of the most probable class set to zero.

    Their sum is one minus the largest probability. It stays exact where the largest rounds to 1, as
    in the float32 log-softmax of any confident sample, so that such samples keep their order.
    """
    return log_probs.exp().scatter(1, log_probs.argmax(1, keepdim=True), 0.0)


def entropy(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Shannon entropy of the predicted distribution, in nats, in [0, log k].

    Returns:
        (b,) scores; a probability of zero contributes zero.
    """
    # entr, not -p * log p: at p = 0 that is 0 * -inf = NaN.
    return _aggregate(torch.special.entr(prediction.log_probs.exp()).sum(1), aggregation)


def margin(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """One minus the gap between the two most probable classes, in [0, 1].

    Returns:
        (b,) scores; 1 where the two are equally probable.

    Raises:
        InvalidSetting: There is only one class.
    """
    if prediction.log_probs.shape[1] < 2:
        raise InvalidSetting("margin needs at least two classes; the prediction has one")
    others = _others(prediction.log_probs)
    return _aggregate(others.sum(1) + others.amax(1), aggregation)


def least_confidence(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """One minus the largest probability, in [0, 1 - 1/k].

    Returns:
        (b,) scores.
    """
    return _aggregate(_others(prediction.log_probs).sum(1), aggregation)


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

    It is the entropy of the mean of the posterior samples minus the mean of their entropies, and it
    is large where the samples are confident but disagree.

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
def variation_ratio(prediction: Prediction, *, aggregation: Aggregation = "mean") -> Tensor:
    """Share of the posterior samples that do not vote for the winning class, in [0, 1).

    Returns:
        (b,) scores, at most 1 - 1/min(m, k).

    Raises:
        InvalidSetting: The prediction has fewer than two posterior samples.
    """
    samples = _samples(prediction, at_least=2)
    votes = samples.argmax(2)  # (b, m, *positions)
    most = torch.zeros_like(votes[:, 0])
    for number in range(votes.shape[1]):  # the winning class is the vote of some sample
        most = torch.maximum(most, (votes == votes[:, number, None]).sum(1))
    # argmax hides values that are not finite; this term carries them into the score.
    scores = 1 - most.to(samples.dtype) / votes.shape[1] + 0 * samples.sum((1, 2)).exp()
    return _aggregate(scores, aggregation)


def _samples(prediction: Prediction, *, at_least: int) -> Tensor:
    samples = prediction.log_prob_samples
    num_samples = 0 if samples is None else samples.shape[1]
    if samples is None or num_samples < at_least:
        raise InvalidSetting(
            f"this score needs at least {at_least} posterior samples, the prediction has "
            f"{num_samples}: Monte-Carlo dropout or an ensemble provides them (on the command line "
            "+strategy.mc_dropout_passes=10 or +strategy.ensemble_size=5)"
        )
    return samples


def _sample_moments(prediction: Prediction, *, at_least: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and variance of the probabilities (b, k, *positions), and the mean entropy.

    The loop over samples avoids intermediate tensors of the size of all samples together.
    """
    samples = _samples(prediction, at_least=at_least)
    num_samples = samples.shape[1]
    mean = torch.zeros_like(samples[:, 0])
    squares = torch.zeros_like(mean)  # of distances to the running mean (Welford 1962)
    expected_entropy = torch.zeros_like(mean[:, 0])
    for count in range(1, num_samples + 1):
        probabilities = samples[:, count - 1].exp()
        expected_entropy += torch.special.entr(probabilities).sum(1)
        distance = probabilities - mean
        mean += distance / count
        squares += distance * (probabilities - mean)
    return mean, squares / num_samples, expected_entropy / num_samples
