"""Stacked hourglasses: counts, keys, the recursion of the paper, and what is kept of a pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

from tests.vendored.recorded import image
from vendored.stacked_hourglass import StackedHourglass, hg1, hg2, hg8
from vendored.stacked_hourglass.hourglass import Hourglass, ResidualModule

KEYS = {
    "conv1.weight": (64, 3, 7, 7),
    "conv1.bias": (64,),
    "layer1.0.downsample.0.weight": (128, 64, 1, 1),
    "layer2.0.downsample.0.bias": (256,),
    "layer3.0.conv2.weight": (128, 128, 3, 3),
    "hg.1.hg.0.3.0.bn1.weight": (256,),
    "hg.0.hg.3.2.0.conv3.weight": (256, 128, 1, 1),
    "res.1.0.bn3.running_var": (128,),
    "fc.0.0.weight": (256, 256, 1, 1),
    "fc.1.1.num_batches_tracked": (),
    "score.1.weight": (16, 256, 1, 1),
    "fc_.0.bias": (256,),
    "score_.0.weight": (256, 16, 1, 1),
}
"""Entries of the state_dict, named as in bearpaw/pytorch-pose, with their shapes."""


def tiny(num_stacks: int = 2) -> StackedHourglass:
    """A narrow network for three joints with reproducible weights."""
    torch.manual_seed(0)
    return StackedHourglass(num_stacks, 3, channels=8)


@pytest.mark.parametrize(("build", "millions"), [(hg1, 3.59), (hg2, 6.73), (hg8, 25.59)])
def test_parameters_are_as_published(build: Any, millions: float) -> None:
    """The numbers of parameters of two and eight stacks are those that are published."""
    with torch.device("meta"):
        model: nn.Module = build()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions


def test_keys() -> None:
    """Names and shapes of the entries stay as they are, so that saved networks load."""
    with torch.device("meta"):
        state = hg2().state_dict()
    assert {key: tuple(state[key].shape) for key in KEYS if key in state} == KEYS
    assert not [key for key in state if key.startswith(("fc_.1", "score_.1", "layer3.0.down"))]


def test_an_hourglass_is_the_recursion_of_the_paper() -> None:
    """Each level adds a skip connection to the enlarged output of the level below it."""
    torch.manual_seed(0)
    net = Hourglass(8, depth=3, count=2).eval()

    def recursion(level: int, x: Tensor) -> Tensor:
        places: Any = net.hg[level]
        inner = places[1](max_pool2d(x, 2))
        inner = recursion(level - 1, inner) if level else places[3](inner)
        return places[0](x) + interpolate(places[2](inner), scale_factor=2)

    x = torch.randn(2, 8, 16, 24)
    with torch.no_grad():
        maps = net(x)
        torch.testing.assert_close(maps[-1], recursion(2, x))
    assert [tuple(m.shape[2:]) for m in maps] == [(2, 3), (4, 6), (8, 12), (16, 24)]


def test_a_residual_module_is_the_formula_of_the_paper() -> None:
    """Batch norm and ReLU come before each convolution, and the input is added."""
    torch.manual_seed(0)
    module, x = ResidualModule(6, 4).train(), torch.randn(3, 6, 5, 5)
    assert module.downsample is not None
    y = x
    for bn, conv in ((module.bn1, module.conv1), (module.bn2, module.conv2)):
        y = conv(relu(bn(y)))
    expected = module.conv3(relu(module.bn3(y))) + module.downsample(x)
    torch.testing.assert_close(module(x), expected)
    same = ResidualModule(8, 4)
    assert same.downsample is None


@pytest.mark.parametrize("num_stacks", [1, 3])
def test_shapes_and_gradients(num_stacks: int) -> None:
    """Heatmaps of each stack, maps and embedding have their shapes and train every parameter."""
    model = tiny(num_stacks)
    heatmaps = model(image("pose", (2, 3, 64, 128)))
    assert [tuple(h.shape) for h in heatmaps] == [(2, 3, 16, 32)] * num_stacks
    maps, embedding = model.get_active_learning_features(), model.get_embedding()
    assert model.get_active_learning_feature_channel_counts() == [8] * 5
    sides = [(1, 2), (2, 4), (4, 8), (8, 16), (16, 32)]
    assert [tuple(m.shape) for m in maps] == [(2, 8, *side) for side in sides]
    torch.testing.assert_close(embedding, maps[-1].mean((2, 3)))
    torch.testing.assert_close(model.score[-1](maps[-1]), heatmaps[-1])
    total = torch.stack(heatmaps).square().sum() + sum(m.sum() for m in maps)
    torch.autograd.backward(total)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_each_stack_sees_the_heatmaps_before_it() -> None:
    """A change of the first stack's heatmaps changes those of the second."""
    model, images = tiny().eval(), image("pose", (1, 3, 64, 64))
    with torch.no_grad():
        first, second = model(images)
        assert model.score[0].bias is not None
        model.score[0].bias += 1
        moved, changed = model(images)
    torch.testing.assert_close(moved, first + 1)
    assert not torch.allclose(changed, second)


def test_it_learns() -> None:
    """A few steps on one batch bring the heatmaps of all stacks closer to their targets."""
    model = tiny()
    images, targets = image("learn", (4, 3, 64, 64)), torch.rand(4, 3, 16, 16)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = torch.stack([(h - targets).square().mean() for h in model(images)]).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_bad_arguments_are_refused() -> None:
    """Sizes that cannot be halved, and impossible numbers, are named in a ValueError."""
    with pytest.raises(ValueError, match="multiples of 64 pixels, not 96 x 64"):
        tiny()(torch.zeros(1, 3, 96, 64))
    with pytest.raises(ValueError, match="num_stacks is 0"):
        StackedHourglass(0)
    with pytest.raises(ValueError, match="channels is 7"):
        StackedHourglass(channels=7)
