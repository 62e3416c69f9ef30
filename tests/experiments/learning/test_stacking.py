"""Trainings with several seeds whose passes are computed as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from al_core import IndexArray
from experiments.engine.lockstep import Lockstep
from experiments.learning import stacking
from experiments.models.normalizing import Normalization
from experiments.models.whitened import WhitenedNet
from tests.experiments.learners import weights
from tests.experiments.small_tasks import TinyNet, small_data, small_learner, small_task
from vendored.pytorch_cifar import LeNet

NUM_IMAGES = 50
Trained = tuple[dict[str, Tensor], dict[str, float]]


class SmallResNet(nn.Module):
    """A stem and two residual blocks with batch normalization."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 5, stride=4, bias=False), nn.BatchNorm2d(6))
        self.layer1 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.layer2 = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
        self.linear = nn.Linear(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (b, k)."""
        x = torch.relu(self.stem(x))
        for block in (self.layer1, self.layer2):
            x = torch.relu(x + block(x))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits


def trained(seed: int, labeled: IndexArray, backbone: Any, **settings: Any) -> Trained:
    """Train a network; return its weights and statistics, and what was measured."""
    task = small_task(small_data(NUM_IMAGES), backbone, **settings.pop("task", {}))
    task.targets.reveal(labeled)
    learner = small_learner(task, **{"epochs": 3, **settings})
    measured = dict(learner.fit(labeled, seed=seed))
    return weights(learner), measured


def labeled_of(seed: int, count: int = 21) -> IndexArray:
    """Draw labeled images: two batches of 8, and one of 5."""
    return np.random.default_rng(seed).choice(NUM_IMAGES, count, replace=False)


def together(jobs: Sequence[Callable[[], Trained]]) -> list[Trained]:
    """Train side by side."""
    outcomes = Lockstep().run({f"job {k}": job for k, job in enumerate(jobs)})
    for outcome in outcomes.values():
        if isinstance(outcome, BaseException):
            raise outcome
    return [each for each in outcomes.values() if not isinstance(each, BaseException)]


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of networks of the passes that are computed from here on."""
    found: list[int] = []
    backward = stacking._backward

    def counting(offers: Any) -> Any:
        found.append(len(offers))
        return backward(offers)

    monkeypatch.setattr(stacking, "_backward", counting)
    return found


@pytest.fixture(autouse=True)
def in_double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train in float64: in float32 rounding grows, and changes which pixel a pooling takes."""
    normalize = Normalization.__call__
    monkeypatch.setattr(Normalization, "__call__", lambda self, x: normalize(self, x).double())
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def check_alike(ours: Trained, alone: Trained) -> None:
    """Check that two trainings have the same result, up to rounding."""
    assert ours[0].keys() == alone[0].keys()
    for name, value in alone[0].items():
        torch.testing.assert_close(ours[0][name], value, rtol=1e-9, atol=1e-11, msg=name)
    assert ours[1] == pytest.approx(alone[1], rel=1e-6)


@pytest.mark.parametrize(
    "backbone", [partial(LeNet), SmallResNet, partial(WhitenedNet, widths=(6, 6, 6))]
)
@pytest.mark.parametrize(
    "settings",
    [
        {"head": False},
        {"head": {"detach_at": 0.5, "pairs": "all", "output_tap": True}},
        {"head": {"loss": "mse"}, "task": {"label_smoothing": 0.2, "mirroring": "alternating"}},
    ],
)
def test_seeds_side_by_side_are_trained_as_alone(
    backbone: Any, settings: dict[str, Any], sizes: list[int]
) -> None:
    """Weights, statistics and measurements of each seed are those of its training by itself."""
    torch.manual_seed(0)
    jobs = [partial(trained, seed, labeled_of(seed), backbone, **settings) for seed in range(3)]
    alone = [job() for job in jobs]
    assert not sizes
    for ours, theirs in zip(together(jobs), alone, strict=True):
        check_alike(ours, theirs)
    assert sizes == [3] * 9  # every step of 3 epochs, the small batch at the end of each included


def test_trainings_of_different_lengths_are_stacked_as_far_as_they_go(sizes: list[int]) -> None:
    """Where batches differ in size, or the others have ended, a training goes on as by itself."""
    jobs = [
        partial(trained, 0, labeled_of(0, 16), SmallResNet, head=True),
        partial(trained, 1, labeled_of(1, 24), SmallResNet, head=True, epochs=2),
        partial(trained, 2, labeled_of(2, 20), SmallResNet, head=True, epochs=1),
    ]
    alone = [job() for job in jobs]
    for ours, theirs in zip(together(jobs), alone, strict=True):
        check_alike(ours, theirs)
    assert {1, 2, 3} == set(sizes)


def test_a_network_with_dropout_trains_alone(
    sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """It ends with the same weights, bit for bit, since its random numbers are the process's."""
    jobs = [partial(trained, seed, labeled_of(seed), TinyNet) for seed in range(2)]
    alone = [job() for job in jobs]
    for ours, theirs in zip(together(jobs), alone, strict=True):
        assert ours[1] == theirs[1]
        for name, value in theirs[0].items():
            assert torch.equal(ours[0][name], value)
    assert not sizes
    assert "this network trains alone, as it cannot be stacked: " in caplog.text


@pytest.mark.parametrize("optimizer", [{"target": "torch.optim.AdamW"}, {"max_grad_norm": 0.05}])
def test_updates_are_each_networks_own(optimizer: dict[str, Any]) -> None:
    """Adaptive steps and gradient clipping do not mix the networks."""
    plain = {"momentum": None, "nesterov": None} if "target" in optimizer else {}
    jobs = [
        partial(
            trained, seed, labeled_of(seed), SmallResNet, optimizer={**plain, **optimizer}, lr=0.01
        )
        for seed in range(2)
    ]
    alone = [job() for job in jobs]
    for ours, theirs in zip(together(jobs), alone, strict=True):
        check_alike(ours, theirs)
