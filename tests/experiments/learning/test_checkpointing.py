"""Checkpoints within a training: a training that was interrupted ends as if nothing had been."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from al_core import IndexArray
from experiments.data.samples import Batch
from experiments.data.targets import Targets
from experiments.learning.checkpointing import Clock, TrainingCheckpoint
from experiments.learning.ensemble import EnsembleLearner
from experiments.learning.learner import TaskLearner
from experiments.learning.snapshot import SnapshotLearner
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, LABELED, annotated, log_probs
from tests.experiments.small_tasks import TinyNet, cpu_engine, small_data

STEPS = 4 * 3  # four epochs of 12 images in batches of 5, 5 and 2
ADAMW = OptimizerSettings(lr=0.05, target="torch.optim.AdamW", momentum=None, nesterov=None)
Make = Callable[..., TaskLearner]


class Killed(BaseException):
    """The end of a process, which nothing may catch."""


class Fragile(Classification):
    """A task that ends the process when a batch is loaded, and counts batches."""

    loaded = 0
    dies_at: int | None = None

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load a batch, or die."""
        if self.loaded == self.dies_at:
            raise Killed
        self.loaded += 1
        return super().training_batch(indices, targets, seed=seed)


def made(
    file: Path | None = None,
    *,
    kind: Any = TaskLearner,
    optimizer: OptimizerSettings | None = None,
    minutes: float | None = 0.0,
    settings: Mapping[str, str] | None = None,
    labels: str = "",
    **cycle: Any,
) -> TaskLearner:
    """Make a learner with dropout, batch normalization and a loss-prediction module."""
    values = {"initial_size": 10, "query_size": 5, "candidates": None, "epochs": 4, **cycle}
    recipe = Recipe(
        CycleSettings(batch_size=5, milestones=(0.5,), **values),
        optimizer or OptimizerSettings(lr=0.05),
        LossPredictionSettings(enabled=True, width=4, warm_up_epochs=1, detach_at=0.6),
    )
    checkpoint = None
    if file is not None:
        checkpoint = TrainingCheckpoint(file, Clock(minutes), settings or {}, labels=labels)
    task = annotated(Fragile(small_data(), TinyNet))
    learner: TaskLearner = kind(task, cpu_engine(), recipe, checkpoint=checkpoint)
    return learner


def task_of(learner: TaskLearner) -> Fragile:
    """Return the task."""
    assert isinstance(learner.task, Fragile)
    return learner.task


def interrupted(make: Make, file: Path, at: int, **more: Any) -> TaskLearner:
    """Return a learner that was killed at a step and went on in another process."""
    first = make(file, **more)
    task_of(first).dies_at = at
    with pytest.raises(Killed):
        first.fit(LABELED, seed=3)
    return make(file, **more)


def state(learner: TaskLearner) -> dict[str, Tensor]:
    """Return the weights and statistics."""
    return learner.model.state_dict()


