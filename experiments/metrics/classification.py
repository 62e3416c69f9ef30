"""Top-1 accuracy and mean cross-entropy over a whole test set."""

from __future__ import annotations

import math
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
        self._correct.append((outputs.argmax(1) == targets).sum())
        log_probs = outputs.double().log_softmax(1)
        self._loss.append(-log_probs.gather(1, targets[:, None]).sum())
        self._count += targets.shape[0]

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes, which may have used other devices."""
        for other in others:
            self._correct += other._correct
            self._loss += other._loss
            self._count += other._count

    def compute(self) -> Mapping[str, float]:
        """Return `accuracy` in percent and `test_loss` in nats."""
        if not self._count:
            return {"accuracy": float("nan"), "test_loss": float("nan")}
        return {
            "accuracy": 100.0 * sum(count.item() for count in self._correct) / self._count,
            "test_loss": math.fsum(loss.item() for loss in self._loss) / self._count,
        }
