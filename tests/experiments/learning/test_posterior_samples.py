"""Monte-Carlo dropout before the last layers, and ensembles, on networks that have neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from al_core import Prediction, predictive_entropy
from al_core.errors import InvalidSetting
from experiments.learning.ensemble import EnsembleLearner
from experiments.models.classifier import Classifier
from experiments.models.dropout import LayerDropout
from experiments.settings.composition import build, plain
from experiments.settings.recipe import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.classification import Classification
from tests.experiments.small_tasks import cpu_engine, lenet_task, small_data, small_learner
from tests.test_configs import BACKBONES, CLASSIFIERS
from vendored.pytorch_cifar import LeNet

LABELED = np.arange(12)


def annotated(**arguments: Any) -> Classification:
    """A task with LeNet and some labels."""
    task = lenet_task(**arguments)
    task.targets.reveal(LABELED)
    return task


def samples(prediction: Prediction) -> Tensor:
    """Extract all posterior samples."""
    assert prediction.log_prob_samples is not None
    return prediction.log_prob_samples.flatten(1)


def both(prediction: Prediction) -> Tensor:
    """Extract the prediction and the mean of its samples' probabilities."""
    assert prediction.log_prob_samples is not None
    return torch.cat([prediction.log_probs.exp(), prediction.log_prob_samples.exp().mean(1)], 1)


