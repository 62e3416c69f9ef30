from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from al_core import ActiveLearning
from al_core.errors import InvalidSetting, TapError
from al_core.taps import LayerTaps, MethodTaps, unwrapped
from tests.al_core.nets import IMAGES, MORE_IMAGES, Offering, Residual, seeded


def by_methods(wrap: Callable[[nn.Module], Any] = lambda net: net) -> ActiveLearning:
    """A model tapped by its own methods; `wrap` goes around it first."""
    base = seeded(Offering).eval()
    torch.manual_seed(2)
    return ActiveLearning(wrap(base)).eval()


def by_layers(wrap: Callable[[nn.Module], Any] = lambda net: net) -> ActiveLearning:
    """A model tapped by layer names; `wrap` goes around it first."""
    base = seeded(Residual).eval()
    torch.manual_seed(2)
    return ActiveLearning(wrap(base), layers=["layer1", "layer2"], example=IMAGES).eval()


BOTH = pytest.mark.parametrize("build", [by_methods, by_layers])


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Forget compiled code before and after."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def one_process_group() -> Iterator[None]:
    """A gloo group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_both_ways_of_tapping_give_the_same_prediction() -> None:
    """Layers that give what the two methods give lead to the same predicted loss."""

    class Activated(Offering):
        def __init__(self) -> None:
            super().__init__()
            self.act1, self.act2 = nn.ReLU(), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            first = self.act1(self.norm(self.first(x)))
            second = self.act2(self.second(first))
            self.features = [first, second]
            out: Tensor = self.head(second.mean((2, 3)))
            return out

    base = seeded(Activated).eval()
    one = ActiveLearning(base)
    other = ActiveLearning(base, layers=["act1", "act2"], example=IMAGES)
    other.fc.load_state_dict(one.fc.state_dict())
    other.loss_pred.load_state_dict(one.loss_pred.state_dict())
    assert torch.equal(one(MORE_IMAGES)[1], other(MORE_IMAGES)[1])


def test_features_come_in_the_order_of_the_names() -> None:
    """The order is the caller's, not the network's, so that saved heads fit."""
    net = ActiveLearning(Residual(), layers=["layer2", "conv1", "layer1.0.bn2"], example=IMAGES)
    assert [linear.in_features for linear in net.fc] == [12, 4, 2]


@BOTH
def test_features_are_those_of_the_latest_forward(build: Callable[..., ActiveLearning]) -> None:
    """A batch's prediction does not depend on batches before it, of whatever size."""
    net = build()
    expected = net(MORE_IMAGES)[1]
    net(IMAGES)
    assert torch.equal(net(MORE_IMAGES)[1], expected)


