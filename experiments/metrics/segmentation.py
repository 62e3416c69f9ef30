"""Mean intersection over union from one confusion matrix over all pixels of a whole test set.

Source: Everingham et al., IJCV 2010, section 4.2.2 (intersection over union of a class over all
images), as fyu/drn @ d75db2e counts it.
Differs: there, a class without a pixel in the test set counts as 0 once the model predicts it, and
does not count otherwise, so what the mean is taken over depends on the model. Here such a class
never counts, and is named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class SegmentationMetrics:
    """Counts pixels by true and predicted class; pixels of no class are left out.

    Args:
        class_names: One a class.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self.confusion = torch.zeros(len(class_names), len(class_names), dtype=torch.int64)
        """Pixels (true class, predicted class), on the CPU."""

    def update(self, outputs: tuple[Tensor, Tensor], targets: Tensor) -> None:
        """Count whole images: log-probabilities (b, k, h, w), and anything; classes (b, h, w)."""
        self.count(outputs[0].argmax(1), targets)

    def count(self, predicted: Tensor, targets: Tensor) -> None:
        """Count classes (b, h, w) against classes; true ones that there are not are left out."""
        num_classes = len(self._class_names)
        counted = targets < num_classes
        pairs = targets[counted].long() * num_classes + predicted[counted].long()
        found = torch.bincount(pairs, minlength=num_classes**2)
        self.confusion += found.view(num_classes, num_classes).cpu()

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes."""
        for other in others:
            self.confusion += other.confusion

    def compute(self) -> Mapping[str, float]:
        """Return `miou`, `pixel_accuracy` and each `iou_<class>`, in percent.

        A class without a pixel in the test set has no entry.
        """
        confusion = self.confusion.double()
        hits, true = confusion.diagonal(), confusion.sum(1)
        union = true + confusion.sum(0) - hits
        present = true > 0
        if not bool(present.any()):
            return {"miou": float("nan"), "pixel_accuracy": float("nan")}
        absent = [n for n, there in zip(self._class_names, present, strict=True) if not there]
        if absent:
            log.info("no pixel of the test set is %s: left out of miou", ", ".join(absent))
        overlap = 100 * hits / union
        return {
            "miou": overlap[present].mean().item(),
            "pixel_accuracy": 100 * (hits.sum() / true.sum()).item(),
            **{
                f"iou_{name.replace(' ', '_')}": value.item()
                for name, value, there in zip(self._class_names, overlap, present, strict=True)
                if there
            },
        }
