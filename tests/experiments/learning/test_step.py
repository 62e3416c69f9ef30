"""Steps of training that are recorded and replayed; a CPU does the recorded work again instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from experiments.learning import step as steps
from experiments.learning import training
from experiments.learning.step import RecordedSteps, StepResult, TrainingStep
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, weights
from tests.experiments.small_tasks import TinyNet, small_data, small_learner


class Again:
    """A recording that does the work again, on what its buffers hold by then."""

    made = 0

    def __init__(self, work: Callable[[], StepResult], generator: torch.Generator) -> None:
        Again.made += 1
        self.replay = work


def fitted(*, recording: bool, monkeypatch: pytest.MonkeyPatch, **fit: Any) -> Any:
    """Train with or without recorded steps; return weights and what `fit` returned."""
    Again.made = 0
    task = Classification(small_data(), TinyNet)
    task.targets.reveal(EVERY)
    if recording:
        monkeypatch.setattr(training, "can_record", lambda *_: True)
        monkeypatch.setattr(
            training, "RecordedSteps", lambda step: RecordedSteps(step, record=Again)
        )
        monkeypatch.setattr(steps, "WORTH_RECORDING", 4)
    else:
        monkeypatch.undo()
    learner = small_learner(task, lr=0.0625, **fit)  # exact in float32
    returned = learner.fit(EVERY[:12], seed=0)
    return weights(learner), dict(returned)


@pytest.mark.parametrize("detach_at", [0.0, 0.5, 1.0])
def test_recorded_steps_train_as_others(detach_at: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replays read new images, labels and learning rates: weights and record are the same."""
    fit = {"epochs": 16, "head": {"detach_at": detach_at}}
    recorded, summary = fitted(recording=True, monkeypatch=monkeypatch, **fit)
    # Two sizes of batches, 8 and 4, in one phase or in two.
    assert Again.made == (2 if detach_at in (0.0, 1.0) else 4)
    usual, usual_summary = fitted(recording=False, monkeypatch=monkeypatch, **fit)
    assert recorded.keys() == usual.keys()
    for name, value in usual.items():
        torch.testing.assert_close(recorded[name], value, msg=name)
    assert summary == pytest.approx(usual_summary)


def test_a_milestone_reaches_recorded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that changes after the recording is that of the replays."""
    fit = {"epochs": 16, "milestones": (0.75,), "gamma": 0.0}
    _, after = fitted(recording=True, monkeypatch=monkeypatch, **fit)
    _, expected = fitted(recording=False, monkeypatch=monkeypatch, **fit)
    assert after["train_loss"] == pytest.approx(expected["train_loss"])


def test_what_cannot_be_recorded_is_trained_as_usual(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed recording is reported once, and changes nothing."""
    fit = {"epochs": 16, "head": True}

    def refuse(work: Any, generator: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Again, "__new__", lambda cls, *arguments: refuse(*arguments))
    recorded, _ = fitted(recording=True, monkeypatch=monkeypatch, **fit)
    assert [each.message for each in caplog.records if "recorded" in each.message] == [
        "training steps cannot be recorded, they go on as usual: "
        "operation not permitted when stream is capturing"
    ]
    usual, _ = fitted(recording=False, monkeypatch=monkeypatch, **fit)
    assert all(torch.equal(recorded[name], value) for name, value in usual.items())


def test_few_steps_are_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recording that would hardly be replayed is not made."""
    fitted(recording=True, monkeypatch=monkeypatch, epochs=6)
    assert Again.made == 0


def test_the_step_alone_is_what_is_recorded() -> None:
    """A step returns the losses before its update, one for each image."""
    task = Classification(small_data(), TinyNet)
    learner = small_learner(task, head=False)
    model = learner.training.fresh_model(seed=0)
    step = TrainingStep(
        task, learner.engine, model, torch.optim.SGD(model.parameters(), lr=0.0),
        torch.Generator(), head_loss=None, head_weight=1.0, max_grad_norm=None,
    )  # fmt: skip
    images = task.pool_images(np.arange(4))
    result = step(images, torch.zeros(4, dtype=torch.int64), steps.Phase(False, False))
    assert result.losses.shape == (4,)
    assert result.ranking_accuracy is None
