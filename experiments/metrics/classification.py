"""Top-1 accuracy, its mean over the classes, and mean cross-entropy over a whole test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from experiments.metrics.declaration import Column, percentage
from experiments.metrics.evaluation import Evaluation, calibration, most_confused

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

COLUMNS = (
    percentage("accuracy", "accuracy"),
    percentage("balanced_accuracy", "balanced accuracy"),
    Column("test_loss", "test loss", "metric", "smaller", unit="nats", lowest=0),
)
"""The columns that `ClassificationMetrics` computes."""

NUM_CONFUSED, CONFUSED_A_CELL = 48, 4
"""Images behind the confusion matrix that are named at most: of all cells, and of each."""


class ClassificationMetrics:
    """Answers with their confidences, and the sum of losses, kept on the device of the outputs."""

    def __init__(self) -> None:
        # Kept as tensors until `compute`, so that no batch waits for the device.
        self._loss: list[Tensor] = []
        self._answers: list[Tensor] = []  # (3, b) each: true class, predicted class, confidence

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch of logits (b, k) against labels (b,)."""
        import torch  # loaded by now, and not by a report
        from torch.nn.functional import cross_entropy

        exact, predicted = outputs.double(), outputs.argmax(1)
        self._loss.append(cross_entropy(exact, targets, reduction="sum"))
        confidence = exact.softmax(1).amax(1)
        self._answers.append(torch.stack([targets.double(), predicted.double(), confidence]))

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes, which may have used other devices."""
        for name in ("_loss", "_answers"):
            parts = [part for each in (self, *others) for part in getattr(each, name)]
            setattr(self, name, [part.cpu() for part in parts])

    def compute(self) -> Mapping[str, float]:
        """Return `accuracy` and `balanced_accuracy` in percent, and `test_loss` in nats.

        Balanced accuracy is the mean of the accuracies of the classes that the test set has: rare
        classes weigh as much as frequent ones.
        """
        import torch

        if not self._answers:
            return dict.fromkeys((column.name for column in COLUMNS), float("nan"))
        true, predicted = torch.cat(self._answers, 1)[:2].long()
        counts, total = true.bincount(), len(true)
        correct = true[predicted == true].bincount(minlength=len(counts))
        tested = counts > 0
        return {
            "accuracy": 100.0 * correct.sum().item() / total,
            "balanced_accuracy": 100.0 * (correct[tested].double() / counts[tested]).mean().item(),
            "test_loss": torch.stack(self._loss).sum().item() / total,
        }

    def evaluation(self, class_names: Sequence[str]) -> Evaluation:
        """Return accuracy by class, confusion matrix and calibration.

        Behind each cell of the matrix are the images whose wrong answer was the most confident.
        """
        import torch

        k = len(class_names)
        answers = torch.cat([torch.zeros(3, 0, dtype=torch.float64), *self._answers], 1).numpy()
        (true, predicted), confidence = answers[:2].astype(np.int64), answers[2]
        confusion = np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)
        counts = confusion.sum(1)
        with np.errstate(invalid="ignore"):
            scores = 100.0 * confusion.diagonal() / counts
        images: dict[tuple[int, int], list[int]] = {}
        wrong = np.flatnonzero(true != predicted)
        for image in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist():
            cell = images.setdefault((int(true[image]), int(predicted[image])), [])
            if len(cell) < CONFUSED_A_CELL:
                cell.append(image)
        return Evaluation(
            class_names=tuple(class_names),
            score="accuracy",
            scores=scores,
            unit="images",
            counts=counts,
            calibration=calibration(confidence, true == predicted),
            confusion=confusion,
            confused=most_confused(confusion, images, limit=NUM_CONFUSED),
        )
