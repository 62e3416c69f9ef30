"""Learning to rank losses: the ranking loss, ranking accuracy and Kendall's tau.

Source: Yoo & Kweon, *Learning Loss for Active Learning*, CVPR 2019 (arXiv 1905.03677), section 3.3,
equation 2; pairing and ties as in superannotateai/active_learning @aa2b9ae.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting

Pairs = Literal["folded", "all"]


def _check_shapes(predicted: Tensor, target: Tensor) -> None:
    # (b, 1) against (b,) would broadcast to (b/2, b/2) and rank every sample against the losses of
    # all others. The reference code has this bug.
    if predicted.ndim != 1 or predicted.shape != target.shape:
        raise InvalidSetting(
            "predicted and true losses must both have shape (b,), "
            f"got {tuple(predicted.shape)} and {tuple(target.shape)}"
        )


def _differences(values: Tensor, pairs: Pairs) -> Tensor:
    """Return values[i] - values[j] over the pairs (i, j), i < j."""
    b = values.shape[0]
    if pairs == "folded":
        return values[: b // 2] - values.flip(0)[: b // 2]
    i, j = torch.triu_indices(b, b, offset=1, device=values.device)
    return values[i] - values[j]


class LossPredictionLoss(nn.Module):
    """Margin ranking loss between predicted and true losses (equation 2).

    Sample i of the batch is paired with sample b-1-i, as published, or with every other sample. The
    loss of a pair is max(0, margin - s * (predicted_i - predicted_j)), where s is +1 if true_i >
    true_j and -1 otherwise, ties included, as published; the result is the mean over the pairs. In
    folded pairs the middle sample of an odd batch has no partner. True losses are detached.

    Args:
        margin: The margin xi, positive.
        pairs: "folded" (b // 2 pairs) or "all" (b (b - 1) / 2 pairs).

    Raises:
        InvalidSetting: The margin is not positive, or `pairs` has another value.
    """

    def __init__(self, margin: float = 1.0, *, pairs: Pairs = "folded") -> None:
        super().__init__()
        if not margin > 0:
            raise InvalidSetting(f"margin must be positive, got {margin!r}")
        if pairs not in ("folded", "all"):
            raise InvalidSetting(f"pairs must be folded or all, got {pairs!r}")
        self.margin = margin
        self.pairs: Pairs = pairs

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over the pairs.

        Args:
            predicted: (b,) predicted losses.
            target: (b,) true losses; no gradient flows into them.

        Returns:
            Scalar. Differs: a batch without pairs (b < 2) gives 0, not NaN.

        Raises:
            InvalidSetting: The shapes are not both (b,).
        """
        _check_shapes(predicted, target)
        if predicted.shape[0] < 2:
            return predicted.sum() * 0.0
        order = torch.where(_differences(target.detach(), self.pairs) > 0, 1.0, -1.0)
        hinge = self.margin - order * _differences(predicted, self.pairs)
        return hinge.clamp(min=0).mean()


class RankNetLoss(nn.Module):
    """Binary cross-entropy of the order of all pairs, its logit their predicted difference.

    Source: RankNet, Burges et al., ICML 2005, as TA-VAAL (Kim et al., CVPR 2021) uses it to rank
    losses. It has no margin: a pair counts the less, the surer its order is.
    """

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean over all pairs; pairs of equal true losses pull towards equality.

        Args:
            predicted: (b,) predicted losses.
            target: (b,) true losses; no gradient flows into them.

        Returns:
            Scalar; 0 for a batch without pairs (b < 2).

        Raises:
            InvalidSetting: The shapes are not both (b,).
        """
        _check_shapes(predicted, target)
        if predicted.shape[0] < 2:
            return predicted.sum() * 0.0
        order = (torch.sign(_differences(target.detach(), "all")) + 1) / 2
        return F.binary_cross_entropy_with_logits(_differences(predicted, "all"), order)


class LossPredictionMSELoss(nn.Module):
    """Mean squared error between predicted and true losses: the ablation of section 4.1 ("MSE").

    Its target is the size of the loss, which changes while the model learns; the ranking loss
    depends on the order alone.
    """

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Return the mean of (predicted - target)^2 over the batch; true losses are detached.

        Args:
            predicted: (b,) predicted losses.
            target: (b,) true losses.

        Returns:
            Scalar.

        Raises:
            InvalidSetting: The shapes are not both (b,).
        """
        _check_shapes(predicted, target)
        return (predicted - target.detach()).square().mean()


def ranking_accuracy(predicted: Tensor, target: Tensor) -> Tensor:
    """Share of all pairs of the batch whose predicted losses have the order of the true ones.

    Computed by one (b, b) comparison, without a loop and without synchronizing the device.

    Args:
        predicted: (b,) predicted losses.
        target: (b,) true losses.

    Returns:
        Scalar in [0, 1]. Pairs with equal true losses are left out; NaN if no pair remains.

    Raises:
        InvalidSetting: The shapes are not both (b,).
    """
    _check_shapes(predicted, target)
    true_order = torch.sign(target[:, None] - target[None, :])
    agree = (torch.sign(predicted[:, None] - predicted[None, :]) == true_order) & (true_order != 0)
    return agree.sum() / (true_order != 0).sum()


def kendall_tau(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b between two lists of n numbers, in O(n log^2 n).

    Source: Kendall 1945 (tau-b, for ties); counting discordant pairs by merging, Knight 1966.

    Returns:
        In [-1, 1]; NaN if either list is constant or has fewer than two entries.

    Raises:
        InvalidSetting: The lists differ in length, or a value is not finite.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InvalidSetting(f"tau needs two lists of one length, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidSetting("tau needs finite values")
    n = x.size
    total = n * (n - 1) // 2
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    tied_x, tied_y = _tied_pairs(x), _tied_pairs(np.sort(y))
    tied_both = _tied_pairs(np.unique(np.stack([x, y]), axis=1, return_inverse=True)[1].ravel())
    if total in (tied_x, tied_y):
        return float("nan")
    discordant = _inversions(np.unique(y, return_inverse=True)[1])
    concordant_minus_discordant = total - tied_x - tied_y + tied_both - 2 * discordant
    scale = np.sqrt(float(total - tied_x)) * np.sqrt(float(total - tied_y))
    return float(concordant_minus_discordant / scale)


def _tied_pairs(values: np.ndarray) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())


def _inversions(ranks: np.ndarray) -> int:
    """Count pairs i < j with ranks[i] > ranks[j], by merging blocks of doubling width."""
    size = 1 << max(0, (ranks.size - 1)).bit_length()
    # Padding with the largest rank at the end adds no inversion.
    blocks = np.full(size, ranks.size, dtype=np.int64)
    blocks[: ranks.size] = ranks
    count, width = 0, 1
    while width < size:
        halves = blocks.reshape(-1, 2 * width)
        order = np.argsort(halves, axis=1, kind="stable")
        from_left = order < width
        left_before = np.cumsum(from_left, axis=1)
        count += int((width - left_before)[~from_left].sum())
        blocks = np.take_along_axis(halves, order, axis=1)
        width *= 2
    return count
