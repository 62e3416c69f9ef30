from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import Dataset

from al_core import ActiveLearning, choose_active_learning_indices, random_indices
from al_core.errors import InvalidSetting, NonFiniteValue
from tests.al_core.nets import Offering, seeded

FIRST_DRAWS_FOR_CIFAR = [39820, 4120, 44519, 2914, 25120]


def rand_state(seed: int = 1311) -> np.random.RandomState:
    """The legacy generator that published selections were drawn from."""
    return np.random.RandomState(seed)


class Values(Dataset[Any]):
    """Images of one pixel whose value is their predicted loss, with targets of uneven sizes."""

    def __init__(self, values: Any, kind: str = "tuple") -> None:
        self.values = torch.as_tensor(np.asarray(values), dtype=torch.float32)
        self.kind = kind
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        self.read.append(index)
        image = self.values[index].reshape(1, 1, 1)
        boxes = torch.zeros(index % 3, 4)  # as in detection: they cannot be stacked
        return {"tuple": (image, boxes), "list": [image, boxes], "bare": image}[self.kind]


class Reads(nn.Module):
    """Predicts the loss that an image holds; `shape` lets it answer in a wrong one."""

    def __init__(self, shape: str = "(b,)") -> None:
        super().__init__()
        self.shape = shape
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Read it off."""
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(len(x))
        loss = x.flatten()
        shaped = {"(b,)": loss, "(b, 1)": loss[:, None], "one": loss[:1]}
        return x, {**shaped, "(b, 2)": torch.stack([loss, loss], 1)}[self.shape]


def reference(
    values: Any,
    cycle: int,
    state: np.random.RandomState,
    unlabeled: list[int],
    count: int,
    factor: int,
) -> list[int]:
    """The published selection, written from its description."""
    if cycle == 0:
        chosen = state.choice(unlabeled, count, replace=False).tolist()
    else:
        candidates = state.choice(unlabeled, min(factor * count, len(unlabeled)), replace=False)
        chosen = sorted(candidates.tolist(), key=lambda i: -values[i])[:count]
    for index in chosen:
        unlabeled.remove(index)
    return chosen


def test_first_draws_for_cifar_are_the_published_ones() -> None:
    """From RandomState(1311) cycle 0 draws 39820, 4120, 44519, ... of 50,000 images."""
    for draw in (
        lambda pool: random_indices(pool, rand_state()),
        lambda pool: choose_active_learning_indices(
            nn.Identity(), 0, rand_state(), pool, Values([]), "cpu"
        )[0],
    ):
        unlabeled = list(range(50_000))
        chosen = draw(unlabeled)
        assert chosen[:5].tolist() == FIRST_DRAWS_FOR_CIFAR
        assert chosen.shape == (1000,)
        assert len(unlabeled) == 49_000


@given(
    n=st.integers(30, 80),
    count=st.integers(1, 6),
    factor=st.integers(1, 4),
    seed=st.integers(0, 2**31),
)
def test_selection_equals_the_published_one_over_cycles(
    n: int, count: int, factor: int, seed: int
) -> None:
    """Draws, order, values and what is left agree with the reference, cycle after cycle."""
    values = np.random.default_rng(seed).permutation(n).astype(float)
    ours, theirs = rand_state(seed), rand_state(seed)
    our_pool, their_pool = list(range(n)), list(range(n))
    for cycle in range(4):
        expected = reference(values, cycle, theirs, their_pool, count, factor)
        chosen, losses = choose_active_learning_indices(
            Reads(), cycle, ours, our_pool, Values(values), "cpu", count, factor, batch_size=7
        )
        assert chosen.tolist() == expected
        assert chosen.dtype == np.int64
        assert our_pool == their_pool
        if cycle == 0:
            assert losses is None
        else:
            assert losses is not None
            assert losses.dtype == np.float64
            assert losses.tolist() == values[chosen].tolist()
    assert ours.randint(2**31) == theirs.randint(2**31)  # neither drew more than the other


def test_defaults_are_a_thousand_of_ten_thousand_candidates() -> None:
    """Without further words 1,000 of 10,000 candidates are chosen, and only those are looked at."""
    dataset = Values(np.arange(12_000))
    unlabeled = list(range(12_000))
    chosen, _ = choose_active_learning_indices(
        Reads(), 1, rand_state(), unlabeled, dataset, "cpu", batch_size=4096
    )
    assert chosen.shape == (1000,)
    candidates = rand_state().choice(list(range(12_000)), 10_000, replace=False)
    assert dataset.read == candidates.tolist()  # in the order drawn, each once


def test_the_callers_own_list_is_changed() -> None:
    """The chosen leave the list that was passed in, where the others keep their order."""
    unlabeled = [9, 3, 7, 1, 5]
    same, other = unlabeled, list(unlabeled)
    chosen, _ = choose_active_learning_indices(
        Reads(), 1, rand_state(), unlabeled, Values(range(10)), "cpu", 2
    )
    assert chosen.tolist() == [9, 7]
    assert same is unlabeled
    assert same == [3, 1, 5]
    assert other == [9, 3, 7, 1, 5]
    assert random_indices(unlabeled, rand_state(), 3).shape == (3,)
    assert unlabeled == []


class _Counting(int):
    """A whole number that counts how often any is compared."""

    comparisons = 0

    def __eq__(self, other: object) -> bool:
        _Counting.comparisons += 1
        return int(self) == other

    def __hash__(self) -> int:
        return hash(int(self))


def test_removing_the_chosen_does_not_search_the_list_for_each() -> None:
    """Comparisons grow with the list's length, not with its length times the number chosen."""
    n, count = 3000, 300
    for cycle in (0, 1):
        unlabeled: list[int] = [_Counting(i) for i in range(n)]
        _Counting.comparisons = 0
        choose_active_learning_indices(
            Reads(), cycle, rand_state(), unlabeled, Values(range(n)), "cpu", count
        )
        assert len(unlabeled) == n - count
        assert _Counting.comparisons <= 2 * n  # n * count / 2 = 450,000 with `x in list`


