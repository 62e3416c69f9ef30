from __future__ import annotations

import math
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from al_core import (
    LossPredictionLoss,
    LossPredictionMSELoss,
    RankNetLoss,
    kendall_tau,
    ranking,
    ranking_accuracy,
)
from al_core.errors import InvalidSetting

# Few different values, so that ties are common, and any finite ones.
NUMBERS = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))


@st.composite
def two_lists(draw: st.DrawFn, min_size: int = 0) -> tuple[list[float], list[float]]:
    """Two lists of one length."""
    rows = draw(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=min_size, max_size=40))
    return [row[0] for row in rows], [row[1] for row in rows]


def tensors(lists: tuple[list[float], list[float]]) -> tuple[Tensor, Tensor]:
    """Both lists in double precision."""
    return torch.tensor(lists[0], dtype=torch.float64), torch.tensor(lists[1], dtype=torch.float64)


def loss_by_loop(predicted: list[float], target: list[float], margin: float, pairs: str) -> float:
    """Equation 2 pair by pair."""
    b = len(predicted)
    if pairs == "folded":
        over = [(i, b - 1 - i) for i in range(b // 2)]
    else:
        over = [(i, j) for i in range(b) for j in range(i + 1, b)]
    total = 0.0
    for i, j in over:
        order = 1.0 if target[i] > target[j] else -1.0
        total += max(0.0, margin - order * (predicted[i] - predicted[j]))
    return total / len(over) if over else 0.0


@pytest.mark.parametrize("pairs", ["folded", "all"])
@given(lists=two_lists(), margin=st.floats(0.01, 10))
def test_loss_equals_a_loop_over_the_pairs(
    pairs: Any, lists: tuple[list[float], list[float]], margin: float
) -> None:
    """The loss is equation 2, pair by pair, for any batch: odd, empty, with ties."""
    value = LossPredictionLoss(margin, pairs=pairs)(*tensors(lists))
    assert value.shape == ()
    assert value.item() == pytest.approx(loss_by_loop(*lists, margin, pairs), rel=1e-9, abs=1e-12)


def test_sample_i_is_paired_with_its_mirror() -> None:
    """The pairs are (0, 3) and (1, 2), not neighbors."""
    predicted = torch.tensor([0.0, 10.0, 100.0, 1000.0])
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert LossPredictionLoss()(-predicted, target) == (1001 + 91) / 2


def test_a_tie_counts_as_minus_one() -> None:
    """If true losses are equal the first of the pair is pushed down, as published."""
    loss = LossPredictionLoss(margin=1.0)
    equal = torch.zeros(2)
    assert loss(torch.tensor([5.0, 0.0]), equal) == 6.0
    assert loss(torch.tensor([0.0, 5.0]), equal) == 0.0


def test_the_middle_of_an_odd_batch_is_left_out() -> None:
    """The sample without a partner has no influence and gets no gradient."""
    predicted = torch.tensor([0.0, 7.0, 0.5], requires_grad=True)
    value = LossPredictionLoss()(predicted, torch.tensor([1.0, 9.0, 0.0]))
    value.backward()
    assert value == 1.5
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [-1.0, 0.0, 1.0]


@pytest.mark.parametrize("b", [0, 1])
def test_a_batch_without_pairs_gives_zero_and_zero_gradient(b: int) -> None:
    """A last batch of one sample neither breaks training nor turns the weights into NaN."""
    predicted = torch.ones(b, requires_grad=True)
    value = LossPredictionLoss()(predicted, torch.ones(b))
    value.backward()
    assert value == 0
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [0.0] * b


@pytest.mark.parametrize("function", [LossPredictionLoss(), ranking_accuracy])
@pytest.mark.parametrize(
    ("predicted", "target"),
    [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((4,), (5,)), ((), ())],
)
def test_shapes_that_would_broadcast_are_refused(
    function: Callable[[Tensor, Tensor], Tensor],
    predicted: tuple[int, ...],
    target: tuple[int, ...],
) -> None:
    """Anything but (b,) and (b,) raises and shows both: (b, 1) would broadcast over all pairs."""
    with pytest.raises(InvalidSetting, match=r"shape \(b,\), got"):
        function(torch.zeros(predicted), torch.zeros(target))


def test_broadcasting_would_have_changed_the_loss() -> None:
    """The published mistake matters: with (b, 1) the reference formula gives another number."""
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 6, generator=generator)

    def reference(predicted: Tensor, target: Tensor) -> Tensor:
        d = (predicted - predicted.flip(0))[: len(predicted) // 2]
        t = (target - target.flip(0))[: len(target) // 2]
        sign = 2 * (t > 0).float() - 1
        return (1 - sign * d).clamp(min=0).mean()

    right = LossPredictionLoss()(predicted, target)
    torch.testing.assert_close(reference(predicted, target), right)
    assert abs(reference(predicted[:, None], target) - right) > 0.01


@pytest.mark.parametrize("pairs", ["folded", "all"])
def test_gradient_flows_to_the_predictions_only(pairs: Any) -> None:
    """True losses get no gradient; that of the predictions is exact."""
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    predicted.requires_grad_()
    target.requires_grad_()
    loss = LossPredictionLoss(0.5, pairs=pairs)
    loss(predicted, target).backward()
    assert target.grad is None
    assert predicted.grad is not None
    assert bool(predicted.grad.any())
    assert torch.autograd.gradcheck(lambda p: loss(p, target.detach()), predicted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_mixed_precision_is_taken(dtype: torch.dtype) -> None:
    """Half-precision predictions with float32 losses give the float32 value."""
    predicted = torch.tensor([0.5, -1.0, 2.0, 0.25], dtype=dtype)
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert LossPredictionLoss()(predicted, target) == LossPredictionLoss()(
        predicted.float(), target
    )


@pytest.mark.parametrize("margin", [0, -1.0, float("nan")])
def test_a_margin_that_is_not_positive_is_refused(margin: float) -> None:
    """A margin of zero or less, or NaN, raises and is shown."""
    with pytest.raises(InvalidSetting, match="margin must be positive, got"):
        LossPredictionLoss(margin)


def test_unknown_pairs_are_refused() -> None:
    """Another word for the pairs raises and names the two."""
    with pytest.raises(InvalidSetting, match="folded or all, got 'some'"):
        LossPredictionLoss(pairs="some")  # type: ignore[arg-type]


@given(lists=two_lists())
def test_ranking_accuracy_equals_a_double_loop(lists: tuple[list[float], list[float]]) -> None:
    """The share of pairs in the right order; true ties are left out, predicted ties are wrong."""
    predicted, target = lists
    right = total = 0
    for i in range(len(predicted)):
        for j in range(i):
            if target[i] == target[j]:
                continue
            total += 1
            right += predicted[i] != predicted[j] and (
                (predicted[i] > predicted[j]) == (target[i] > target[j])
            )
    value = ranking_accuracy(*tensors(lists)).item()
    assert math.isnan(value) if total == 0 else value == pytest.approx(right / total)


class _CountOperations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "function", [ranking_accuracy, LossPredictionLoss(), LossPredictionLoss(pairs="all")]
)
def test_no_loop_over_pairs_and_no_synchronization(
    function: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """The number of tensor operations does not grow with the batch; none waits for the device."""
    operations = []
    for b in (4, 64):
        with _CountOperations() as counted:
            function(torch.arange(float(b)), torch.arange(float(b)))
        operations.append(counted.names)
    assert operations[0] == operations[1]
    assert not [name for name in operations[1] if "local_scalar" in name or "nonzero" in name]


@given(lists=two_lists(min_size=2))
def test_tau_equals_scipy(lists: tuple[list[float], list[float]]) -> None:
    """Kendall's tau-b agrees with SciPy for any finite lists, ties included."""
    expected = scipy.stats.kendalltau(*lists, variant="b").statistic
    found = kendall_tau(*lists)
    assert (
        math.isnan(found) if math.isnan(expected) else found == pytest.approx(expected, abs=1e-12)
    )


@pytest.mark.parametrize("n", [1000, 1024, 4097])
def test_tau_equals_scipy_on_long_lists(n: int) -> None:
    """The same for thousands of values, with few and with no ties, at and off a power of two."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=n)
    for y in (x + rng.normal(size=n), np.round(x), rng.integers(5, size=n)):
        expected = scipy.stats.kendalltau(x, y).statistic
        assert kendall_tau(x, y) == pytest.approx(expected, abs=1e-12)


def test_tau_of_equal_and_reversed_order() -> None:
    """The same order gives 1, the reverse -1, whatever the values; torch tensors are taken."""
    x = np.exp(np.arange(20.0))
    assert kendall_tau(x, range(20)) == pytest.approx(1)
    assert kendall_tau(x, -x) == pytest.approx(-1)
    assert kendall_tau(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])) == 1


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2], [5, 5])]
)
def test_tau_without_an_order_is_nan(a: list[float], b: list[float]) -> None:
    """Fewer than two values, or a constant list, have no order: NaN, not zero."""
    assert math.isnan(kendall_tau(a, b))


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        ([1, 2], [1, 2, 3], "one length"),
        ([[1, 2]], [[1, 2]], "one length"),
        ([1, np.nan], [1, 2], "finite"),
        ([1, 2], [1, np.inf], "finite"),
    ],
)
def test_tau_refuses_what_it_cannot_compare(a: Any, b: Any, text: str) -> None:
    """Lists of different lengths and values that are not finite raise."""
    with pytest.raises(InvalidSetting, match=text):
        kendall_tau(a, b)


def _lines_executed(function: Callable[[], Any]) -> int:
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != ranking.__file__:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def test_tau_has_no_python_loop_over_values_and_no_square_of_memory() -> None:
    """Lines executed grow with log n only, and memory with n."""
    x = np.random.default_rng(0).permutation(4096)
    few = _lines_executed(lambda: kendall_tau(x[:64], range(64)))
    many = _lines_executed(lambda: kendall_tau(x, range(4096)))
    assert 0 < few < many < 2 * few + 10  # 6 levels of merging against 12
    tracemalloc.start()
    try:
        kendall_tau(x, range(4096))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4096 * 400  # all pairs would be 4096 * 4096 bytes or more


def test_squared_error_is_the_mean_over_the_batch_and_leaves_true_losses_alone() -> None:
    """(1 + 4) / 2 of errors 1 and -2; the gradient goes into the predictions only."""
    predicted = torch.tensor([2.0, 1.0], requires_grad=True)
    target = torch.tensor([1.0, 3.0], requires_grad=True)
    loss = LossPredictionMSELoss()(predicted, target)
    assert loss.item() == 2.5
    loss.backward()
    assert predicted.grad.tolist() == [1.0, -2.0]
    assert target.grad is None


def test_ranknet_is_the_cross_entropy_of_the_order_of_all_pairs() -> None:
    """Written out over the pairs; true losses get no gradient, and a batch of one counts 0."""
    predicted = torch.tensor([0.5, -1.0, 2.0], requires_grad=True)
    target = torch.tensor([1.0, 1.0, 3.0], requires_grad=True)
    loss = RankNetLoss()(predicted, target)
    pairs = [(1.5, 0.5), (-1.5, 0.0), (-3.0, 0.0)]  # difference, share of the first being larger
    by_hand = [
        -(share * np.log(p) + (1 - share) * np.log(1 - p))
        for p, share in ((1 / (1 + np.exp(-d)), share) for d, share in pairs)
    ]
    assert loss.item() == pytest.approx(np.mean(by_hand), rel=1e-6)
    loss.backward()
    assert target.grad is None
    assert RankNetLoss()(torch.ones(1), torch.ones(1)).item() == 0
    with pytest.raises(InvalidSetting, match=r"must both have shape \(b,\)"):
        RankNetLoss()(torch.zeros(4, 1), torch.zeros(4))


@pytest.mark.parametrize("shape", [(4, 1), (2,), (1, 4)])
def test_squared_error_refuses_shapes_that_would_broadcast(shape: tuple[int, ...]) -> None:
    """(b, 1) against (b,) is refused, as by the ranking loss."""
    with pytest.raises(InvalidSetting, match=r"must both have shape \(b,\)"):
        LossPredictionMSELoss()(torch.zeros(shape), torch.zeros(4))
