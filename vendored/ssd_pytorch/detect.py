"""From offsets and class probabilities to detections.

Source: SSD, Liu et al., arXiv 1512.02325, section 2.2 and 3 ("Inference time": a threshold of
0.01, suppression per class at 0.45, the best 200 of an image), with the layout of the output of
amdegroot/ssd.pytorch @ 5b0b77f. All classes of all images are handled at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from vendored.ssd_pytorch.boxes import decode, full_precision


class Detect(nn.Module):
    """Decodes boxes, drops unlikely and repeated ones, and keeps the best of each image.

    Args:
        num_classes: with background.
        bkg_label: the class that is never detected. Differs: upstream skips class 0 whatever this
            says.
        top_k: rows of the output for each class; at most so many candidates of a class go into
            suppression.
        conf_thresh: only probabilities above it count.
        nms_thresh: intersection over union above which the less likely of two boxes falls.
        variance: (center, size) of the box coding; the network's `config.variance`.
        keep_top_k: detections kept of an image, over all classes; `top_k` unless given.
            Differs: upstream means to keep `top_k` but blanks the others in a copy, so that it
            returns what `keep_top_k=num_classes * top_k` does.

    Raises:
        ValueError: values that are not permitted.
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
        """Detections of a batch.

        Args:
            loc: (b, p, 4) offsets as predicted.
            conf: (b, p, num_classes) probabilities; (b * p, num_classes) will do.
            priors: (p, 4) center form.

        Returns:
            (b, num_classes, top_k, 5): rows (score, x_min, y_min, x_max, y_max), fractions of the
            image but not clipped to it, best first in each class, then rows of zeros. Without
            gradient.

        Raises:
            ValueError: shapes that do not fit each other.
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
        # torchvision moves groups apart by the largest coordinate, which costs digits (hence
        # float64) and is enough only if no coordinate is negative.
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
        """Image, class, prior and score of what goes into suppression, best first."""
        wanted = conf > self.conf_thresh
        wanted[..., self.bkg_label] = False
        # Flipped before a stable sort: of equal scores the later prior is first, as in `nms`.
        image, prior, label = wanted.nonzero().flip(0).unbind(dim=1)
        score = conf[image, prior, label]
        order = score.argsort(descending=True, stable=True)
        order = order[_rank((image * self.num_classes + label)[order]) < self.top_k]
        return image[order], label[order], prior[order], score[order]


def _rank(group: Tensor) -> Tensor:
    """(n,): how many earlier entries are of the same group, for each entry of `group` (n,)."""
    order = group.argsort(stable=True)
    counts = group.bincount()
    first = counts.cumsum(dim=0) - counts
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return rank
