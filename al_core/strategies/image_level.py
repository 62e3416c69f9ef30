"""Class distributions of whole images from predictions with positions (boxes, pixels).

BatchBALD, DropQuery and the class-balanced strategies need one distribution per image: the mean
over its positions. Detectors predict background nearly everywhere, so this class can be left out.
The construction is our own.
"""

from __future__ import annotations

from torch import Tensor

from al_core.contracts import Prediction
from al_core.errors import InvalidSetting


def class_distribution(prediction: Prediction, background: int | None = None) -> Tensor:
    """Return the class distribution of each image, (b, k); it sums to 1, with 0 for `background`.

    A prediction without positions is returned unchanged and `background` is ignored, because an
    image that is classified always has a class.
    """
    probabilities = prediction.log_probs.exp()
    if probabilities.ndim == 2:
        return probabilities
    return _without(probabilities.flatten(2).mean(2), background)


def sampled_distributions(
    prediction: Prediction, background: int | None = None, *, at_least: int = 2
) -> Tensor:
    """Return the class distribution of each image by each posterior pass, (b, m, k).

    Raises:
        InvalidSetting: There are fewer than `at_least` posterior samples.
    """
    samples = prediction.log_prob_samples
    if samples is None or samples.shape[1] < at_least:
        raise InvalidSetting(
            f"this strategy needs at least {at_least} posterior samples: Monte-Carlo dropout or an "
            "ensemble gives them (on the command line +strategy.mc_dropout_passes=10 or "
            "+strategy.ensemble_size=5)"
        )
    if samples.ndim == 3:
        return samples.exp()
    b, m, k = samples.shape[:3]
    mean = samples.new_empty(b, m, k)
    for number in range(m):  # all at once would need the memory of the samples again
        mean[:, number] = samples[:, number].exp().flatten(2).mean(2)
    return _without(mean, background)


def foreground_share(prediction: Prediction, background: int | None = None) -> Tensor:
    """Return the expected share of positions that are not background, (b,) in [0, 1].

    It is 1 without positions or without a background class.
    """
    log_probs = prediction.log_probs
    if background is None or log_probs.ndim == 2:
        return log_probs.new_ones(log_probs.shape[0])
    _check(background, log_probs.shape[1])
    return 1 - log_probs[:, background].exp().flatten(1).mean(1)


def _without(distributions: Tensor, background: int | None) -> Tensor:
    """Remove a class from distributions (..., k) and renormalize the rest."""
    if background is None:
        return distributions
    _check(background, distributions.shape[-1])
    distributions = distributions.clone()
    distributions[..., background] = 0
    return distributions / distributions.sum(-1, keepdim=True).clamp(min=1e-12)


def _check(background: int, num_classes: int) -> None:
    if not 0 <= background < num_classes:
        raise InvalidSetting(
            f"background must be a class, 0..{num_classes - 1}, or null, got {background!r}"
        )
