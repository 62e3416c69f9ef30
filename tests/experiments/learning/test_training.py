"""The learner's training: seeds, order, schedule, the ranking loss, no waiting for the device."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from al_core import IndexArray, LossPredictionLoss, ranking_accuracy
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.data.samples import Batch
from experiments.data.targets import Targets
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, LABELED, annotated, weights
from tests.experiments.small_tasks import TinyNet, lenet_task, small_data, small_learner, small_task


class Recorded(Classification):
    """Keeps the indices and seeds of every training batch."""

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load as ever."""
        self.batches = [*getattr(self, "batches", []), (indices.tolist(), seed)]
        return super().training_batch(indices, targets, seed=seed)


def recorded(**fit: Any) -> tuple[dict[str, Tensor], list[Any], dict[str, Any]]:
    """Train and return weights, batches and what fit returned."""
    task = Recorded(small_data(), TinyNet)
    annotated(task)
    learner = small_learner(task, **{k: v for k, v in fit.items() if k not in ("seed", "labeled")})
    returned = learner.fit(fit.get("labeled", LABELED), seed=fit.get("seed", 0))
    return weights(learner), task.batches, dict(returned)


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Return whether two models have the same weights, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_seed_alone_decides_training() -> None:
    """Weights, order and augmentation repeat whatever was drawn before, and touch nothing else."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, batches, _ = recorded()  # of a network with dropout
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(2)
    again, batches_again, _ = recorded()
    assert equal(first, again)
    assert batches == batches_again
    other, other_batches, _ = recorded(seed=1)
    assert not equal(first, other)
    assert batches != other_batches


def test_the_module_changes_neither_first_weights_nor_order() -> None:
    """Strategies with and without loss prediction start from the same weights and see one order."""
    plain, plain_batches, _ = recorded(head=False, lr=0.0)
    with_module, batches, _ = recorded(head=True, lr=0.0)
    statistics = {key for key in plain if "running" in key or "tracked" in key}
    assert equal(
        {key: value for key, value in plain.items() if key not in statistics},
        {key: value for key, value in with_module.items() if key not in statistics},
    )
    assert plain_batches == batches


def test_each_epoch_is_another_order_of_all_labeled_samples() -> None:
    """Every labeled sample once an epoch, in batches of the given size, never the same way."""
    _, batches, _ = recorded(epochs=3)
    sizes = [len(indices) for indices, _ in batches]
    assert sizes == [8, 4] * 3
    epochs = [batches[k][0] + batches[k + 1][0] for k in (0, 2, 4)]
    assert all(sorted(epoch) == sorted(LABELED.tolist()) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({seed for _, seed in batches}) == 6


class Mirrored(Recorded):
    """Keeps epoch and indices of every batch that may be mirrored, and shows it in black."""

    def mirrored(self, images: Tensor, indices: IndexArray, *, epoch: int) -> Tensor:
        """Take note."""
        self.turns = [*getattr(self, "turns", []), (epoch, indices.tolist())]
        return images * 0

    def augment(self, images: Tensor, targets: Any, generator: torch.Generator) -> Any:
        """Check that what was returned is used."""
        assert not images.any()
        return super().augment(images, targets, generator)


def test_images_are_mirrored_by_epoch_and_position() -> None:
    """Every batch is offered with its epoch and its own images before it is augmented."""
    task = Mirrored(small_data(), TinyNet)
    annotated(task)
    small_learner(task, epochs=3).fit(LABELED, seed=0)
    assert [epoch for epoch, _ in task.turns] == [0, 0, 1, 1, 2, 2]
    assert [indices for _, indices in task.turns] == [indices for indices, _ in task.batches]


def test_unlabeled_images_are_mirrored_as_labeled_ones() -> None:
    """Images that are trained on by pseudo-labels take turns too, by their own positions."""
    task = Mirrored(small_data(), TinyNet)
    annotated(task)
    small_learner(task, epochs=1, semi_supervised="flexmatch", head=False).fit(LABELED, seed=0)
    labeled, unlabeled = task.turns[::2], task.turns[1::2]
    assert [indices for _, indices in labeled] == [indices for indices, _ in task.batches]
    assert not {i for _, indices in unlabeled for i in indices} & set(LABELED.tolist())
    assert unlabeled


@pytest.mark.parametrize(
    ("num_labeled", "sizes"), [(12, [8, 4]), (11, [11]), (19, [8, 11]), (16, [8, 8]), (3, [3])]
)
def test_a_small_remainder_joins_the_batch_before(num_labeled: int, sizes: list[int]) -> None:
    """With merge_remainder, fewer than half a batch are no batch; every sample is in one."""
    task = Recorded(small_data(), TinyNet)
    task.targets.reveal(EVERY)
    learner = small_learner(task, epochs=1, merge_remainder=True, min_steps=3)
    returned = learner.fit(EVERY[:num_labeled], seed=0)
    batches = [indices for indices, _ in task.batches]
    epochs = math.ceil(3 / len(sizes))
    assert [len(indices) for indices in batches] == sizes * epochs
    assert returned["optimizer_steps"] == len(sizes) * epochs
    assert sorted(i for batch in batches[: len(sizes)] for i in batch) == list(range(num_labeled))


@pytest.mark.parametrize(
    ("num_labeled", "cycle", "steps"),
    [
        (12, {"epochs": 3}, 6),
        (12, {"epochs": 1, "min_steps": 5}, 6),  # whole epochs
        (9, {"epochs": 3}, 3),  # a last batch of one is left out: it has no statistics
        (10, {"epochs": 3}, 6),
        (2, {"epochs": 3}, 3),
    ],
)
def test_optimizer_steps_are_counted(num_labeled: int, cycle: Any, steps: int) -> None:
    """The record has the number of steps that were taken."""
    _, batches, returned = recorded(labeled=LABELED[:num_labeled], **cycle)
    assert len(batches) == steps
    assert returned["optimizer_steps"] == steps


def test_one_labeled_sample_is_refused() -> None:
    """Batch normalization cannot train on one image, and a ranking needs two."""
    with pytest.raises(InvalidSetting, match="each needs 2"):
        recorded(labeled=LABELED[:1])


class RecordedSGD(torch.optim.SGD):
    """Keeps the learning rate of every step."""

    rates: list[float]

    def step(self, closure: Any = None) -> Any:
        """Step as ever."""
        self.rates.append(self.param_groups[0]["lr"])
        return super().step(closure)


@pytest.mark.parametrize(
    ("cycle", "expected"),
    [
        ({"schedule": "step", "milestones": (0.5, 0.75), "gamma": 0.1}, [1, 1, 1, 1, 0.1, 0.1, 0.01,
                                                                         0.01]),
        ({"schedule": "cosine"}, [(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)]),
    ],
)  # fmt: skip
def test_learning_rates_follow_the_schedule(
    cycle: Any, expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milestones are fractions of all steps; the cosine falls from the first step to 0."""
    RecordedSGD.rates = []
    monkeypatch.setattr(torch.optim, "SGD", RecordedSGD)
    recorded(epochs=4, lr=0.01, **cycle)
    assert RecordedSGD.rates == pytest.approx([0.01 * factor for factor in expected], rel=1e-6)


