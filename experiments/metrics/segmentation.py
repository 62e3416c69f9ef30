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
from numpy.typing import NDArray

from experiments.metrics.declaration import percentage
from experiments.metrics.evaluation import (
    NUM_BINS,
    Calibration,
    Evaluation,
    images_with_most,
    most_confused,
)

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

log = logging.getLogger(__name__)

COLUMNS = (
    percentage("miou", "mean IoU"),
    percentage("pixel_accuracy", "pixel accuracy"),
    percentage("iou_<class>", "IoU of <class>"),
)
"""The columns that `SegmentationMetrics` computes."""

NUM_CONFUSED, CELLS_AN_IMAGE, CONFUSED_A_CELL = 24, 3, 2
"""Images behind the confusion matrix that are named at most, of all cells; the largest cells of an
image that it is kept for; and the images of each cell."""


class SegmentationMetrics:
    """Confusion matrix of pixels by true and predicted class; pixels of no class are left out.

    Args:
        class_names: One a class.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        self._class_names = tuple(class_names)
        self.confusion = np.zeros((len(class_names), len(class_names)), np.int64)
        """Pixels (true class, predicted class)."""
        self._bins = Calibration(*np.zeros((3, NUM_BINS)))
        self._cells: list[list[tuple[int, int, int]]] = []  # by image: true, predicted, pixels

    def update(self, outputs: tuple[Tensor, Tensor | None], targets: Tensor) -> None:
        """Count whole images: log-probabilities (b, k, h, w), and anything; classes (b, h, w)."""
        confidence, predicted = outputs[0].max(1)
        self.count(predicted, targets)
        self._calibrate(confidence, predicted, targets)

    def count(self, predicted: Tensor, targets: Tensor) -> None:
        """Count predicted against true classes, both (b, h, w); unknown true ones are left out."""
        import torch  # loaded by now, and not by a report

        num_classes = len(self._class_names)
        cells = num_classes**2
        image = torch.arange(len(targets), device=targets.device).view(-1, 1, 1) * cells
        counted = targets < num_classes
        pairs = (image + targets.long() * num_classes + predicted.long())[counted]
        found = pairs.bincount(minlength=cells * len(targets)).cpu().numpy()
        for confusion in found.reshape(-1, num_classes, num_classes):
            self.confusion += confusion
            wrong = confusion * (1 - np.eye(num_classes, dtype=np.int64))
            largest = np.argsort(-wrong, axis=None, kind="stable")[:CELLS_AN_IMAGE].tolist()
            self._cells.append(
                [
                    (*divmod(cell, num_classes), int(wrong.flat[cell]))
                    for cell in largest
                    if wrong.flat[cell]
                ]
            )

    def _calibrate(self, log_probs: Tensor, predicted: Tensor, targets: Tensor) -> None:
        """Count the confidences of pixels, given as log-probabilities (b, h, w)."""
        counted = targets < len(self._class_names)
        confidence = log_probs[counted].double().exp()
        bins = (confidence * NUM_BINS).long().clamp_(max=NUM_BINS - 1)
        right = (predicted == targets)[counted].double()
        counts = (bins.bincount(each, minlength=NUM_BINS) for each in (None, confidence, right))
        self._bins += Calibration(*(each.cpu().double().numpy() for each in counts))

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes."""
        for other in others:
            self.confusion += other.confusion
            self._bins += other._bins
            self._cells += other._cells

    def compute(self) -> Mapping[str, float]:
        """Return `miou`, `pixel_accuracy` and each `iou_<class>`, in percent.

        A class without a pixel in the test set has no entry.
        """
        import torch

        hits, true = self.confusion.diagonal(), self.confusion.sum(1)
        present = np.flatnonzero(true)
        if not present.size:
            return {"miou": float("nan"), "pixel_accuracy": float("nan")}
        absent = [name for name, pixels in zip(self._class_names, true, strict=True) if not pixels]
        if absent:
            log.info("no pixel of the test set is %s: left out of miou", ", ".join(absent))
        overlap = self._overlaps()[present]
        names = [self._class_names[label].replace(" ", "_") for label in present]
        return {
            "miou": torch.from_numpy(overlap).mean().item(),
            "pixel_accuracy": float(100.0 * (hits.sum() / true.sum())),
            **{f"iou_{name}": value for name, value in zip(names, overlap.tolist(), strict=True)},
        }

    def evaluation(self, class_names: Sequence[str]) -> Evaluation:
        """Return IoU by class, the confusion matrix of pixels, and the calibration of pixels.

        Behind each cell of the matrix are the images with the most of its pixels.
        """
        images = images_with_most(self._cells, CONFUSED_A_CELL)
        return Evaluation(
            class_names=tuple(class_names),
            score="IoU",
            scores=self._overlaps(),
            unit="pixels",
            counts=self.confusion.sum(1),
            calibration=self._bins,
            confusion=self.confusion,
            confused=most_confused(self.confusion, images, limit=NUM_CONFUSED),
        )

    def _overlaps(self) -> NDArray[np.float64]:
        """Return the IoU of each class in percent; NaN for one without a pixel in the test set."""
        hits, true = self.confusion.diagonal(), self.confusion.sum(1)
        union = true + self.confusion.sum(0) - hits
        return np.where(true > 0, 100.0 * hits / np.maximum(union, 1), np.nan)