@pytest.mark.parametrize("batch_size", [1, 4, 64, 1000])
def test_batch_size_does_not_change_the_choice(batch_size: int) -> None:
    """Whatever the batch size, the choice and its values are the same."""
    values = np.random.default_rng(0).normal(size=200).astype(np.float32)
    net = Reads()
    chosen, losses = choose_active_learning_indices(
        net, 1, rand_state(), list(range(200)), Values(values), "cpu", 10, batch_size=batch_size
    )
    expected = reference(values, 1, rand_state(), list(range(200)), 10, 10)
    assert chosen.tolist() == expected
    assert losses is not None
    np.testing.assert_array_equal(losses, values[chosen].astype(np.float64))
    assert max(net.batches) == min(batch_size, 100)


def test_equal_predictions_are_taken_in_the_order_drawn() -> None:
    """Ties do not depend on the sorting algorithm: the earlier drawn comes first."""
    values = np.arange(1000) % 3
    chosen, _ = choose_active_learning_indices(
        Reads(), 1, rand_state(), list(range(1000)), Values(values), "cpu", 100
    )
    assert chosen.tolist() == reference(values, 1, rand_state(), list(range(1000)), 100, 10)


@pytest.mark.parametrize("kind", ["tuple", "list", "bare"])
def test_images_are_found_with_or_without_targets(kind: str) -> None:
    """Data sets of images, tuples or lists are taken; targets of uneven sizes are not looked at."""
    chosen, _ = choose_active_learning_indices(
        Reads(), 1, rand_state(), list(range(20)), Values(range(20), kind), "cpu", 2
    )
    assert chosen.tolist() == [19, 18]


