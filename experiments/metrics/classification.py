"""Top-1 accuracy and mean cross-entropy over a whole test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from experiments.metrics.declaration import Column, percentage

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

COLUMNS = (
    percentage("accuracy", "accuracy"),
    Column("test_loss", "test loss", "metric", "smaller", unit="nats", lowest=0),
)
"""The columns that `ClassificationMetrics` computes."""


class ClassificationMetrics:
    """Number of correct answers and sum of losses, kept on the device of the outputs."""

    def __init__(self) -> None:
        # Kept as tensors until `compute`, so that no batch waits for the device.
        self._correct: list[Tensor] = []
        self._loss: list[Tensor] = []
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch of logits (b, k) against labels (b,)."""
        from torch.nn.functional import cross_entropy  # loaded by now, and not by a report

        self._correct.append((outputs.argmax(1) == targets).sum())
        self._loss.append(cross_entropy(outputs.double(), targets, reduction="sum"))
        self._count += targets.shape[0]

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes, which may have used other devices."""
        for other in others:
            self._correct += [count.cpu() for count in other._correct]
            self._loss += [loss.cpu() for loss in other._loss]
            self._count += other._count
        self._correct = [count.cpu() for count in self._correct]
        self._loss = [loss.cpu() for loss in self._loss]

    def compute(self) -> Mapping[str, float]:
        """Return `accuracy` in percent and `test_loss` in nats."""
        import torch

        if not self._count:
            return {"accuracy": float("nan"), "test_loss": float("nan")}
        return {
            "accuracy": 100.0 * torch.stack(self._correct).sum().item() / self._count,
            "test_loss": torch.stack(self._loss).sum().item() / self._count,
        }
