"""Top-1 accuracy, its mean over the classes, and mean cross-entropy over a whole test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from experiments.metrics.declaration import Column, percentage

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

COLUMNS = (
    percentage("accuracy", "accuracy"),
    percentage("balanced_accuracy", "balanced accuracy"),
    Column("test_loss", "test loss", "metric", "smaller", unit="nats", lowest=0),
)
"""The columns that `ClassificationMetrics` computes."""


class ClassificationMetrics:
    """Number of correct answers by class and sum of losses, kept on the device of the outputs."""

    def __init__(self) -> None:
        # Kept as tensors until `compute`, so that no batch waits for the device.
        self._correct: list[Tensor] = []  # int64 (k,) each, by true class
        self._counts: list[Tensor] = []  # int64 (k,) each
        self._loss: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch of logits (b, k) against labels (b,)."""
        from torch.nn.functional import cross_entropy, one_hot  # loaded by now, and not by a report

        members = one_hot(targets, outputs.shape[1])
        self._correct.append((members * (outputs.argmax(1) == targets)[:, None]).sum(0))
        self._counts.append(members.sum(0))
        self._loss.append(cross_entropy(outputs.double(), targets, reduction="sum"))

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes, which may have used other devices."""
        for name in ("_correct", "_counts", "_loss"):
            parts = [part for each in (self, *others) for part in getattr(each, name)]
            setattr(self, name, [part.cpu() for part in parts])

    def compute(self) -> Mapping[str, float]:
        """Return `accuracy` and `balanced_accuracy` in percent, and `test_loss` in nats.

        Balanced accuracy is the mean of the accuracies of the classes that the test set has: rare
        classes weigh as much as frequent ones.
        """
        import torch

        if not self._counts:
            return dict.fromkeys((column.name for column in COLUMNS), float("nan"))
        correct, counts = torch.stack(self._correct).sum(0), torch.stack(self._counts).sum(0)
        total, tested = counts.sum().item(), counts > 0
        return {
            "accuracy": 100.0 * correct.sum().item() / total,
            "balanced_accuracy": 100.0 * (correct[tested].double() / counts[tested]).mean().item(),
            "test_loss": torch.stack(self._loss).sum().item() / total,
        }
