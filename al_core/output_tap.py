"""Describe a model's own output by a few numbers, whatever the task.

Ours: the loss-prediction module of Yoo & Kweon, CVPR 2019, sees hidden features only, and has to
find out from them what the output says directly, for example how sure it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from al_core.errors import InvalidSetting

LOWEST = -12.0
"""Log-probabilities and logarithms of entropies below it count as it (in nats)."""
FRACTIONS = (1, 4, 16, 64, 256)
"""With positions, entropies are averaged over the most uncertain 1/1, 1/4, ... of them."""


def num_output_statistics(log_probs: Tensor) -> int:
    """Return how many numbers `output_statistics` gives for such log-probabilities.

    Args:
        log_probs: (b, k) or (b, k, *positions).
    """
    return log_probs.shape[1] if log_probs.ndim == 2 else len(FRACTIONS)


def output_statistics(log_probs: Tensor) -> Tensor:
    """Return numbers (b, d) that say how sure each prediction is, without gradient.

    For one prediction an image, its log-probabilities in decreasing order, d = k: which classes
    they belong to does not matter. For predictions at positions (boxes, pixels), the logarithms of
    the mean entropies of the most uncertain of them, all, a quarter, and so on down to 1/256 (at
    least one): d = 5, so that neither many easy positions nor a single hard one decide alone.

    Args:
        log_probs: (b, k) or (b, k, *positions) log-probabilities; -inf is permitted.

    Returns:
        In [-12, log(log k)], in the dtype of `log_probs` or at least float32.

    Raises:
        InvalidSetting: The shape has fewer than two dimensions, or no position.
    """
    if log_probs.ndim < 2 or 0 in log_probs.shape[1:]:
        raise InvalidSetting(
            "the output tap must give log-probabilities (b, k) or (b, k, *positions), got shape "
            f"{tuple(log_probs.shape)}"
        )
    dtype = torch.promote_types(log_probs.dtype, torch.float32)
    log_probs = log_probs.detach().to(dtype)
    if log_probs.ndim == 2:
        return log_probs.sort(dim=1, descending=True).values.clamp(min=LOWEST)
    entropies = torch.special.entr(log_probs.exp()).sum(1).flatten(1)
    num_positions = entropies.shape[1]
    sizes = [max(1, num_positions // fraction) for fraction in FRACTIONS]
    # The quarter that is sorted holds all smaller ones.
    largest = entropies.topk(sizes[1], dim=1).values
    means = [entropies.mean(1), *(largest[:, :size].mean(1) for size in sizes[1:])]
    return torch.stack(means, 1).log().clamp(min=LOWEST)
