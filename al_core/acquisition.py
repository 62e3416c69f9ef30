"""Acquisition functions: from a `Prediction` to one score per sample; the larger is queried first.

Where a prediction has positions (boxes, pixels), a score is computed at each and aggregated.

Sources: entropy, Shannon 1948 and Settles 2009 (Active Learning Literature Survey, 2.1); margin,
Scheffer, Decomain & Wrobel 2001; least confidence, Lewis & Gale 1994 and Culotta & McCallum 2005;
predicted loss, Yoo & Kweon, CVPR 2019 (arXiv 1905.03677).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from al_core.contracts import Prediction
from al_core.errors import InvalidSetting

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

    Their sum is one minus the largest probability, but exact where that rounds to 1, as it does in
    the log-softmax of any confident sample in float32: such samples keep their order.
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


def predicted_loss(prediction: Prediction) -> Tensor:
    """The loss that the loss-prediction module expects; only its order has a meaning.

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
