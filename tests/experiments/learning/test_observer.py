"""The observer of a run: the ends of epochs."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.learning.observer import CycleObserver, EpochEnd
from tests.experiments.small_tasks import cpu_engine, lenet_task, small_learner


def test_epochs_of_a_training_are_followed() -> None:
    """Every epoch is reported once, with its cycle, its steps so far, and the loss that the
    training returns at its end.
    """
    task = lenet_task()
    learner = small_learner(task, head=False)
    task.targets.reveal(np.arange(20))
    ends: list[tuple[int, EpochEnd]] = []
    learner._observer.start_cycle(3)
    learner._observer.on_epoch = lambda cycle, end: ends.append((cycle, end))
    fitted = learner.fit(np.arange(20), seed=0)
    assert [(cycle, end.epoch, end.num_epochs) for cycle, end in ends] == [(3, 0, 2), (3, 1, 2)]
    assert ends[1][1].step == 2 * ends[0][1].step == fitted["optimizer_steps"]
    assert ends[1][1].loss == pytest.approx(fitted["train_loss"])
    assert ends[0][1].images_per_second > 0
    assert ends[0][1].ranking_accuracy is None


def test_members_of_an_ensemble_do_not_go_back() -> None:
    """Only the first of several trainings of a cycle counts; the next cycle begins anew."""
    observer = CycleObserver(cpu_engine())
    steps: list[tuple[int, int]] = []
    observer.on_epoch = lambda cycle, end: steps.append((cycle, end.step))
    for cycle in (0, 1):
        observer.start_cycle(cycle)
        for step in (5, 10, 5, 10):
            observer.end_epoch(EpochEnd(0, 2, step, 1.0, 0.1, 9.0, None))
    assert steps == [(0, 5), (0, 10), (1, 5), (1, 10)]
