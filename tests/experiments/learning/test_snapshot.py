"""The learner that keeps an earlier network of its training: temporal output discrepancy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from al_core import Prediction, output_discrepancy
from al_core.errors import InvalidSetting
from experiments.learning.snapshot import SnapshotLearner
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.settings.run_config import RunConfig
from tests.experiments.learners import EVERY, LABELED, annotated, log_probs
from tests.experiments.small_tasks import cpu_engine, lenet_task, small_learner
from tests.small_runs import compose


def snapshot_learner(at: float, *, head: bool = False, lr: float = 0.05) -> SnapshotLearner:
    """Make a learner of four epochs with a constant learning rate."""
    cycle = CycleSettings(
        initial_size=10, query_size=5, candidates=None, epochs=4, batch_size=8, milestones=()
    )
    recipe = Recipe(
        cycle,
        OptimizerSettings(lr=lr),
        LossPredictionSettings(enabled=head, width=4, detach_at=0.0),
    )
    return SnapshotLearner(annotated(lenet_task()), cpu_engine(), recipe, at=at)


def passes(prediction: Prediction) -> Tensor:
    """Extract the posterior samples."""
    assert prediction.log_prob_samples is not None
    return prediction.log_prob_samples


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize(("at", "epochs"), [(0.5, 2), (0.76, 3), (0.01, 1)])
def test_the_earlier_network_is_that_of_its_moment(at: float, epochs: int, head: bool) -> None:
    """It is the network of a training that ends there; the last one is as without a snapshot."""
    learner = snapshot_learner(at, head=head)
    learner.fit(LABELED, seed=1)
    found = learner.infer(EVERY, passes)
    for column, length in ((0, epochs), (1, 4)):
        settings = {"detach_at": 0.0} if head else False
        alone = small_learner(annotated(lenet_task()), head=settings, epochs=length, milestones=())
        alone.fit(LABELED, seed=1)
        np.testing.assert_allclose(found[:, column], alone.infer(EVERY, log_probs), atol=1e-5)


def test_a_network_that_does_not_move_has_no_discrepancy() -> None:
    """A training that changes nothing has scores of 0 only, another has none."""
    for lr, still in ((0.0, True), (0.05, False)):
        learner = snapshot_learner(0.5, lr=lr)
        learner.fit(LABELED, seed=0)
        scores = learner.infer(EVERY, output_discrepancy)
        assert scores.shape == (50,)
        assert bool((scores == 0).all()) == still


def test_discrepancy_is_the_distance_of_the_first_and_the_last_pass() -> None:
    """sqrt(2) for two sure and opposite outputs; of positions the mean, maximum or sum."""
    first, middle, last = ([1.0, 0.0], [0.5, 0.5], [0.0, 1.0])
    of_image = Prediction(
        torch.zeros(1, 2), log_prob_samples=torch.tensor([[first, middle, last]]).log()
    )
    assert output_discrepancy(of_image).tolist() == pytest.approx([2**0.5])
    of_two = torch.tensor([[first, last]]).transpose(1, 2)  # two positions, one pass
    samples = torch.stack([of_two, torch.tensor([[first, first]]).transpose(1, 2)], 1).log()
    prediction = Prediction(samples[:, 0], log_prob_samples=samples)
    assert output_discrepancy(prediction).tolist() == pytest.approx([2**0.5 / 2])
    assert output_discrepancy(prediction, aggregation="max").tolist() == pytest.approx([2**0.5])
    with pytest.raises(InvalidSetting, match="at least 2 posterior samples"):
        output_discrepancy(Prediction(torch.zeros(1, 2)))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("strategy.snapshot_at=1", r"strategy\.snapshot_at must be a number, between 0\.01 and"),
        ("strategy.snapshot_at=half", r"strategy\.snapshot_at must be a number"),
        ("+strategy.ensemble_size=3", r"leave out strategy\.ensemble_size"),
        ("+strategy.mc_dropout_passes=3", r"strategy\.mc_dropout_passes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(setting: str, says: str) -> None:
    """Before anything is trained, in one line."""
    with pytest.raises(InvalidSetting, match=says):
        RunConfig.of(compose("data=digits", "strategy=tod", setting))
