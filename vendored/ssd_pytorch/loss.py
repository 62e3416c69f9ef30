"""The training loss of single-shot detectors, image by image.

Source: SSD, Liu et al., arXiv 1512.02325, equations (1) to (3) and "Hard negative mining";
numbers as amdegroot/ssd.pytorch @ 5b0b77f, reported per image as the superannotate fork @ aa2b9ae
does: a learned loss needs one target for each image.
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
    """(b,) int64, priors matched to an object."""


class MultiBoxLoss(nn.Module):
    """Smooth-L1 loss of the boxes and cross-entropy of the classes, with hard negatives only.

    The arguments are upstream's, in its order. Upstream reads only three of them (`overlap_thresh`,
    `neg_pos`, `num_classes`) and does what its published call says whatever the others are.
    Differs: those others are refused where they ask for something else, but for `neg_overlap` and
    `use_gpu`, which are ignored: tensors say themselves where they are.

    Args:
        num_classes: with background.
        overlap_thresh: least intersection over union of a positive, in 0..1.
        prior_for_matching: True.
        bkg_label: 0.
        neg_mining: True.
        neg_pos: negatives kept for each positive of the same image.
        neg_overlap: ignored.
        encode_target: False.
        use_gpu: ignored.
        variances: (center, size) of the box coding; the network's `config.variance`.

    Raises:
        ValueError: values that are not permitted.
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
        """Losses of each image, and what to divide their sum by.

        The loss to train with is `(loss_l + loss_c).sum() / n`; `loss_l + loss_c` is what a
        loss-prediction module learns.

        Args:
            predictions: a network's (b, p, 4) offsets, (b, p, num_classes) logits, (p, 4) priors.
            targets: for each image (num_boxes, 5): x_min, y_min, x_max, y_max as fractions, and
                the 0-based label without background; (0, 5) for none. On any device.

        Returns:
            loss_l: (b,) float32, sum over the positives.
            loss_c: (b,) float32, sum over the positives and the mined negatives.
            n: () int64, positives of the batch. Differs: 1 if there are none (both losses are 0
                then), so that dividing gives 0 and not NaN; `per_image` has the true numbers.

        Raises:
            ValueError: shapes that do not fit each other, or (checked for targets on the CPU)
                labels out of range.
        """
        losses = self.per_image(predictions, targets)
        num_positives = losses.num_positives.sum().clamp(min=1)
        return losses.localization, losses.confidence, num_positives

    def per_image(
        self, predictions: tuple[Tensor, Tensor, Tensor], targets: Sequence[Tensor]
    ) -> ImageLosses:
        """Losses and number of positives of each image; arguments as `forward`."""
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
        # From here on only the few priors that count: the rest has neither loss nor gradient.
        class_loss = functional.cross_entropy(conf[counted], conf_t[counted], reduction="none")
        image, prior = positive.nonzero(as_tuple=True)
        boxes = truths.boxes[image, truth[image, prior]].to(priors.dtype)
        loc_t = encode(boxes, priors[prior], self.variances).to(loc.dtype)
        box_loss = functional.smooth_l1_loss(loc[image, prior], loc_t, reduction="none").sum(dim=1)
        # Put back in their places to be summed: unlike adding by index the same on every device.
        everywhere = torch.zeros_like(hardness)
        return ImageLosses(
            everywhere.index_put((image, prior), box_loss).sum(dim=1),
            everywhere.index_put(counted, class_loss).sum(dim=1),
            positive.sum(dim=1),
        )

    def _truths(self, targets: Sequence[Tensor], device: torch.device) -> Truths:
        """The targets, padded, on the device."""
        truths = pad_targets(targets)
        if truths.labels.device.type == "cpu":  # elsewhere looking costs a synchronization
            low, high = int(truths.labels.min()), int(truths.labels.max())
            if low < 0 or high > self.num_classes - 2:
                raise ValueError(
                    f"labels must be in 0..{self.num_classes - 2} (background is not counted), "
                    f"got {low}..{high}"
                )
        return Truths(*(tensor.to(device) for tensor in truths))

    def _mine(self, hardness: Tensor, positive: Tensor) -> Tensor:
        """(b, p) mask: the negatives that the network finds hardest, `neg_pos` a positive."""
        num_negatives = (self.neg_pos * positive.sum(dim=1)).clamp(max=positive.shape[1] - 1)
        # Positives rank as negatives without loss, as upstream.
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
