"""A small classification task in memory, for tests of what trains, scores and talks to others."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from experiments.data.classification import ImageClassification
from experiments.data.samples import MemorySamples
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.classification import Classification
from vendored.pytorch_cifar import LeNet

NUM_CLASSES = 3


def small_data(
    num_train: int = 50,
    num_test: int = 23,
    *,
    unreadable: tuple[int, ...] = (),
    unreadable_test: tuple[int, ...] = (),
    size: tuple[int, int] = (32, 32),
    flip: bool = True,
) -> ImageClassification:
    """Random images, each class brighter in a channel of its own."""
    rng = np.random.default_rng(3)
    parts: list[Any] = []
    for part, count, missing in (
        ("train", num_train, unreadable),
        ("test", num_test, unreadable_test),
    ):
        targets = np.arange(count, dtype=np.int64) % NUM_CLASSES
        pixels = rng.integers(0, 160, (count, 3, *size), dtype=np.uint8)
        pixels[np.arange(count), targets] += 60
        names = [f"{part}/{i:03d}.png" for i in range(count)]
        reasons = dict.fromkeys(missing, "made so")
        parts += [MemorySamples(torch.from_numpy(pixels), names, unreadable=reasons), targets]
    return ImageClassification(
        *parts,
        class_names=("red", "green", "blue"),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.25, 0.3),
        flip=flip,
    )


class TinyNet(nn.Module):
    """Batch normalization and dropout, which tell the modes apart; keeps a log of its forwards."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 5, stride=4)
        self.norm = nn.BatchNorm2d(6)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(6, num_classes)
        self.forwards: list[tuple[bool, int]] = []  # (training, batch size)
        self._features = [torch.empty(0)]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, k)."""
        self.forwards.append((self.training, x.shape[0]))
        self._features = [torch.relu(self.norm(self.conv(x)))]
        logits: Tensor = self.linear(self.dropout(self._features[0].mean((2, 3))))
        return logits

    def get_active_learning_feature_channel_counts(self) -> list[int]:
        """As the head wants it."""
        return [6]

    def get_active_learning_features(self) -> list[Tensor]:
        """As the head wants it."""
        return self._features


def small_task(
    data: ImageClassification | None = None, backbone: Any = None, **arguments: Any
) -> Classification:
    """Make the task; nothing is annotated."""
    return Classification(data or small_data(), backbone or TinyNet, **arguments)


def lenet_task(data: ImageClassification | None = None, **arguments: Any) -> Classification:
    """Make the task with a network that has neither batch normalization nor dropout."""
    return small_task(data, partial(LeNet), **arguments)


def cpu_engine(**arguments: Any) -> Engine:
    """One thread of the CPU."""
    return Engine(**{"device": "cpu", "num_threads": 1, **arguments})


def small_learner(
    task: Classification,
    *,
    head: bool | dict[str, Any] = True,
    lr: float = 0.05,
    engine: Engine | None = None,
    optimizer: dict[str, Any] | None = None,
    **cycle: Any,
) -> TaskLearner:
    """Make a learner of two epochs of batches of 8."""
    settings = {
        "initial_size": 10, "query_size": 5, "candidates": None, "epochs": 2, "batch_size": 8,
        **cycle,
    }  # fmt: skip
    more = head if isinstance(head, dict) else {}
    return TaskLearner(
        task,
        engine or cpu_engine(),
        Recipe(
            CycleSettings(**settings),
            OptimizerSettings(lr=lr, **(optimizer or {})),
            LossPredictionSettings(**{"enabled": bool(head), "width": 4, **more}),
        ),
    )
