"""Parity of vendored.hrnet with timm's trunk, and what it keeps for learning loss."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.vendored.recorded import assert_close, fill_, image
from vendored.checkpoints import load_into
from vendored.hrnet import PoseHRNet, pose_hrnet_w32, pose_hrnet_w48

RECORDED = np.load(Path(__file__).parent / "fixtures" / "hrnet.npz")
"""The map of the highest resolution of timm 1.0.31's hrnet_w32 after stage 4, in float64."""

KEYS = {
    "conv1.weight": (64, 3, 3, 3),
    "bn1.running_mean": (64,),
    "conv2.weight": (64, 64, 3, 3),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer1.3.conv3.weight": (256, 64, 1, 1),
    "transition1.0.0.weight": (32, 256, 3, 3),
    "transition1.1.0.0.weight": (64, 256, 3, 3),
    "stage2.0.branches.1.3.conv2.weight": (64, 64, 3, 3),
    "stage2.0.fuse_layers.0.1.0.weight": (32, 64, 1, 1),
    "transition2.2.0.0.weight": (128, 64, 3, 3),
    "stage3.3.fuse_layers.2.0.0.0.weight": (32, 32, 3, 3),
    "stage3.3.fuse_layers.2.0.1.0.weight": (128, 32, 3, 3),
    "transition3.3.0.1.bias": (256,),
    "stage4.1.fuse_layers.3.0.2.1.weight": (256,),
    "stage4.2.fuse_layers.0.3.0.weight": (32, 256, 1, 1),
    "final_layer.weight": (17, 32, 1, 1),
    "final_layer.bias": (17,),
}
"""Entries of published checkpoints, with their shapes."""


def tiny(**options: int) -> PoseHRNet:
    """A narrow network for three joints with reproducible weights."""
    torch.manual_seed(0)
    return PoseHRNet(3, width=options.get("width", 4))


def before_the_heatmaps(model: PoseHRNet, images: Tensor) -> Tensor:
    """The input of the final layer."""
    seen: list[Tensor] = []
    hook: Any = lambda _, inputs: seen.append(inputs[0])  # noqa: E731
    with model.final_layer.register_forward_pre_hook(hook), torch.no_grad():
        model(images)
    return seen[0]


def test_the_trunk_is_timms() -> None:
    """With weights drawn from the keys, the map that predicts heatmaps is that of timm."""
    model = pose_hrnet_w32()
    fill_(model, 0.5)
    got = before_the_heatmaps(model.double().eval(), image("hrnet", (2, 3, 64, 96)).double())
    assert_close(got, RECORDED["map"], 1e-6)


@pytest.mark.parametrize(("build", "millions"), [(pose_hrnet_w32, 28.5), (pose_hrnet_w48, 63.6)])
def test_parameters_are_the_papers(build: Any, millions: float) -> None:
    """The numbers of parameters are those of the paper's table."""
    with torch.device("meta"):
        model: nn.Module = build()
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == millions


def test_keys_are_the_published_ones() -> None:
    """Known entries of published checkpoints are there, and the last fusion has one output."""
    with torch.device("meta"):
        state = pose_hrnet_w32().state_dict()
    assert {key: tuple(state[key].shape) for key in KEYS if key in state} == KEYS
    assert not [key for key in state if key.startswith("stage4.2.fuse_layers.1")]
    assert {key.partition(".")[0] for key in state} == {
        *("conv1", "bn1", "conv2", "bn2", "layer1", "transition1", "stage2"),
        *("transition2", "stage3", "transition3", "stage4", "final_layer"),
    }


def test_shapes_and_gradients() -> None:
    """Heatmaps, maps and embedding have their shapes and train every parameter."""
    model = tiny()
    heatmaps = model(image("pose", (2, 3, 64, 96)))
    maps, embedding = model.get_active_learning_features(), model.get_embedding()
    assert heatmaps.shape == (2, 3, 16, 24)
    assert model.get_active_learning_feature_channel_counts() == [4, 8, 16, 32]
    assert [tuple(m.shape) for m in maps] == [
        (2, 4, 16, 24), (2, 8, 8, 12), (2, 16, 4, 6), (2, 32, 2, 3)
    ]  # fmt: skip
    torch.testing.assert_close(embedding, torch.cat([m.mean((2, 3)) for m in maps], 1))
    torch.autograd.backward(heatmaps.square().sum() + embedding.sum())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_it_learns() -> None:
    """A few steps on one batch bring the heatmaps closer to their targets."""
    model = tiny()
    images, targets = image("learn", (4, 3, 32, 32)), torch.rand(4, 3, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(15):
        loss = (model(images) - targets).square().mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_files_load(tmp_path: Path) -> None:
    """A whole checkpoint loads, and the trunk alone from one with another head."""
    source, other = tiny(), PoseHRNet(5, width=4)
    state = source.state_dict()
    whole, classifier = tmp_path / "pose.pth", tmp_path / "classifier.pth"
    torch.save({f"module.{key}": value for key, value in state.items()}, whole)
    load_into(twin := PoseHRNet(3, width=4), whole)
    assert all(torch.equal(value, state[key]) for key, value in twin.state_dict().items())
    extra = {"incre_modules.0.0.conv1.weight": torch.zeros(1), "final_layer.0.bias": torch.ones(2)}
    torch.save({**{k: v for k, v in state.items() if "final" not in k}, **extra}, classifier)
    head = copy.deepcopy(other.final_layer.state_dict())
    other.load_trunk_weights(classifier)
    assert torch.equal(other.final_layer.weight, head["weight"])
    assert torch.equal(other.conv1.weight, source.conv1.weight)
    with pytest.raises(ValueError, match="of another shape"):
        PoseHRNet(3, width=8).load_trunk_weights(classifier)


def test_bad_arguments_are_refused() -> None:
    """Sides that are not multiples of 32, and numbers below 1, raise ValueError."""
    with pytest.raises(ValueError, match="multiples of 32 pixels, not 48 x 64"):
        tiny()(torch.zeros(1, 3, 48, 64))
    with pytest.raises(ValueError, match="num_joints is 0"):
        PoseHRNet(0)
