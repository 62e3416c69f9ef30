"""Optimizers other than SGD, learning rates by part of the network, warm-up, clipping, freezing."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.learning.learner import TaskLearner
from experiments.learning.optimizer import (
    clip_gradients,
    make_optimizer,
    make_scheduler,
    never_compiled,
)
from experiments.settings.recipe import (
    CycleSettings,
    FreezingSettings,
    LossPredictionSettings,
    OptimizerSettings,
    Recipe,
)
from experiments.tasks.classification import Classification
from tests.experiments.learners import LABELED, annotated
from tests.experiments.small_tasks import cpu_engine, small_data, small_task
from tests.experiments.small_tasks import lenet_task as lenet
from vendored.pytorch_cifar import LeNet

CYCLE = CycleSettings(10, 5, None, epochs=2, batch_size=8)


def learner(
    task: Classification,
    optimizer: dict[str, Any],
    *,
    freezing: FreezingSettings | None = None,
    module: bool = True,
) -> TaskLearner:
    """Make a learner of two epochs."""
    settings = OptimizerSettings(**{"lr": 0.05, **optimizer})
    head = LossPredictionSettings(enabled=module, width=4)
    recipe = Recipe(CYCLE, settings, head, freezing or FreezingSettings())
    return TaskLearner(annotated(task), cpu_engine(), recipe)


def changed(trained: TaskLearner) -> dict[str, bool]:
    """Return whether training moved each weight."""
    fresh = trained.training.fresh_model(seed=0).state_dict()
    trained._trained = trained.training.fresh_model(seed=0)
    trained.training.run(trained._trained, LABELED, trained.unit.targets, seed=0)
    state = trained.model.state_dict()
    return {key: not torch.equal(state[key], fresh[key]) for key in state}


def trained_by(kind: type[torch.optim.Optimizer], **arguments: Any) -> tuple[list[Tensor], str]:
    """Return weights after some steps, with a schedule and a restored state, and the last state."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 2))
    optimizer = kind(network.parameters(), lr=0.05, **arguments)  # type: ignore[call-arg]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3], 0.1)
    for step in range(6):
        optimizer.zero_grad()
        network(torch.randn(4, 5)).square().mean().backward()
        optimizer.step()
        scheduler.step()
        if step == 3:
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return [each.detach() for each in network.parameters()], repr(optimizer.state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RMSprop", "Adafactor"])
@pytest.mark.parametrize("arguments", [{}, {"weight_decay": 0.1}])
def test_optimizers_without_the_compiler_are_torchs(name: str, arguments: dict[str, Any]) -> None:
    """They take the same steps, bit for bit, and have the same states and names."""
    kind = getattr(torch.optim, name)
    ours, state = trained_by(never_compiled(kind), **arguments)
    theirs, expected = trained_by(kind, **arguments)
    assert all(map(torch.equal, ours, theirs))
    assert state == expected
    assert never_compiled(kind).__name__ == name


def test_a_differentiable_step_keeps_its_graph() -> None:
    """Gradients flow through a step where the optimizer is asked for that."""
    weight, rate = torch.ones(2, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    moved = weight.clone()
    optimizer = never_compiled(torch.optim.SGD)([moved], lr=rate, differentiable=True)  # type: ignore[call-arg]
    moved.grad = torch.ones(2)
    optimizer.step()
    moved.sum().backward()  # type: ignore[no-untyped-call]
    assert rate.grad == -2.0


def test_training_does_not_import_the_compiler() -> None:
    """An import of torch's compiler takes longer than all others together but torch's own."""
    code = (
        "import sys, torch; from experiments.learning.optimizer import never_compiled\n"
        "layer = torch.nn.Linear(2, 2)\n"
        "optimizer = never_compiled(torch.optim.SGD)(layer.parameters(), lr=0.1)\n"
        "optimizer.zero_grad(); layer(torch.ones(1, 2)).sum().backward(); optimizer.step()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_one_learning_rate_is_one_group_of_all_parameters() -> None:
    """The published recipes give torch what they always did."""
    model = learner(lenet(), {}).training.fresh_model(seed=0)
    optimizer = make_optimizer(OptimizerSettings(lr=0.1), model, lenet(), fused=True)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model.optim_parameters()]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert group["fused"]


def test_backbone_classifier_and_module_have_their_own_learning_rates() -> None:
    """Every parameter is in one group, whose learning rate is that of its part."""
    task = lenet()
    model = learner(task, {}).training.fresh_model(seed=0)
    settings = OptimizerSettings(lr=0.1, backbone_lr_scale=0.5, loss_prediction_lr_scale=3.0)
    optimizer = make_optimizer(settings, model, task, fused=False)
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: g["lr"] for g in optimizer.param_groups for p in g["params"]}
    assert len(found) == len(names)
    for name, rate in found.items():
        part = "base_model.fc3." if name.startswith("base_model.fc3.") else name.partition(".")[0]
        expected = {"base_model": 0.05, "base_model.fc3.": 0.1, "fc": 0.3, "loss_pred": 0.3}
        assert rate == pytest.approx(expected[part]), name


def test_a_backbone_that_is_not_known_is_not_scaled() -> None:
    """A network without a last linear layer, or a task that does not tell, is refused."""
    flat = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    task = small_task(None, lambda num_classes: flat)
    for each in (task, object()):
        with pytest.raises(InvalidSetting, match=r"optimizer\.backbone_lr_scale=0\.1: in this"):
            make_optimizer(OptimizerSettings(lr=1, backbone_lr_scale=0.1), flat, each, fused=False)


def test_adamw_trains() -> None:
    """Another class of torch takes the same steps as it takes alone."""
    adamw = {"target": "torch.optim.AdamW", "momentum": None, "nesterov": None, "lr": 1e-3}
    assert all(changed(learner(lenet(), adamw)).values())


@pytest.mark.parametrize("schedule", ["step", "cosine"])
def test_learning_rates_rise_before_they_fall(schedule: str) -> None:
    """The warm-up is linear over its steps and multiplies the schedule, which stays the same."""
    cycle = CycleSettings(1, 1, None, 1, 2, schedule=schedule, milestones=(0.5,))

    def rates(warm_up: float) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        settings = OptimizerSettings(lr=2.0, warm_up=warm_up)
        scheduler = make_scheduler(optimizer, settings, cycle, steps=20)
        found = []
        for _ in range(20):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    ramp = np.minimum(1, np.arange(1, 21) / 5)
    assert rates(0.25) == pytest.approx(rates(0.0) * ramp, rel=1e-6)


def test_gradients_are_scaled_down_to_their_common_norm() -> None:
    """Larger ones keep their direction, smaller ones and those without a limit stay as they are."""
    parameter = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=1)
    for limit, expected in ((None, [3, 4]), (10, [3, 4]), (1, [0.6, 0.8])):
        parameter.grad = torch.tensor([3.0, 4.0])
        clip_gradients(optimizer, limit)
        assert parameter.grad.tolist() == pytest.approx(expected)