class Branching(nn.Module):
    """Skips a layer for small batches, and fails for empty ones."""

    def __init__(self) -> None:
        super().__init__()
        self.always = nn.Conv2d(3, 4, 3)
        self.sometimes = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Run one or both."""
        if len(x) > 4:
            self.sometimes(x)
        out: Tensor = self.always(x)
        return out


def test_stale_features_are_never_used() -> None:
    """A layer left out of a forward raises, though forwards before, bare or not, ran it."""
    net = ActiveLearning(Branching(), layers=["always", "sometimes"], example=MORE_IMAGES)
    net(MORE_IMAGES)
    with pytest.raises(TapError, match="layer 'sometimes' was not called"):
        net(IMAGES)
    net.base_model(MORE_IMAGES)
    with pytest.raises(TapError, match="layer 'sometimes' was not called"):
        net(IMAGES)


def test_features_of_a_failed_forward_are_dropped() -> None:
    """Features of a forward that raised do not reach the next one."""
    net = ActiveLearning(Branching(), layers=["always", "sometimes"], example=MORE_IMAGES)
    with pytest.raises(RuntimeError, match="channels"):
        net.base_model.always(net.base_model.sometimes(MORE_IMAGES))
    with pytest.raises(TapError, match="layer 'sometimes' was not called"):
        net(IMAGES)


def test_features_are_let_go_of_after_the_forward() -> None:
    """Tapped activations do not stay in memory until the next batch."""
    net = by_layers()
    kept: list[weakref.ref[Tensor]] = []
    net.base_model.layer1.register_forward_hook(
        lambda module, args, output: kept.append(weakref.ref(output))
    )
    with torch.no_grad():
        net(IMAGES)
    gc.collect()
    assert len(kept) == 1
    assert kept[0]() is None


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        (["layer1", "layr2"], "Residual has no layer 'layr2'; .*layer2"),
        (["layer1.0.cnv1"], r"no layer 'layer1.0.cnv1'; .*layer1\.0\.conv1"),
        (["zzzzzz"], "no layer 'zzzzzz'; there are for example conv1"),
        ([""], "no layer ''"),
        ([], r"different layer names, got \[\]"),
        (["layer1", "layer1"], "different layer names"),
        ("layer1", "different layer names, got 'layer1'"),
    ],
)
def test_wrong_layer_names_are_refused_with_a_suggestion(layers: Any, text: str) -> None:
    """An unknown name raises and suggests near ones; no, repeated or unlisted names raise too."""
    base = Residual()
    with pytest.raises(InvalidSetting, match=text):
        ActiveLearning(base, layers=layers)
    assert not any(module._forward_hooks for module in base.modules())


def test_a_layer_that_gives_no_tensor_is_refused() -> None:
    """Tapping a layer with a tuple as output raises TapError and names the layer."""
    model = nn.Sequential(nn.LSTM(3, 4))
    with pytest.raises(TapError, match="layer '0' returns a tuple"):
        ActiveLearning(model, layers=["0"], example=torch.zeros(5, 2, 3))


def test_wrappers_are_looked_through(fresh_compiler: None, one_process_group: None) -> None:
    """The model inside compile and DistributedDataParallel, in any nesting, is found."""
    base = Offering()
    assert unwrapped(base) is base
    assert unwrapped(torch.compile(base, backend="eager")) is base  # type: ignore[arg-type]
    nested = torch.compile(DistributedDataParallel(base), backend="eager")
    assert unwrapped(nested) is base  # type: ignore[arg-type]
    assert MethodTaps.offered_by(nested)  # type: ignore[arg-type]


@BOTH
def test_a_compiled_wrapper_gives_equal_outputs_without_a_graph_break(
    build: Callable[..., ActiveLearning], fresh_compiler: None
) -> None:
    """torch.compile(ActiveLearning(net), fullgraph=True) is right for batches of every size."""
    net = build()
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for images in (IMAGES, IMAGES * 2, MORE_IMAGES):
        for one, other in zip(compiled(images), net(images), strict=True):
            torch.testing.assert_close(one, other)


@BOTH
def test_a_compiled_wrapper_trains_as_the_plain_one(
    build: Callable[..., ActiveLearning], fresh_compiler: None
) -> None:
    """Gradients through a compiled wrapper are those of the plain one, in training mode."""
    grads = []
    for wrap in (lambda net: net, lambda net: torch.compile(net, backend="aot_eager")):
        net = build().train()
        outputs, predicted = wrap(net)(IMAGES)
        (outputs.square().sum() + predicted.sum()).backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-4, msg=name)


@BOTH
def test_a_compiled_model_inside_gives_fresh_features(
    build: Callable[..., ActiveLearning], fresh_compiler: None
) -> None:
    """ActiveLearning(torch.compile(net)) predicts as without compiling, batch after batch."""
    plain, net = build(), build(lambda base: torch.compile(base, backend="eager"))
    for images in (IMAGES, IMAGES * 2):
        for one, other in zip(net(images), plain(images), strict=True):
            torch.testing.assert_close(one, other)


def test_a_model_that_ran_compiled_before_it_was_tapped_is_refused(fresh_compiler: None) -> None:
    """Code compiled without the hooks does not fire them: this raises and says what to compile."""
    compiled = torch.compile(seeded(Residual).eval(), backend="eager")
    compiled(IMAGES)
    with pytest.raises(TapError, match=r"compile ActiveLearning\(net\) instead"):
        ActiveLearning(compiled, layers=["layer1"])(IMAGES)  # type: ignore[arg-type]


@BOTH
def test_distributed_outside_and_inside_gives_equal_outputs(
    build: Callable[..., ActiveLearning], one_process_group: None
) -> None:
    """DistributedDataParallel around the wrapper or around the model changes no value."""
    plain, outside = build(), DistributedDataParallel(build())
    inside = build(DistributedDataParallel)
    for images in (IMAGES, MORE_IMAGES):
        expected = plain(images)
        for net in (outside, inside):
            for one, other in zip(net(images), expected, strict=True):
                torch.testing.assert_close(one, other)
    outputs, predicted = outside(IMAGES)
    (outputs.sum() + predicted.sum()).backward()
    assert all(p.grad is not None for p in outside.parameters())


def test_the_models_choice_of_parameters_survives_a_wrapper(
    one_process_group: None, fresh_compiler: None
) -> None:
    """Weights that a model keeps fixed stay fixed when it is wrapped before ActiveLearning."""
    for wrap in (DistributedDataParallel, lambda net: torch.compile(net, backend="eager")):
        net = by_methods(wrap)
        trained = {id(p) for p in net.optim_parameters()}
        assert id(unwrapped(net.base_model).fixed) not in trained


def test_data_parallel_is_refused() -> None:
    """nn.DataParallel inside raises at once; around the wrapper its copies raise when they run."""
    for base, options in ((Offering(), {}), (Residual(), {"layers": ["layer1"]})):
        with pytest.raises(TapError, match="use DistributedDataParallel"):
            ActiveLearning(nn.DataParallel(base), **options)  # type: ignore[arg-type]
    copy_on_a_device = by_layers()._replicate_for_data_parallel()
    with pytest.raises(TapError, match="use DistributedDataParallel"):
        copy_on_a_device(IMAGES)


def test_taps_can_be_used_without_a_head() -> None:
    """LayerTaps alone collects the layers' outputs once, and then has none."""
    base = Residual().eval()
    taps = LayerTaps(base, ["layer1", "fc"])
    logits = base(IMAGES)
    first, last = taps.collect()
    assert first.shape == (4, 8, 16, 16)
    assert torch.equal(last, logits)
    with pytest.raises(TapError, match="layer 'layer1' was not called"):
        taps.collect()
