"""The training loss of single-shot detectors for each image.

Source: SSD, Liu et al., arXiv 1512.02325, equations (1) to (3) and "Hard negative mining". The
numbers are those of amdegroot/ssd.pytorch @ 5b0b77f. They are returned for each image, as in the
superannotate fork @ aa2b9ae, because a learned loss needs one target for each image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vendored.ssd_pytorch.boxes import encode, full_precision
from vendored.ssd_pytorch.matching import Truths, assign, pad_targets

VARIANCES = (0.1, 0.2)


class ImageLosses(NamedTuple):
    """Sums over the priors of each image."""

    localization: Tensor
    """(b,) smooth-L1 loss of the positives."""
    confidence: Tensor
    """(b,) cross-entropy of the positives and the mined negatives."""
    num_positives: Tensor
    """(b,) int64, number of priors matched to an object."""


class MultiBoxLoss(nn.Module):
    """Smooth-L1 loss of the boxes and cross-entropy of the classes, with hard negatives only.

    The arguments are upstream's, in its order. Upstream reads only `overlap_thresh`, `neg_pos` and
    `num_classes`. Differs: values of `prior_for_matching`, `bkg_label`, `neg_mining` and
    `encode_target` that ask for something else than is implemented are refused, not ignored.

    Args:
        num_classes: number of classes with background.
        overlap_thresh: least intersection over union of a positive, in 0..1.
        prior_for_matching: must be True.
        bkg_label: must be 0.
        neg_mining: must be True.
        neg_pos: number of negatives to keep for each positive of the same image.
        neg_overlap: ignored.
        encode_target: must be False.
        use_gpu: ignored; the device is that of the predictions.
        variances: (center, size) of the box coding; the network's `config.variance`.

    Raises:
        ValueError: an argument is out of range or not implemented; the message names it.
    """

    def __init__(
        self,
        num_classes: int,
        overlap_thresh: float = 0.5,
        prior_for_matching: bool = True,
        bkg_label: int = 0,
        neg_mining: bool = True,
        neg_pos: float = 3,
        neg_overlap: float = 0.5,
        encode_target: bool = False,
        use_gpu: bool = False,
        *,
        variances: tuple[float, float] = VARIANCES,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts background: at least 2, got {num_classes}")
        if not 0 <= overlap_thresh <= 1:
            raise ValueError(f"overlap_thresh must be in 0..1, got {overlap_thresh}")
        if neg_pos < 0:
            raise ValueError(f"neg_pos must not be negative, got {neg_pos}")
        fixed = (prior_for_matching, bkg_label, neg_mining, encode_target)
        if fixed != (True, 0, True, False):
            raise ValueError(
                "only prior_for_matching=True, bkg_label=0, neg_mining=True and "
                f"encode_target=False are implemented, got {fixed}"
            )
        self.num_classes = num_classes
        self.overlap_thresh = overlap_thresh
        self.neg_pos = neg_pos
        self.variances = variances

    def forward(
        self, predictions: tuple[Tensor, Tensor, Tensor], targets: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the losses of each image, and the divisor of their sum.

        The training loss is `(loss_l + loss_c).sum() / n`. A loss-prediction module learns to
        predict `loss_l + loss_c`.

        Args:
            predictions: a network's (b, p, 4) offsets, (b, p, num_classes) logits, (p, 4) priors.
            targets: for each image (num_boxes, 5), on any device: x_min, y_min, x_max, y_max as
                fractions, and the 0-based label without background; (0, 5) for no objects.

        Returns:
            loss_l: (b,) float32, sum over the positives.
            loss_c: (b,) float32, sum over the positives and the mined negatives.
            n: () int64, number of positives of the batch. Differs: 1 if there are none. Both
                losses are 0 then, and the division gives 0, not NaN. `per_image` returns the true
                numbers.

        Raises:
            ValueError: the shapes do not fit each other, or a label is out of range. Labels are
                checked for targets on the CPU only.
        """
        losses = self.per_image(predictions, targets)
        num_positives = losses.num_positives.sum().clamp(min=1)
        return losses.localization, losses.confidence, num_positives

    def per_image(
        self, predictions: tuple[Tensor, Tensor, Tensor], targets: Sequence[Tensor]
    ) -> ImageLosses:
        """Compute the losses and the number of positives of each image; arguments as `forward`."""
        loc, conf = full_precision(predictions[0]), full_precision(predictions[1])
        # nn.DataParallel concatenates the priors of its replicas.
        priors = predictions[2][: loc.shape[1]]
        self._check(loc, conf, priors, targets)
        truths = self._truths(targets, priors.device)
        with torch.no_grad():
            truth, conf_t = assign(truths, priors, threshold=self.overlap_thresh)
            positive = conf_t > 0
            hardness = functional.cross_entropy(
                conf.flatten(0, 1), conf_t.flatten(), reduction="none"
            ).view_as(conf_t)
            counted = (positive | self._mine(hardness, positive)).nonzero(as_tuple=True)
        # Only these few priors have a loss and a gradient.
        class_loss = functional.cross_entropy(conf[counted], conf_t[counted], reduction="none")
        image, prior = positive.nonzero(as_tuple=True)
        boxes = truths.boxes[image, truth[image, prior]].to(priors.dtype)
        loc_t = encode(boxes, priors[prior], self.variances).to(loc.dtype)
        box_loss = functional.smooth_l1_loss(loc[image, prior], loc_t, reduction="none").sum(dim=1)
        # Summed in their places, because adding by index is not reproducible on every device.
        everywhere = torch.zeros_like(hardness)
        return ImageLosses(
            everywhere.index_put((image, prior), box_loss).sum(dim=1),
            everywhere.index_put(counted, class_loss).sum(dim=1),
            positive.sum(dim=1),
        )

    def _truths(self, targets: Sequence[Tensor], device: torch.device) -> Truths:
        """Pad the targets, check their labels, and move them to the device."""
        truths = pad_targets(targets)
        if truths.labels.device.type == "cpu":  # on other devices the check would synchronize
            low, high = int(truths.labels.min()), int(truths.labels.max())
            if low < 0 or high > self.num_classes - 2:
                raise ValueError(
                    f"labels must be in 0..{self.num_classes - 2} (background is not counted), "
                    f"got {low}..{high}"
                )
        return Truths(*(tensor.to(device) for tensor in truths))

    def _mine(self, hardness: Tensor, positive: Tensor) -> Tensor:
        """Mask (b, p) of the negatives with the highest loss, `neg_pos` for each positive."""
        num_negatives = (self.neg_pos * positive.sum(dim=1)).clamp(max=positive.shape[1] - 1)
        # Positives are ranked as if they were negatives without loss, as upstream.
        most = math.ceil(num_negatives.max())
        hardest = hardness.masked_fill(positive, 0).topk(most, dim=1).indices
        place = torch.arange(most, device=hardest.device)
        return torch.zeros_like(positive).scatter(1, hardest, place < num_negatives[:, None])

    def _check(self, loc: Tensor, conf: Tensor, priors: Tensor, targets: Sequence[Tensor]) -> None:
        num_images, num_priors = loc.shape[:2]
        if (
            loc.shape != (num_images, num_priors, 4)
            or conf.shape != (num_images, num_priors, self.num_classes)
            or priors.shape != (num_priors, 4)
        ):
            raise ValueError(
                f"offsets (b, p, 4), logits (b, p, {self.num_classes}) and priors (p, 4) are "
                f"needed, got {tuple(loc.shape)}, {tuple(conf.shape)} and {tuple(priors.shape)}"
            )
        if len(targets) != num_images:
            raise ValueError(f"{num_images} images but targets of {len(targets)}")
