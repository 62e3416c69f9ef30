"""Top-1 accuracy and mean cross-entropy over a whole test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F


class ClassificationMetrics:
    """Counts correct answers and adds up losses, on the device of the outputs."""

    def __init__(self) -> None:
        # Kept as tensors until `compute`, so that no batch waits for the device.
        self._correct: list[Tensor] = []
        self._loss: list[Tensor] = []
        self._count = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch of logits (b, k) against labels (b,)."""
        self._correct.append((outputs.argmax(1) == targets).sum())
        self._loss.append(F.cross_entropy(outputs.double(), targets, reduction="sum"))
        self._count += targets.shape[0]

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes."""
        for other in others:
            self._correct += [count.cpu() for count in other._correct]
            self._loss += [loss.cpu() for loss in other._loss]
            self._count += other._count
        self._correct = [count.cpu() for count in self._correct]
        self._loss = [loss.cpu() for loss in self._loss]

    def compute(self) -> Mapping[str, float]:
        """Return `accuracy` in percent and `test_loss` in nats."""
        if not self._count:
            return {"accuracy": float("nan"), "test_loss": float("nan")}
        return {
            "accuracy": 100.0 * torch.stack(self._correct).sum().item() / self._count,
            "test_loss": torch.stack(self._loss).sum().item() / self._count,
        }