def test_a_cold_start_forgets_and_a_warm_start_goes_on() -> None:
    """By default the model of a cycle depends on its labels and seed alone."""
    cold = small_learner(annotated(lenet_task()))
    cold.fit(LABELED[:6], seed=5)
    cold.fit(LABELED, seed=0)
    fresh = small_learner(annotated(lenet_task()))
    fresh.fit(LABELED, seed=0)
    assert equal(weights(cold), weights(fresh))
    warm = small_learner(annotated(lenet_task()), warm_start=True)
    warm.fit(LABELED[:6], seed=5)
    loaded = small_learner(annotated(lenet_task()), warm_start=True)
    loaded.load_state_dict({k: v.clone() for k, v in warm.model.state_dict().items()})
    warm.fit(LABELED, seed=0)
    assert not equal(weights(warm), weights(fresh))
    loaded.fit(LABELED, seed=0)
    assert equal(weights(warm), weights(loaded))


def test_a_detached_module_leaves_the_model_alone() -> None:
    """From detach_at on, the backbone trains as if there were no module; before, it does not."""
    plain = small_learner(annotated(lenet_task()), head=False)
    plain.fit(LABELED, seed=0)
    for detach_at, alike in ((0.0, True), (1.0, False)):
        learner = small_learner(annotated(lenet_task()), head={"detach_at": detach_at})
        learner.fit(LABELED, seed=0)
        assert equal(weights(learner), weights(plain)) == alike


def test_warm_up_epochs_train_the_model_alone() -> None:
    """Without the ranking loss neither the backbone nor the module is moved by it."""
    plain = small_learner(annotated(lenet_task()), head={"enabled": False, "warm_up_epochs": 2})
    plain.fit(LABELED, seed=0)
    learner = small_learner(annotated(lenet_task()), head={"warm_up_epochs": 2})
    learner.fit(LABELED, seed=0)
    still = small_learner(annotated(lenet_task()), head=True, lr=0.0)
    still.fit(LABELED, seed=0)
    assert equal(weights(learner), weights(plain))
    for key, value in learner.model.state_dict().items():
        if not key.startswith("base_model."):
            assert torch.equal(value, still.model.state_dict()[key]), key
    later = small_learner(annotated(lenet_task()), head={"warm_up_epochs": 1, "detach_at": 1.0})
    later.fit(LABELED, seed=0)  # the module's weights join the optimizer in the second epoch
    assert not equal(weights(later), weights(plain))
    moved = later.model.state_dict()["loss_pred.weight"]
    assert not torch.equal(moved, still.model.state_dict()["loss_pred.weight"])


