"""Match priors with objects, a whole batch at once.

Source: SSD, Liu et al., arXiv 1512.02325, section 2.2 ("Matching strategy"), with the rules for
ties of amdegroot/ssd.pytorch @ 5b0b77f. A prior is matched to the truth that it overlaps most if
the overlap is at least the threshold. Each truth is also matched to the prior that overlaps it
most, at any overlap. If several truths have the same best prior, the last one is matched to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vendored.ssd_pytorch.boxes import encode, full_precision, jaccard, point_form


class Truths(NamedTuple):
    """The objects of a batch, padded to the largest number in an image, and to at least one."""

    boxes: Tensor
    """(b, m, 4) corner form, fractions; zeros where padded."""
    labels: Tensor
    """(b, m) int64, 0-based without background; zeros where padded."""
    valid: Tensor
    """(b, m) bool, False where padded."""


def pad_targets(targets: Sequence[Tensor]) -> Truths:
    """Stack the targets of a batch.

    Args:
        targets: for each image (num_boxes, 5): x_min, y_min, x_max, y_max as fractions, and the
            0-based label. Images without objects have (0, 5) or (0,).

    Raises:
        ValueError: there are no images, or targets have another shape.
    """
    if not targets:
        raise ValueError("targets of at least one image are needed")
    for index, target in enumerate(targets):
        if target.shape != (0,) and (target.dim() != 2 or target.shape[1] != 5):
            raise ValueError(
                f"targets must be (num_boxes, 5), those of image {index} are {tuple(target.shape)}"
            )
    rows = [full_precision(target).reshape(-1, 5) for target in targets]
    counts = torch.tensor([len(row) for row in rows], device=rows[0].device)
    padded = pad_sequence(rows, batch_first=True)
    if padded.shape[1] == 0:
        padded = padded.new_zeros(len(rows), 1, 5)
    valid = torch.arange(padded.shape[1], device=padded.device) < counts[:, None]
    return Truths(padded[..., :4], padded[..., 4].long(), valid)


def assign(truths: Truths, priors: Tensor, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Assign an object to each prior of each image.

    The overlaps take b * m * p numbers: 56 MB for 32 images of at most 50 objects and SSD300.

    Args:
        truths: from `pad_targets`.
        priors: (p, 4) center form, fractions.
        threshold: least intersection over union of a positive.

    Returns:
        truth: (b, p) int64, index of the truth; for negatives, of the one that they overlap most.
        conf: (b, p) int64: label + 1, or 0 for background.
    """
    priors = full_precision(priors)
    boxes, valid = truths.boxes.to(priors.dtype), truths.valid
    overlaps = jaccard(boxes, point_form(priors))
    # Padding gets a lower overlap than any truth, so it is never the best while there is a truth.
    overlaps = overlaps.masked_fill(~valid[..., None], -1)
    best_overlap, best_truth = overlaps.max(dim=1)
    # A prior belongs to the last truth whose best prior it is. The maximum over their indices
    # finds it; a plain scatter would depend on the order of writing.
    number = torch.arange(valid.shape[1], device=valid.device).expand_as(valid)
    owner = torch.full_like(best_truth, -1).scatter_reduce(
        1, overlaps.argmax(dim=2), number.masked_fill(~valid, -1), reduce="amax"
    )
    owned = owner >= 0
    truth = torch.where(owned, owner, best_truth)
    positive = owned | (best_overlap >= threshold)
    conf = torch.where(positive, truths.labels.gather(1, truth) + 1, 0)
    return truth, conf


def match_batch(
    truths: Truths, priors: Tensor, *, threshold: float, variances: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Compute the targets of all priors; arguments as `assign`, and (center, size) variances.

    Returns:
        loc: (b, p, 4) encoded boxes. Negatives have that of the truth that they overlap most.
            Images without objects have 0.
        conf: (b, p) int64: label + 1, or 0 for background.
    """
    priors = full_precision(priors)
    truth, conf = assign(truths, priors, threshold=threshold)
    matched = truths.boxes.to(priors.dtype).gather(1, truth[..., None].expand(-1, -1, 4))
    loc = encode(matched, priors, variances)
    return loc.masked_fill(~truths.valid.any(dim=1)[:, None, None], 0), conf


def match(
    threshold: float,
    truths: Tensor,
    priors: Tensor,
    variances: Sequence[float],
    labels: Tensor,
    loc_t: Tensor | None = None,
    conf_t: Tensor | None = None,
    idx: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the targets of all priors of one image, with upstream's arguments.

    Args:
        threshold: least intersection over union of a positive.
        truths: (n, 4) corner form, fractions.
        priors: (p, 4) center form, fractions.
        variances: (center, size), see `encode`.
        labels: (n,) 0-based, without background.
        loc_t: (b, p, 4) tensor whose row `idx` receives the encoded boxes, as upstream.
        conf_t: (b, p) tensor whose row `idx` receives the classes.
        idx: number of the image in the batch.

    Returns:
        (p, 4) encoded boxes and (p,) int64 classes, see `match_batch`. Upstream returns nothing.
        Differs: in an image without objects all priors are background; upstream raises.

    Raises:
        ValueError: the numbers of truths and labels differ, or only some of `loc_t`, `conf_t` and
            `idx` are given.
    """
    if truths.numel() != 4 * labels.numel():
        raise ValueError(
            f"one label for each box is needed, got boxes {tuple(truths.shape)} "
            f"and labels {tuple(labels.shape)}"
        )
    if truths.numel() == 0:
        truths, labels = priors.new_zeros(0, 4), priors.new_zeros(0)
    padded = pad_targets([torch.cat((full_precision(truths), labels[:, None].float()), dim=1)])
    loc, conf = match_batch(padded, priors, threshold=threshold, variances=variances)
    if loc_t is not None and conf_t is not None and idx is not None:
        loc_t[idx], conf_t[idx] = loc[0], conf[0]
    elif not (loc_t is None and conf_t is None and idx is None):
        raise ValueError("loc_t, conf_t and idx must be given together or not at all")
    return loc[0], conf[0]