def assert_same(one: TaskLearner, other: TaskLearner) -> None:
    """Check weights and answers, bit for bit."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(one.infer(EVERY, log_probs), other.infer(EVERY, log_probs))


@pytest.mark.parametrize("at", [1, 3, 7, STEPS - 1])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"optimizer": ADAMW},
        {"schedule": "cosine"},
        {"semi_supervised": "flexmatch"},
        {"optimizer": OptimizerSettings(lr=0.05, warm_up=0.4, max_grad_norm=1.0)},
    ],
)
def test_a_killed_training_ends_with_the_same_bits(
    tmp_path: Path, at: int, more: dict[str, Any]
) -> None:
    """After any step, inside an epoch or at its end: weights, statistics and measurements."""
    whole = made(**more)
    expected = dict(whole.fit(LABELED, seed=3))
    resumed = interrupted(made, tmp_path / "training.pt", at, **more)
    assert dict(resumed.fit(LABELED, seed=3)) == expected
    assert task_of(resumed).loaded == STEPS - at  # it did not begin anew
    assert_same(whole, resumed)


def test_a_trained_network_is_not_trained_again(tmp_path: Path) -> None:
    """A process that is killed while it evaluates or scores goes on with these."""
    first = made(tmp_path / "training.pt")
    expected = dict(first.fit(LABELED, seed=3))
    second = made(tmp_path / "training.pt")
    assert dict(second.fit(LABELED, seed=3)) == expected
    assert task_of(second).loaded == 0
    assert_same(first, second)


def test_a_short_training_leaves_no_file(tmp_path: Path) -> None:
    """Nothing is written before the minutes have passed, nor without any."""
    for minutes in (5.0, None):
        made(tmp_path / "training.pt", minutes=minutes).fit(LABELED, seed=3)
    assert list(tmp_path.iterdir()) == []


def test_the_earlier_network_survives(tmp_path: Path) -> None:
    """A learner that keeps a moment of its training has it after a kill before or after it."""

    def make(file: Path | None = None) -> TaskLearner:
        return made(file, kind=lambda *parts, **more: SnapshotLearner(*parts, at=0.5, **more))

    def passes(prediction: Any) -> Tensor:
        samples: Tensor = prediction.log_prob_samples
        return samples

    whole = make()
    whole.fit(LABELED, seed=3)
    for at in (2, 9):
        resumed = interrupted(make, tmp_path / f"{at}.pt", at)
        resumed.fit(LABELED, seed=3)
        assert task_of(resumed).loaded == STEPS - at
        assert torch.equal(whole.infer(EVERY, passes), resumed.infer(EVERY, passes))


def test_each_network_of_an_ensemble_is_kept(tmp_path: Path) -> None:
    """A kill in the second of three networks costs nothing of the first."""

    def make(file: Path | None = None) -> TaskLearner:
        return made(file, kind=lambda *parts, **more: EnsembleLearner(*parts, size=3, **more))

    whole = make()
    expected = dict(whole.fit(LABELED, seed=3))
    resumed = interrupted(make, tmp_path / "training.pt", STEPS + 5)
    assert {file.name for file in tmp_path.iterdir()} == {"training.pt", "training_1.pt"}
    assert dict(resumed.fit(LABELED, seed=3)) == expected
    assert task_of(resumed).loaded == 2 * STEPS - 5
    assert_same(whole, resumed)
    companions = zip(whole._companions, resumed._companions, strict=True)  # type: ignore[attr-defined]
    for one, other in companions:
        assert_same(one, other)


@pytest.mark.parametrize(
    ("saved", "now", "reason"),
    [
        ({"settings": {"optimizer.lr": "0.1"}}, {"settings": {"optimizer.lr": "0.2"}},
         "optimizer.lr was 0.1 and is 0.2"),
        ({"labels": "a"}, {"labels": "b"}, "labels have changed"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_something_else_is_not_used(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    saved: dict[str, Any],
    now: dict[str, Any],
    reason: str,
) -> None:
    """Other settings or changed labels: the training begins anew, and one line says why."""
    file = tmp_path / "training.pt"
    interrupted(made, file, 5, **saved)
    again = made(file, **now)
    with caplog.at_level(logging.WARNING):
        again.fit(LABELED, seed=3)
    assert task_of(again).loaded == STEPS
    (line,) = [one for one in caplog.messages if "is not used" in one]
    assert line == f"{file} is not used, the cycle is trained anew: {reason}"


def test_a_checkpoint_of_other_images_or_a_damaged_one_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As it happens when more annotations have come back, or when a disk fails."""
    file = tmp_path / "training.pt"
    learner = interrupted(made, file, 5)
    kept = file.read_bytes()
    with caplog.at_level(logging.WARNING):
        learner.fit(LABELED[:-1], seed=3)
        file.write_bytes(kept[: len(kept) // 2])
        made(file).fit(LABELED, seed=3)
        file.write_bytes(b"")
        made(file).fit(LABELED, seed=3)
    reasons = [line.partition("anew: ")[2] for line in caplog.messages if "is not used" in line]
    assert reasons[0] == "other images are labeled now"
    assert all(reason.startswith("it cannot be read (") for reason in reasons[1:])
    assert len(reasons) == 3


def test_a_checkpoint_of_an_earlier_cycle_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process killed while it removed the files of a cycle leaves nothing to report."""
    file = tmp_path / "training.pt"
    learner = interrupted(made, file, 5)
    with caplog.at_level(logging.WARNING):
        learner.fit(LABELED, seed=4)
    assert task_of(learner).loaded == STEPS
    assert not any("is not used" in line for line in caplog.messages)


def test_the_clock_is_due_after_its_minutes() -> None:
    """Minutes count from the last start; without any it never is."""
    now = [0.0]
    clock, never = Clock(5, lambda: now[0]), Clock(None, lambda: now[0])
    now[0] = 299.0
    assert not clock.is_due
    now[0] = 300.0
    assert clock.is_due
    clock.restart()
    now[0] = 599.0
    assert not clock.is_due
    now[0] = 1e9
    assert clock.is_due
    assert not never.is_due
