"""Learners for the tests."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from al_core import Prediction
from experiments.learning.learner import TaskLearner
from experiments.tasks.classification import Classification
from tests.experiments.small_tasks import TinyNet

LABELED = np.array([7, 3, 40, 41, 12, 33, 20, 5, 8, 19, 28, 31])
EVERY = np.arange(50)


def annotated(task: Classification) -> Classification:
    """Give the labels of LABELED."""
    task.targets.reveal(LABELED)
    return task


def log_probs(prediction: Prediction) -> Tensor:
    """Extract all classes."""
    return prediction.log_probs


def weights(learner: TaskLearner) -> dict[str, Tensor]:
    """Return the weights of the backbone, under the same names with and without the module."""
    state = learner.model.state_dict()
    with_module = "loss_pred.weight" in state
    return {
        key.removeprefix("base_model."): value.clone()
        for key, value in state.items()
        if key.startswith("base_model.") or not with_module
    }


def net(learner: TaskLearner) -> TinyNet:
    """Return the backbone of a learner with the module."""
    base = learner.model.base_model
    assert isinstance(base, TinyNet)
    return base