def test_dropout_changes_no_name_of_a_weight_and_no_first_weight() -> None:
    """A network with dropout by hooks has the keys and, of one seed, the weights of one without."""
    states = []
    for passes in (0, 5):
        torch.manual_seed(0)
        states.append(annotated(mc_dropout_passes=passes).build_model().state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_dropout_is_on_in_training_and_off_in_evaluation() -> None:
    """Training sees another output each time, evaluation the network's own."""
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(0)
    plain = annotated().build_model().eval()
    torch.manual_seed(0)
    model = annotated(mc_dropout_passes=5).build_model()
    assert torch.equal(model.eval()(images), plain(images))
    model.train()
    assert not torch.equal(model(images), model(images))
    plain.train()
    assert torch.equal(plain(images), plain(images))


def test_passes_are_different_networks_the_same_whenever_asked() -> None:
    """As many samples as asked for, all different; asked again they are the same."""
    learner = small_learner(annotated(mc_dropout_passes=6), head=False)
    learner.fit(LABELED, seed=4)
    found = learner.infer(np.arange(50), samples)
    rows = found.reshape(50, 6, 3)
    assert len({tuple(rows[:, m].flatten().tolist()) for m in range(6)}) == 6
    torch.rand(7)  # whatever else is drawn meanwhile
    assert torch.equal(found, learner.infer(np.arange(50), samples))


def test_samples_do_not_depend_on_the_batch() -> None:
    """An image is asked of the same drawn networks whatever its batch and its place in it."""
    task = annotated(mc_dropout_passes=3)
    learner = small_learner(task, head=False)
    learner.fit(LABELED, seed=4)
    together = learner.infer(np.arange(50), samples)
    order = np.random.default_rng(0).permutation(50)
    task.eval_batch_size = 7
    apart = learner.infer(order, samples)
    torch.testing.assert_close(apart, together[torch.from_numpy(order)], atol=1e-5, rtol=1e-4)


def test_with_next_to_no_dropout_the_samples_are_the_prediction() -> None:
    """Samples are the network's own answers, from its own features: as the rate goes to zero."""
    learner = small_learner(annotated(mc_dropout_passes=2, dropout_rate=1e-9), head=False)
    learner.fit(LABELED, seed=0)
    rows = learner.infer(np.arange(50), both)
    torch.testing.assert_close(rows[:, :3], rows[:, 3:])


def test_any_network_with_a_last_linear_layer_is_sampled() -> None:
    """A network without methods of its own gives samples, which scatter around its prediction."""
    task = Classification(small_data(), _Flat, mc_dropout_passes=400, dropout_rate=0.1)
    task.targets.reveal(LABELED)
    learner = small_learner(task, head=False)
    learner.fit(LABELED, seed=0)
    rows = learner.infer(np.arange(50), both)
    assert not torch.equal(rows[:, :3], rows[:, 3:])
    torch.testing.assert_close(rows[:, :3], rows[:, 3:], atol=0.05, rtol=0)


def test_a_network_that_cannot_be_sampled_is_refused() -> None:
    """Without a last linear layer, or with something after it, the run stops before training."""
    for network in (_Convolution, _Scaled):
        Classification(small_data(), network)
        for dropout in ({"mc_dropout_passes": 2}, {"dropout": True}):
            with pytest.raises(InvalidSetting, match=rf"backbone {network.__name__} has none"):
                Classification(small_data(), network, **dropout)
    with pytest.raises(InvalidSetting, match=r"dropout_rate must lie between 0 and 1; it is 1.0"):
        LayerDropout(dropout=True, rate=1.0, passes=0)


class _Flat(nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


class _Scaled(_Flat):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class _Convolution(nn.Conv2d):
    def __init__(self, num_classes: int) -> None:
        super().__init__(3, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean((2, 3))


@pytest.mark.parametrize("name", CLASSIFIERS[::6])
def test_the_last_linear_layer_is_the_classifier(name: str) -> None:
    """Dropout acts on the embedding, in networks of every kind."""
    with torch.device("meta"):
        model = build(plain(BACKBONES[name].classification), where="backbone", num_classes=7)
    layer = Classifier.of(model, lambda: model, (32, 32)).classifying_layer(model)
    assert layer is getattr(model, model.classifier_name)
    assert layer.out_features == 7


# ---- ensembles


def ensemble(size: int = 3, **cycle: Any) -> EnsembleLearner:
    """An ensemble of LeNets that trains for two epochs."""
    settings = {
        "initial_size": 10, "query_size": 5, "candidates": None, "epochs": 2, "batch_size": 8,
        **cycle,
    }  # fmt: skip
    return EnsembleLearner(
        annotated(), cpu_engine(), Recipe(CycleSettings(**settings),
        OptimizerSettings(lr=0.05), LossPredictionSettings()), size=size,
    )  # fmt: skip


def test_members_differ_and_the_first_is_the_single_network() -> None:
    """Its predictions are a single learner's of this seed, and one of the samples; all differ."""
    single = small_learner(annotated(), head=False)
    one = single.fit(LABELED, seed=3)
    learner = ensemble()
    three = learner.fit(LABELED, seed=3)
    assert three["optimizer_steps"] == 3 * one["optimizer_steps"]
    assert three["train_loss"] == one["train_loss"]
    assert learner.evaluate() == single.evaluate()
    rows = learner.infer(np.arange(50), samples).reshape(50, 3, 3)
    alone = single.infer(np.arange(50), lambda p: p.log_probs)
    assert torch.equal(rows[:, 0], alone)
    assert not torch.allclose(rows[:, 0], rows[:, 1], atol=1e-3)
    assert not torch.allclose(rows[:, 1], rows[:, 2], atol=1e-3)


def test_an_ensemble_repeats_from_its_seed() -> None:
    """The seed alone decides all of its members."""
    scores = []
    for _ in range(2):
        learner = ensemble()
        learner.fit(LABELED, seed=5)
        scores.append(learner.infer(np.arange(50), predictive_entropy))
    assert torch.equal(scores[0], scores[1])


def test_an_ensemble_that_is_none_is_refused() -> None:
    """One network, or members that would all go on from one checkpoint."""
    with pytest.raises(InvalidSetting, match="ensemble_size must be at least 2, got 1"):
        ensemble(1)
    with pytest.raises(InvalidSetting, match=r"cycle.warm_start=false"):
        ensemble(warm_start=True)


def test_lenet_has_the_classifier_of_its_features() -> None:
    """The embedding that is dropped from is what the classifier was given."""
    model = LeNet(num_classes=3).eval()
    logits = model(torch.randn(2, 3, 32, 32))
    layer = Classifier.of(model, lambda: model, (32, 32)).classifying_layer(model)
    torch.testing.assert_close(layer(model.get_discriminative_al_features()), logits)