def test_a_step_is_the_published_loss() -> None:
    """One step of SGD on mean cross-entropy plus lambda times the ranking loss of the batch."""
    task = annotated(lenet_task(small_data(flip=False), crop_padding=0))
    head = {"weight": 0.7, "margin": 0.5, "detach_at": 1.0}
    learner = small_learner(task, head=head, lr=0.1, epochs=1, batch_size=12)
    start = small_learner(task, head=head, lr=0.0, epochs=1, batch_size=12)
    start.fit(LABELED, seed=0)
    fitted = learner.fit(LABELED, seed=0)
    model = start.model.train()
    _, batches, _ = recorded(epochs=1, batch_size=12)
    order = np.array(batches[0][0])  # it decides which samples are paired
    outputs, predicted = model(task.normalize(task.train.images(order)))
    losses = F.cross_entropy(outputs, torch.from_numpy(order % 3), reduction="none")
    loss = losses.mean() + 0.7 * LossPredictionLoss(0.5)(predicted, losses)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for key, value in learner.model.state_dict().items():
        assert torch.allclose(value, model.state_dict()[key], atol=1e-6), key
    assert fitted["train_loss"] == pytest.approx(losses.mean().item(), rel=1e-5)
    expected = ranking_accuracy(predicted.detach(), losses.detach()).item()
    assert fitted["train_ranking_accuracy"] == pytest.approx(expected, abs=0.02)


class Broken(Classification):
    """The loss of class 2 cannot be computed."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return NaN for class 2."""
        return super().losses(outputs, targets).masked_fill(targets == 2, float("nan"))


def test_the_module_learns_by_the_loss_that_is_asked_for() -> None:
    """loss_prediction.loss=ranking, ranknet and mse train three different modules."""
    heads = []
    for loss in ("ranking", "ranknet", "mse"):
        learner = small_learner(annotated(small_task()), head={"loss": loss})
        learner.fit(LABELED, seed=0)
        heads.append(learner.model.state_dict()["loss_pred.weight"].clone())
    assert not any(torch.equal(a, b) for a, b in combinations(heads, 2))


def test_the_output_tap_leaves_the_model_alone() -> None:
    """Without detaching anything, a module that sees the output alone moves no weight of it."""
    plain = small_learner(annotated(lenet_task()), head=False)
    plain.fit(LABELED, seed=0)
    learner = small_learner(annotated(lenet_task()), head={"detach_at": 0.0, "output_tap": True})
    learner.fit(LABELED, seed=0)
    assert equal(weights(learner), weights(plain))
    fewer = small_learner(annotated(lenet_task()), head={"detach_at": 0.0})
    fewer.fit(LABELED, seed=0)
    features, tapped = (each.model.state_dict()["loss_pred.weight"] for each in (fewer, learner))
    assert tapped.shape[1] == features.shape[1] + 4  # one more hidden layer of width 4


def test_an_unfitted_cycle_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Training that ends above a fifth of an untrained network's loss warns; less does not."""
    learner = small_learner(annotated(lenet_task()), head=False, lr=0.0)
    learner.fit(LABELED, seed=0)
    (warning,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert "training ended at 10" in warning.message  # percent, more or less
    assert "2 epochs over 12 labels" in warning.message
    caplog.clear()
    task = annotated(lenet_task(small_data(flip=False), crop_padding=0))
    small_learner(task, head=False, epochs=80).fit(LABELED, seed=0)
    assert not [each for each in caplog.records if each.levelname == "WARNING"]


def test_a_loss_that_is_not_finite_names_the_sample() -> None:
    """The first such sample of the epoch is named, with the setting that may be to blame."""
    task = Broken(small_data(), TinyNet)
    labeled = np.array([0, 1, 3, 4, 6, 7, 9, 10, 12, 17, 15, 18])  # of class 2: 17 alone
    task.targets.reveal(labeled)
    with pytest.raises(
        NonFiniteValue, match=r"train/017\.png became nan in epoch 0.*optimizer\.lr"
    ):
        small_learner(task).fit(labeled, seed=0)


# ---- no loops over pairs


class Counted(TorchDispatchMode):
    """Counts the operations of torch, and those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        self.waits += "local_scalar_dense" in str(func)
        return func(*args, **(kwargs or {}))


def test_ranking_takes_as_many_operations_for_any_batch() -> None:
    """Mistake 10: no Python loop over pairs, and nothing that synchronizes the device."""
    counts = set()
    for b in (8, 128):
        predicted, losses = torch.randn(b), torch.rand(b)
        with Counted() as counted:
            ranking_accuracy(predicted, losses)
            LossPredictionLoss(1.0)(predicted, losses)
            LossPredictionLoss(1.0, pairs="all")(predicted, losses)
        counts.add(counted.operations)
        assert counted.waits == 0
    assert len(counts) == 1


def test_a_step_never_waits_for_the_device() -> None:
    """Losses are read back once an epoch, not once a step."""

    def waits(num_labeled: int) -> int:
        task = small_task()
        task.targets.reveal(EVERY)
        learner = small_learner(task, epochs=1)
        with Counted() as counted:
            learner.fit(EVERY[:num_labeled], seed=0)
        return counted.waits

    assert waits(48) == waits(16)