def test_the_model_is_left_as_it_was() -> None:
    """Selecting scores in eval mode; then each module has its mode back, no statistic has moved."""
    net = ActiveLearning(seeded(Offering)).train()
    net.base_model.second.eval()
    modes = [module.training for module in net.modules()]
    state = copy.deepcopy(net.state_dict())
    images = torch.randn(30, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    chosen, losses = choose_active_learning_indices(
        net,
        1,
        rand_state(),
        list(range(30)),
        images,
        "cpu",
        3,  # type: ignore[arg-type]
    )
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        expected = net.eval()(images[chosen])[1].numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    net.train()(images)[1].sum().backward()  # nothing was turned into an inference tensor


def test_cycle_zero_asks_nothing_of_the_model() -> None:
    """An untrained network is never asked for its opinion: cycle 0 reads no image."""
    dataset = Values(range(10))
    net = Reads()
    chosen, losses = choose_active_learning_indices(
        net, 0, rand_state(), list(range(10)), dataset, "cpu", 3
    )
    assert (net.batches, dataset.read, losses) == ([], [], None)
    assert chosen.shape == (3,)


@pytest.mark.parametrize("cycle", [0, 1])
@pytest.mark.parametrize("count", [0, -1, 11])
def test_impossible_counts_leave_the_list_alone(cycle: int, count: int) -> None:
    """A count under one or above the list raises with both numbers, changes and draws nothing."""
    unlabeled = list(range(10))
    state = rand_state()
    with pytest.raises(InvalidSetting, match=f"10 unlabeled samples, got {count}"):
        choose_active_learning_indices(
            Reads(), cycle, state, unlabeled, Values(range(10)), "cpu", count
        )
    assert unlabeled == list(range(10))
    assert state.randint(2**31) == rand_state().randint(2**31)


def test_a_factor_under_one_is_refused() -> None:
    """Fewer candidates than are to be chosen make no sense: raises and shows the factor."""
    with pytest.raises(InvalidSetting, match="subset_factor must be at least 1, got 0"):
        choose_active_learning_indices(
            Reads(), 1, rand_state(), list(range(10)), Values(range(10)), "cpu", 2, 0
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_prediction_that_is_not_finite_stops_and_names_the_sample(bad: float) -> None:
    """NaN or infinity raises NonFiniteValue with the sample's position; the list is left alone."""
    values = np.arange(20.0)
    values[13] = bad
    unlabeled = list(range(20))
    with pytest.raises(NonFiniteValue, match="predicted loss of sample 13 is not finite"):
        choose_active_learning_indices(
            Reads(), 1, rand_state(), unlabeled, Values(values), "cpu", 2
        )
    assert unlabeled == list(range(20))


@pytest.mark.parametrize("n", [20, 1])
def test_a_column_of_predictions_is_accepted(n: int) -> None:
    """A model of the reference's shape (b, 1) gets the same choice, in any number of samples."""
    count = min(2, n)
    expected, values = choose_active_learning_indices(
        Reads(), 1, rand_state(), list(range(n)), Values(range(n)), "cpu", count, batch_size=3
    )
    chosen, losses = choose_active_learning_indices(
        Reads("(b, 1)"), 1, rand_state(), list(range(n)), Values(range(n)), "cpu", count
    )
    assert chosen.tolist() == expected.tolist()
    assert losses is not None
    assert values is not None
    assert losses.tolist() == values.tolist()


@pytest.mark.parametrize("shape", ["(b, 2)", "one"])
def test_a_prediction_of_wrong_shape_is_refused(shape: str) -> None:
    """A model that predicts two losses a sample, or one a batch, raises; the list is left alone."""
    unlabeled = list(range(20))
    with pytest.raises(InvalidSetting, match=r"shape \(b,\) or \(b, 1\), got shape"):
        choose_active_learning_indices(
            Reads(shape), 1, rand_state(), unlabeled, Values(range(20)), "cpu", 2
        )
    assert unlabeled == list(range(20))


def test_a_failing_data_set_leaves_list_and_modes_alone() -> None:
    """If an image cannot be read the error comes through, and model and list are as before."""

    class Broken(Values):
        def __getitem__(self, index: int) -> Any:
            if index == 7:
                raise OSError("image 7 is damaged")
            return super().__getitem__(index)

    net = Reads().train()
    unlabeled = list(range(20))
    with pytest.raises(OSError, match="image 7 is damaged"):
        choose_active_learning_indices(
            net, 1, rand_state(), unlabeled, Broken(range(20)), "cpu", 2, batch_size=3
        )
    assert net.training
    assert unlabeled == list(range(20))


def test_a_head_that_was_never_trained_does_not_select() -> None:
    """A lazy head without a size yet raises instead of ranking by random weights."""
    net = ActiveLearning(Offering(), layers=["first"])
    unlabeled = list(range(5))
    with pytest.raises(InvalidSetting, match="train the model before it selects"):
        choose_active_learning_indices(
            net,
            1,
            rand_state(),
            unlabeled,
            torch.zeros(5, 3, 8, 8),
            "cpu",
            2,  # type: ignore[arg-type]
        )
    assert unlabeled == list(range(5))
