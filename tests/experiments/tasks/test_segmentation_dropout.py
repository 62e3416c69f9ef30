"""Monte-Carlo dropout of the segmentation task."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from al_core import bald, entropy
from al_core.errors import InvalidSetting
from experiments.models.drn import WholeImageDRN
from experiments.models.dropout import LayerDropout
from experiments.settings.composition import build, plain
from experiments.settings.run_config import RunConfig
from tests.experiments.segmentation_trees import small_task
from tests.experiments.tasks.segmenters import EVERY, small_learner
from tests.small_runs import compose


class CountedPasses:
    """Counts the forward passes of networks, and those in which every stage dropped something."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.passes = self.sampled = self._dropped = 0
        forward, alike = WholeImageDRN.forward, LayerDropout._alike

        def counting(model: WholeImageDRN, x: Tensor) -> Any:
            self._dropped = 0
            outputs = forward(model, x)
            if not model.training:
                self.passes += 1
                self.sampled += self._dropped == len(model.get_dropout_layer_names())
            return outputs

        def dropping(dropout: LayerDropout, given: Tensor) -> Tensor:
            self._dropped += 1
            return alike(dropout, given)

        monkeypatch.setattr(WholeImageDRN, "forward", counting)
        monkeypatch.setattr(LayerDropout, "_alike", dropping)


@pytest.mark.parametrize("strategy", ["bald", "mc_dropout_entropy", "mc_dropout_variance"])
def test_ten_passes_are_ten_passes(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strategies that announce 10 posterior samples get 10, beside the one without dropout."""
    config = compose("task=drn_cityscapes", "data=digits", f"strategy={strategy}")
    assert config.task.build.mc_dropout_passes == config.strategy.mc_dropout_passes == 10
    task = small_task(mc_dropout_passes=config.task.build.mc_dropout_passes)
    learner = small_learner(task, enabled=False)
    shapes = []
    counted = CountedPasses(monkeypatch)
    acquisition = build(plain(config.strategy.query), where="strategy.query").acquisition

    def scored(prediction: Any) -> Tensor:
        shapes.append(tuple(prediction.log_prob_samples.shape))
        scores: Tensor = acquisition(prediction)
        return scores

    assert learner.infer(EVERY, scored).shape == (20,)
    assert shapes == [(20, 10, 4, 48, 64)]
    assert (counted.passes, counted.sampled) == (11, 10)


def test_samples_are_taken_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other strategies cost one pass, on a network with dropout too, and get no samples."""
    config = compose("task=drn_cityscapes", "data=digits", "strategy=entropy")
    assert config.task.build.mc_dropout_passes == 0
    task = small_task(dropout=True)
    learner = small_learner(task)
    counted = CountedPasses(monkeypatch)
    learner.infer(EVERY, entropy)
    assert (counted.passes, counted.sampled) == (1, 0)
    with pytest.raises(InvalidSetting, match="posterior samples"):
        learner.infer(EVERY, bald)


def test_samples_differ_and_are_the_same_again() -> None:
    """Samples are drawn from the run's seed: they differ among each other, not between calls."""
    learner = small_learner(small_task(mc_dropout_passes=3))

    def spread(prediction: Any) -> Tensor:
        samples: Tensor = prediction.log_prob_samples
        return samples.mean((2, 3, 4)).double()

    torch.manual_seed(1)
    first = learner.infer(EVERY[:4], spread)
    torch.manual_seed(2)
    again = learner.infer(EVERY[:4], spread)
    assert torch.equal(first, again)
    assert len(set(first[0].tolist())) == 3
    other = small_learner(small_task(mc_dropout_passes=3), seed=1)
    assert not torch.allclose(other.infer(EVERY[:4], spread), first)


def test_samples_do_not_depend_on_the_batch() -> None:
    """An image is asked of the same drawn networks whatever its batch and its place in it."""
    task = small_task(mc_dropout_passes=2)
    learner = small_learner(task)
    together = learner.infer(EVERY, lambda prediction: prediction.log_prob_samples.mean((3, 4)))
    task.eval_batch_size = 3
    apart = learner.infer(EVERY[::-1], lambda prediction: prediction.log_prob_samples.mean((3, 4)))
    torch.testing.assert_close(apart.flip(0), together, atol=1e-4, rtol=1e-4)


def test_evaluation_and_predictions_are_without_dropout() -> None:
    """The network that is evaluated is one network: log_probs do not change between calls."""
    learner = small_learner(small_task(mc_dropout_passes=2))
    assert learner.evaluate() == learner.evaluate()
    first, again = (learner.infer(EVERY[:4], entropy) for _ in range(2))
    assert torch.equal(first, again)


def test_a_task_that_cannot_sample_is_refused_before_it_trains() -> None:
    """strategy=bald on a task without posterior samples is one clear line at the start."""
    with pytest.raises(InvalidSetting, match="strategy=bald needs posterior samples"):
        RunConfig.of(
            compose("task=cifar10", "data=digits", "strategy=bald", "~task.build.mc_dropout_passes")
        )
