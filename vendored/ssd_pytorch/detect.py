"""Convert offsets and class probabilities to detections.

Source: SSD, Liu et al., arXiv 1512.02325, sections 2.2 and 3 ("Inference time": a threshold of
0.01, suppression per class at 0.45, the best 200 of an image). The output has the layout of
amdegroot/ssd.pytorch @ 5b0b77f. All classes of all images are processed at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from vendored.ssd_pytorch.boxes import decode, full_precision


class Detect(nn.Module):
    """Decode boxes, remove unlikely and repeated ones, and keep the best of each image.

    Args:
        num_classes: number of classes with background.
        bkg_label: the background class, which is never detected. Differs: upstream always skips
            class 0.
        top_k: rows of the output for each class, and largest number of candidates of a class for
            suppression.
        conf_thresh: boxes with probabilities up to this value are dropped.
        nms_thresh: intersection over union above which the less likely of two boxes is removed.
        variance: (center, size) of the box coding; the network's `config.variance`.
        keep_top_k: detections to keep for each image, over all classes; `top_k` by default.
            Differs: upstream intends to keep `top_k`, but clears the others in a copy only. Its
            output is that of `keep_top_k=num_classes * top_k`.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_classes: int,
        bkg_label: int = 0,
        top_k: int = 200,
        conf_thresh: float = 0.01,
        nms_thresh: float = 0.45,
        *,
        variance: tuple[float, float] = (0.1, 0.2),
        keep_top_k: int | None = None,
    ) -> None:
        super().__init__()
        keep_top_k = top_k if keep_top_k is None else keep_top_k
        if not 0 <= bkg_label < num_classes:
            raise ValueError(f"bkg_label must be in 0..{num_classes - 1}, got {bkg_label}")
        if top_k < 1 or keep_top_k < 1:
            raise ValueError(f"top_k and keep_top_k are at least 1, got {top_k} and {keep_top_k}")
        if not 0 <= conf_thresh <= 1:
            raise ValueError(f"conf_thresh must be in 0..1, got {conf_thresh}")
        if not 0 < nms_thresh <= 1:
            raise ValueError(f"nms_thresh must be above 0 and at most 1, got {nms_thresh}")
        self.num_classes = num_classes
        self.bkg_label = bkg_label
        self.top_k = top_k
        self.conf_thresh = conf_thresh
        self.nms_thresh = nms_thresh
        self.variance = variance
        self.keep_top_k = keep_top_k

    @torch.no_grad()
    def forward(self, loc: Tensor, conf: Tensor, priors: Tensor) -> Tensor:
        """Compute the detections of a batch.

        Args:
            loc: (b, p, 4) offsets as predicted.
            conf: (b, p, num_classes) or (b * p, num_classes) probabilities.
            priors: (p, 4) center form.

        Returns:
            (b, num_classes, top_k, 5) without gradient: rows (score, x_min, y_min, x_max, y_max),
            best first in each class, then rows of zeros. Coordinates are fractions of the image
            and not clipped to it.

        Raises:
            ValueError: the shapes do not fit each other.
        """
        num_images, num_priors = loc.shape[:2]
        if loc.shape != (num_images, len(priors), 4) or (
            conf.numel() != num_images * num_priors * self.num_classes
        ):
            raise ValueError(
                f"offsets (b, p, 4), probabilities (b, p, {self.num_classes}) and priors (p, 4) "
                f"are needed, got {tuple(loc.shape)}, {tuple(conf.shape)}, {tuple(priors.shape)}"
            )
        boxes = decode(loc, priors, self.variance)
        conf = full_precision(conf).reshape(num_images, num_priors, self.num_classes)
        image, label, prior, score = self._candidates(conf)
        group = image * self.num_classes + label
        box = boxes[image, prior]
        # torchvision separates groups by offsets of the largest coordinate. That costs digits,
        # hence float64, and is enough only if no coordinate is negative.
        shifted = box.double() - boxes.min()
        kept: Tensor = batched_nms(shifted, score.double(), group, self.nms_thresh)
        kept = kept[_rank(image[kept]) < self.keep_top_k]
        output = conf.new_zeros(num_images, self.num_classes, self.top_k, 5)
        row = _rank(group[kept])
        output[image[kept], label[kept], row] = torch.cat(
            (score[kept, None], box[kept].to(conf.dtype)), dim=1
        )
        return output

    def _candidates(self, conf: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Image, class, prior and score of the candidates for suppression, best first."""
        wanted = conf > self.conf_thresh
        wanted[..., self.bkg_label] = False
        # Flipped before a stable sort: among equal scores the later prior is first, as in `nms`.
        image, prior, label = wanted.nonzero().flip(0).unbind(dim=1)
        score = conf[image, prior, label]
        order = score.argsort(descending=True, stable=True)
        order = order[_rank((image * self.num_classes + label)[order]) < self.top_k]
        return image[order], label[order], prior[order], score[order]


def _rank(group: Tensor) -> Tensor:
    """Number of earlier entries of the same group, for each entry of `group`: (n,) to (n,)."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    first = counts.cumsum(dim=0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return rank
