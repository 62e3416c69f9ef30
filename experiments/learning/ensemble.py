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
from experiments.settings.recipe import Recipe
from experiments.tasks.base import Task


class EnsembleLearner(TaskLearner):
    """A `TaskLearner` with companions, whose predictions are its posterior samples.

    The first member is the network that a single learner would train from this seed: it alone is
    evaluated, drawn and saved, so that strategies are compared on networks of one kind.

    Args:
        task: Data, model, loss and metric.
        engine: Devices and processes.
        recipe: How every member is trained; fresh weights in every cycle.
        size: The number of networks, at least 2.
        others: The remaining arguments of `TaskLearner`.

    Raises:
        InvalidSetting: A size below 2, or a warm start, since only the first member is saved.
    """

    def __init__(
        self, task: Task, engine: Engine, recipe: Recipe, *, size: int, **others: Any
    ) -> None:
        require_positive("strategy.ensemble_size", size)
        if size < 2:
            raise InvalidSetting(f"strategy.ensemble_size must be at least 2, got {size}")
        if recipe.cycle.warm_start:
            raise InvalidSetting(
                "an ensemble starts from fresh weights, so that its members differ: "
                "cycle.warm_start=false"
            )
        super().__init__(task, engine, recipe, **others)
        self._companions = [TaskLearner(task, engine, recipe, **others) for _ in range(size - 1)]

    def _fit(self, images: IndexArray, *, seed: int, **more: Any) -> Mapping[str, float]:
        """Train all members; return the first one's measurements with the steps of all."""
        size = 1 + len(self._companions)
        steps = 0.0
        measured: list[Mapping[str, float]] = []
        for number, fit in enumerate([super()._fit, *(each._fit for each in self._companions)]):
            checkpoint = self._checkpoint
            if checkpoint is not None:
                checkpoint = checkpoint.of_member(number, is_last=number + 1 == size)
            own = fit(
                images,
                seed=stream_seed(seed, number, "ensemble") if number else seed,
                checkpoint=checkpoint,
                prefix=f"network {number + 1} of {size}, ",
            )
            steps += own["optimizer_steps"]
            measured.append(own)
        return {**measured[0], "optimizer_steps": steps}

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
