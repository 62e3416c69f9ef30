"""Arithmetic of boxes: forms, overlaps, coding against priors, suppression.

Source: SSD, Liu et al., arXiv 1512.02325, section 2.2, and the functions of the same names in
amdegroot/ssd.pytorch @ 5b0b77f, with the same arguments and results. Boxes are in corner form
(x_min, y_min, x_max, y_max) or in center form (center_x, center_y, width, height), as fractions
of the image unless a docstring states otherwise. All functions work on the last dimension and take
any leading dimensions. They convert half precision to float32, so they are safe under autocast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms as suppress


def full_precision(values: Tensor) -> Tensor:
    """Convert half-precision values to float32 and leave float32 and float64 as they are."""
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def point_form(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from center form to corner form."""
    boxes = full_precision(boxes)
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((center - half, center + half), dim=-1)


def center_size(boxes: Tensor) -> Tensor:
    """Convert boxes (..., 4) from corner form to center form.

    Differs: upstream's version raises TypeError because of a misplaced parenthesis.
    """
    boxes = full_precision(boxes)
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((high + low) / 2, high - low), dim=-1)


def intersect(box_a: Tensor, box_b: Tensor) -> Tensor:
    """Area of the intersection of each pair of boxes.

    Args:
        box_a: (..., n, 4) corner form.
        box_b: (..., m, 4) corner form; leading dimensions broadcast.

    Returns:
        (..., n, m), in the square of the boxes' unit; 0 for boxes that do not overlap.
    """
    a, b = full_precision(box_a)[..., :, None, :], full_precision(box_b)[..., None, :, :]
    # One coordinate at a time and partly in place. Memory traffic dominates the time, and this has
    # a third of that of (..., n, m, 2) tensors.
    width = torch.minimum(a[..., 2], b[..., 2]).sub_(torch.maximum(a[..., 0], b[..., 0]))
    height = torch.minimum(a[..., 3], b[..., 3]).sub_(torch.maximum(a[..., 1], b[..., 1]))
    return width.clamp_(min=0) * height.clamp_(min=0)


def jaccard(box_a: Tensor, box_b: Tensor) -> Tensor:
    """Intersection over union of each pair of boxes.

    Args:
        box_a: (..., n, 4) corner form.
        box_b: (..., m, 4) corner form; leading dimensions broadcast.

    Returns:
        (..., n, m) in 0..1. Two boxes without area give NaN, as upstream.
    """
    shared = intersect(box_a, box_b)
    union = (_area(box_a)[..., :, None] + _area(box_b)[..., None, :]).sub_(shared)
    return shared / union


def _area(boxes: Tensor) -> Tensor:
    boxes = full_precision(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def encode(matched: Tensor, priors: Tensor, variances: Sequence[float]) -> Tensor:
    """Regression targets of boxes, relative to the priors that they are matched to.

    These are equation (2) of the paper, with each component divided by its variance.

    Args:
        matched: (..., p, 4) corner form.
        priors: (..., p, 4) center form.
        variances: (center, size).

    Returns:
        (..., p, 4): offset of the center in units of the prior's size, and logarithm of the ratio
        of the sizes. The latter is -inf for a box without width or height.
    """
    matched, priors = full_precision(matched), full_precision(priors)
    center = (matched[..., :2] + matched[..., 2:]) / 2 - priors[..., :2]
    size = (matched[..., 2:] - matched[..., :2]) / priors[..., 2:]
    return torch.cat(
        (center / (variances[0] * priors[..., 2:]), torch.log(size) / variances[1]), dim=-1
    )


def decode(loc: Tensor, priors: Tensor, variances: Sequence[float]) -> Tensor:
    """Boxes of predicted offsets; the inverse of `encode`.

    Args:
        loc: (..., p, 4) offsets as predicted.
        priors: (..., p, 4) center form.
        variances: (center, size).

    Returns:
        (..., p, 4) corner form, not clipped to the image.
    """
    loc, priors = full_precision(loc), full_precision(priors)
    center = priors[..., :2] + loc[..., :2] * variances[0] * priors[..., 2:]
    size = priors[..., 2:] * torch.exp(loc[..., 2:] * variances[1])
    low = center - size / 2
    return torch.cat((low, low + size), dim=-1)


def log_sum_exp(x: Tensor) -> Tensor:
    """Logarithm of the sum of exponentials over the classes.

    Differs: upstream subtracts the maximum of the whole tensor and therefore returns -inf for rows
    that lie more than about 100 below it. Here each row has its own maximum. Other results agree
    up to rounding.

    Args:
        x: (rows, classes) logits.

    Returns:
        (rows, 1).
    """
    return torch.logsumexp(full_precision(x), dim=1, keepdim=True)


def nms(
    boxes: Tensor, scores: Tensor, overlap: float = 0.5, top_k: int = 200
) -> tuple[Tensor, int]:
    """Greedy non-maximum suppression among the best boxes of one class.

    Only the `top_k` boxes with the highest scores take part. A box is removed if its intersection
    over union with a kept box of higher score is above `overlap`. Among equal scores the later box
    comes first.

    Args:
        boxes: (n, 4) corner form.
        scores: (n,).
        overlap: in 0..1.
        top_k: number of candidates, positive.

    Returns:
        keep: (n,) int64, indices of the kept boxes, best first, then zeros.
        count: number of kept boxes, the valid entries of `keep`.
        Differs: upstream returns `keep` alone if there are no boxes.

    Raises:
        ValueError: shapes that do not fit each other, or top_k below 1.
    """
    if boxes.shape != (len(scores), 4) or scores.dim() != 1:
        raise ValueError(
            f"boxes (n, 4) and scores (n,) are needed, got {tuple(boxes.shape)} "
            f"and {tuple(scores.shape)}"
        )
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    boxes, scores = full_precision(boxes), full_precision(scores)
    best_last = scores.argsort(stable=True)[-top_k:]
    order = best_last.flip(0)
    # torchvision needs both in one dtype. Its sort is stable, so it keeps `order`.
    kept: Tensor = suppress(boxes[order], scores[order].to(boxes.dtype), overlap)
    keep = torch.zeros(len(scores), dtype=torch.int64, device=boxes.device)
    keep[: len(kept)] = order[kept]
    return keep, len(kept)
