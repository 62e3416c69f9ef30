"""Small learners and outputs for tests of the segmentation task."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.segmenter import Segmented
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.segmentation import Segmentation

EVERY = np.arange(20)


def small_learner(
    task: Segmentation, *, seed: int | None = 0, lr: float = 0.05, **head: Any
) -> TaskLearner:
    """A learner of a few steps; trained, unless seed is None."""
    learner = TaskLearner(
        task,
        Engine(device="cpu", num_threads=1),
        Recipe(
            CycleSettings(initial_size=6, query_size=4, candidates=None, epochs=2, batch_size=4),
            OptimizerSettings(lr=lr),
            LossPredictionSettings(
                **{"enabled": True, "pool_size": 2, "width": 4, "weight": 0.01, **head}
            ),
        ),
    )
    task.targets.reveal(EVERY[:6])
    if seed is not None:
        learner.fit(EVERY[:6], seed=seed)
    return learner


def random_outputs(b: int = 3, k: int = 4, h: int = 10, w: int = 12) -> Segmented:
    """Return outputs like those of a network."""
    generator = torch.Generator().manual_seed(0)
    return Segmented(torch.randn(b, k, h, w, generator=generator).log_softmax(1))