class Staged(nn.Module):
    """Three stages with batch normalization."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))
        self.first = self.stage(3, 4)
        self.second = self.stage(4, 5)
        self.third = self.stage(5, 6)
        self.scores = nn.Linear(6, num_classes)

    @staticmethod
    def stage(inputs: int, outputs: int) -> nn.Sequential:
        """Halve the resolution."""
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2), nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.third(self.second(self.first(x + self.shift)))
        logits: Tensor = self.scores(x.mean((2, 3)))
        return logits


def test_frozen_stages_keep_weights_and_statistics() -> None:
    """The first stages and what surrounds them stay bit for bit; everything else is trained."""
    staged = partial(small_task, None, Staged)
    moved = changed(learner(staged(), {}, freezing=FreezingSettings(frozen_stages=2)))
    frozen = {
        key for key in moved if any(f".{part}" in key for part in ("first", "second", "shift"))
    }
    assert {key for key, value in moved.items() if not value} == frozen
    every = changed(learner(staged(), {}))
    assert all(every.values())
    with pytest.raises(InvalidSetting, match=r"frozen_stages=3 .* 3 stages, .* first, second, "):
        changed(learner(staged(), {}, freezing=FreezingSettings(frozen_stages=3)))


def test_statistics_of_batch_normalization_can_be_kept() -> None:
    """With frozen_batch_norm the running statistics alone stay as they are."""
    task = small_task(None, Staged)
    moved = changed(learner(task, {}, freezing=FreezingSettings(frozen_batch_norm=True)))
    kept = {key for key, value in moved.items() if not value}
    assert kept == {key for key in moved if "running" in key or "tracked" in key}


def test_frozen_settings_are_checked() -> None:
    """The keys are named."""
    with pytest.raises(InvalidSetting, match=r"backbone\.frozen_stages must be a whole number"):
        FreezingSettings(frozen_stages=-1)
    with pytest.raises(InvalidSetting, match=r"backbone\.frozen_batch_norm must be true or false"):
        FreezingSettings(frozen_batch_norm=1)  # type: ignore[arg-type]
    lenet_of_10 = Classification(small_data(), LeNet)
    assert lenet_of_10.head(lenet_of_10.build_model())[0].out_features == 3
