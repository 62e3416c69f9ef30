"""Semi-supervised training: thresholds and losses of FlexMatch, and training with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.learning.pseudo_labels import RATIO, THRESHOLD, FlexMatch
from experiments.learning.training import Training
from experiments.settings.recipe import CycleSettings, OptimizerSettings, Recipe
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, LABELED, annotated, weights
from tests.experiments.small_tasks import (
    TinyNet,
    cpu_engine,
    lenet_task,
    small_data,
    small_learner,
    small_task,
)

UNLABELED = np.setdiff1d(EVERY, LABELED)


def flexmatch(count: int = 10) -> FlexMatch:
    """Pseudo-labels of some images of three classes."""
    return FlexMatch(np.arange(100, 100 + count), 3, seed=0)


def sure_of(classes: list[int], probability: float = 0.99) -> torch.Tensor:
    """Log-probabilities (u, 3) that give one class this probability."""
    rest = (1 - probability) / 2
    probabilities = torch.full((len(classes), 3), rest)
    probabilities[torch.arange(len(classes)), classes] = probability
    return probabilities.log()


def test_every_image_is_drawn_once_before_any_comes_again() -> None:
    """A batch has `RATIO` unlabeled images a labeled one, at most all of them, and none twice."""
    pseudo_labels = flexmatch(10)
    drawn = [pseudo_labels.draw(1) for _ in range(10)]
    assert [rows.size for rows in drawn] == [RATIO] * 10
    assert all(np.unique(rows).size == rows.size for rows in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=10)
    assert counts.max() - counts.min() <= 1
    assert pseudo_labels.draw(5).tolist() != list(range(10))
    assert sorted(pseudo_labels.draw(5).tolist()) == list(range(10))


def test_thresholds_follow_what_has_been_learned() -> None:
    """They are those of equations 7, 8 and 11 of the paper, for counts that are known."""
    pseudo_labels = flexmatch(10)
    assert pseudo_labels.thresholds().tolist() == [0, 0, 0]
    pseudo_labels.loss(np.arange(6), sure_of([0, 0, 0, 0, 1, 1]), sure_of([0] * 6))
    # Four images are not learned, as many as those of the first class.
    effect = torch.tensor([4 / 4, 2 / 4, 0])
    assert pseudo_labels.thresholds().tolist() == pytest.approx(
        (THRESHOLD * effect / (2 - effect)).tolist()
    )
    pseudo_labels.loss(np.arange(4), sure_of([2, 2, 2, 2]), sure_of([0] * 4))
    assert pseudo_labels.thresholds().tolist() == pytest.approx(
        [0, THRESHOLD * 0.5 / 1.5, THRESHOLD]
    )


def test_loss_counts_images_that_are_sure_enough() -> None:
    """Strong predictions are scored against weak ones above the threshold of their class."""
    pseudo_labels = flexmatch(4)
    weak, strong = sure_of([0, 0, 1, 1], 0.96), sure_of([0, 1, 1, 2], 0.7)
    everything = F.nll_loss(strong, torch.tensor([0, 0, 1, 1]))
    loss = pseudo_labels.loss(np.arange(4), weak, strong)
    torch.testing.assert_close(loss, everything)  # all thresholds were 0
    unsure = sure_of([0, 0, 1, 2], 0.6)  # the third class has not been learned: its threshold is 0
    loss = pseudo_labels.loss(np.arange(4), unsure, strong)
    torch.testing.assert_close(loss, -strong[3, 2] / 4)


def test_no_gradient_flows_to_the_slightly_changed_images() -> None:
    """Only strong predictions learn; otherwise the network would make itself sure."""
    weak, strong = sure_of([0, 1]).requires_grad_(), sure_of([1, 0]).requires_grad_()
    flexmatch(2).loss(np.arange(2), weak, strong).backward()  # type: ignore[no-untyped-call]
    assert weak.grad is None
    assert strong.grad is not None
    assert strong.grad.abs().sum() > 0


class Loaded(Classification):
    """Keeps which images of the pool were loaded without their labels."""

    def pool_images(self, indices: Any) -> Any:
        """Load as ever."""
        self.loaded = getattr(self, "loaded", set()) | set(indices.tolist())
        return super().pool_images(indices)


def trained(**cycle: Any) -> tuple[Loaded, dict[str, torch.Tensor]]:
    """Train with few labels."""
    task = Loaded(small_data(unreadable=(0, 1)), TinyNet)
    annotated(task)
    learner = small_learner(task, **cycle)
    learner.fit(LABELED, seed=0)
    return task, weights(learner)


def test_training_sees_unlabeled_images_and_never_their_labels() -> None:
    """All readable unlabeled images are trained on, though the oracle has given no label of them.

    Reading a label that was not given is an error of `HiddenTargets`.
    """
    task, with_unlabeled = trained(semi_supervised="flexmatch", epochs=5)
    assert task.loaded == set(UNLABELED.tolist()) - {0, 1}
    task, without = trained(epochs=5)
    assert not hasattr(task, "loaded")
    assert any(not torch.equal(with_unlabeled[key], without[key]) for key in without)
    _, again = trained(semi_supervised="flexmatch", epochs=5)
    assert all(torch.equal(with_unlabeled[key], again[key]) for key in again)


def test_a_pool_without_unlabeled_images_trains_as_ever() -> None:
    """When everything is labeled there is nothing to predict labels for."""
    states = []
    for how in (None, "flexmatch"):
        task = lenet_task()
        task.targets.reveal(EVERY)
        learner = small_learner(task, semi_supervised=how)
        learner.fit(EVERY, seed=0)
        states.append(weights(learner))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_module_is_trained_on_the_losses_of_labeled_images() -> None:
    """Predicted losses of unlabeled images have no true ones to be compared with."""
    learner = small_learner(annotated(small_task()), head=True, semi_supervised="flexmatch")
    assert 0 <= learner.fit(LABELED, seed=0)["train_ranking_accuracy"] <= 1


def test_other_tasks_and_unknown_ways_are_refused() -> None:
    """The line names the key and what is permitted."""
    with pytest.raises(InvalidSetting, match=r"cycle\.semi_supervised must be null or flexmatch"):
        small_learner(small_task(), semi_supervised="mixmatch")

    cycle = CycleSettings(10, 5, None, 2, 8, semi_supervised="flexmatch")

    class Boxes:
        """A task whose images have several predictions."""

    with pytest.raises(InvalidSetting, match="serves classification only"):
        Training(Boxes(), cpu_engine(), Recipe(cycle, OptimizerSettings(lr=0.1)))  # type: ignore[arg-type]
