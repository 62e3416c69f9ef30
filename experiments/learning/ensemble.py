"""An ensemble of networks as one learner: posterior samples from networks trained apart.

Source: Lakshminarayanan, Pritzel & Blundell, NeurIPS 2017 (arXiv 1612.01474); for active learning
Beluch, Genewein, Nuernberger & Koehler, CVPR 2018. The members have the same labels, and their own
weights, order and augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from al_core import IndexArray, Prediction, stream_seed
from al_core.errors import InvalidSetting, require_positive
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.settings.config import CycleSettings
from experiments.tasks.base import Task


class EnsembleLearner(TaskLearner):
    """A `TaskLearner` with companions, whose predictions are its posterior samples.

    The first member is the network that a single learner would train from this seed: it alone is
    evaluated, drawn and saved, so that strategies are compared on networks of one kind.

    Args:
        task: As of a single learner, like all others.
        engine: What it computes on.
        size: Networks, at least 2.
        cycle: Training length and schedule; fresh weights in every cycle.
        others: The remaining settings.

    Raises:
        InvalidSetting: A size below 2, or a warm start: only the first member is saved.
    """

    def __init__(
        self, task: Task, engine: Engine, *, size: int, cycle: CycleSettings, **others: Any
    ) -> None:
        require_positive("strategy.ensemble_size", size)
        if size < 2:
            raise InvalidSetting(f"strategy.ensemble_size must be at least 2, got {size}")
        if cycle.warm_start:
            raise InvalidSetting(
                "an ensemble starts from fresh weights, so that its members differ: "
                "cycle.warm_start=false"
            )
        super().__init__(task, engine, cycle=cycle, **others)
        self._companions = [
            TaskLearner(task, engine, cycle=cycle, **others) for _ in range(size - 1)
        ]

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Train all members; what is returned is the first one's, the steps are those of all."""
        fitted = super().fit(labeled, seed=seed)
        steps = fitted["optimizer_steps"]
        for number, companion in enumerate(self._companions, start=1):
            own = companion.fit(labeled, seed=stream_seed(seed, number, "ensemble"))
            steps += own["optimizer_steps"]
        return {**fitted, "optimizer_steps": steps}

    def predict(self, images: Tensor) -> Prediction:
        """Return the first member's prediction, with the samples of all side by side."""
        first = super().predict(images)
        members = [first, *(companion.predict(images) for companion in self._companions)]
        samples = [
            member.log_probs[:, None] if member.log_prob_samples is None
            else member.log_prob_samples
            for member in members
        ]  # fmt: skip
        return replace(first, log_prob_samples=torch.cat(samples, dim=1))
