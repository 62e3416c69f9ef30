"""A learner that keeps the network of an earlier moment of its training.

Source: Temporal Output Discrepancy, Huang et al., ICCV 2021: the change of a sample's output
between two moments of training bounds its loss from below, and needs no label and no module.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from al_core import IndexArray, Prediction
from experiments.engine.engine import Engine
from experiments.learning.checkpointing import Moment
from experiments.learning.learner import TaskLearner
from experiments.settings.recipe import Recipe
from experiments.tasks.base import Task


class SnapshotLearner(TaskLearner):
    """A `TaskLearner` whose posterior samples are an earlier network of its training and the last.

    Differs: the paper compares the last networks of two cycles, of which the second starts from the
    first; here every cycle starts from fresh weights, so both moments are of one cycle, as in the
    paper's derivation.

    Args:
        task: Data, model, loss and metric.
        engine: Devices and processes.
        recipe: How the model is trained.
        at: The moment, as a fraction of the training length, in (0, 1).
        others: The remaining arguments of `TaskLearner`.
    """

    def __init__(
        self, task: Task, engine: Engine, recipe: Recipe, *, at: float, **others: Any
    ) -> None:
        super().__init__(task, engine, recipe, **others)
        self._at = at
        self._earlier = TaskLearner(task, engine, recipe, **others)

    def _fit(self, images: IndexArray, *, seed: int, **more: Any) -> Mapping[str, float]:
        """Train, and keep the weights at that moment."""
        num_epochs = self.training.num_epochs(images.size)
        moment = Moment(max(1, math.floor(self._at * num_epochs)) - 1)
        measured = super()._fit(images, seed=seed, **{**more, "moment": moment})
        assert moment.weights is not None, "the moment lies in the training"
        self._earlier.load_state_dict(moment.weights)
        return measured

    def predict(self, images: Tensor) -> Prediction:
        """Return the prediction, with the earlier network's and its own as posterior samples."""
        last = super().predict(images)
        before = self._earlier.predict(images)
        samples = torch.stack([before.log_probs, last.log_probs], dim=1)
        return replace(last, log_prob_samples=samples)
