"""Mean intersection over union from one confusion matrix over all pixels of a whole test set.

Source: Everingham et al., IJCV 2010, section 4.2.2 (intersection over union of a class over all
images), as fyu/drn @ d75db2e counts it.
Differs: there, a class without a pixel in the test set counts as 0 once the model predicts it, and
does not count otherwise, so the classes of the mean depend on the model. Here such a class never
counts, and the log names it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from experiments.metrics.declaration import percentage

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

log = logging.getLogger(__name__)

COLUMNS = (
    percentage("miou", "mean IoU"),
    percentage("pixel_accuracy", "pixel accuracy"),
    percentage("iou_<class>", "IoU of <class>"),
)
"""The columns that `SegmentationMetrics` computes."""


class SegmentationMetrics:
    """Confusion matrix of pixels by true and predicted class; pixels of no class are left out.

    Args:
        class_names: One a class.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self.confusion = np.zeros((len(class_names), len(class_names)), np.int64)
        """Pixels (true class, predicted class)."""

    def update(self, outputs: tuple[Tensor, Tensor | None], targets: Tensor) -> None:
        """Count whole images: log-probabilities (b, k, h, w), and anything; classes (b, h, w)."""
        self.count(outputs[0].argmax(1), targets)

    def count(self, predicted: Tensor, targets: Tensor) -> None:
        """Count predicted against true classes, both (b, h, w); unknown true ones are left out."""
        num_classes = len(self._class_names)
        counted = targets < num_classes
        pairs = targets[counted].long() * num_classes + predicted[counted].long()
        found = pairs.bincount(minlength=num_classes**2)
        self.confusion += found.view(num_classes, num_classes).cpu().numpy()

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes."""
        for other in others:
            self.confusion += other.confusion

    def compute(self) -> Mapping[str, float]:
        """Return `miou`, `pixel_accuracy` and each `iou_<class>`, in percent.

        A class without a pixel in the test set has no entry.
        """
        import torch  # loaded by now, and not by a report

        hits, true = self.confusion.diagonal(), self.confusion.sum(1)
        union = true + self.confusion.sum(0) - hits
        present = np.flatnonzero(true)
        if not present.size:
            return {"miou": float("nan"), "pixel_accuracy": float("nan")}
        absent = [name for name, pixels in zip(self._class_names, true, strict=True) if not pixels]
        if absent:
            log.info("no pixel of the test set is %s: left out of miou", ", ".join(absent))
        overlap = 100.0 * hits[present] / union[present]
        names = [self._class_names[label].replace(" ", "_") for label in present]
        return {
            "miou": torch.from_numpy(overlap).mean().item(),
            "pixel_accuracy": float(100.0 * (hits.sum() / true.sum())),
            **{f"iou_{name}": value for name, value in zip(names, overlap.tolist(), strict=True)},
        }
