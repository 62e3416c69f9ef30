"""Backbones for pose: the light network, stacked hourglasses and HRNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from al_core.errors import InvalidSetting
from experiments.models.heatmaps import PoseNetwork, heatmaps_of, is_heatmaps
from experiments.models.pose_networks import EmbeddingHRNet, hrnet, stacked_hourglass
from experiments.models.small_trunk import light_pose
from experiments.settings.input_format import input_format

NARROW = {"width": 8}
BUILDERS: list[tuple[Callable[..., nn.Module], dict[str, Any], int]] = [
    (light_pose, {}, 128 + 64),
    (stacked_hourglass, {"num_stacks": 1}, 256),
    (hrnet, NARROW, 8 + 16 + 32 + 64),
]


@pytest.mark.parametrize(
    ("build", "arguments", "width"), BUILDERS, ids=lambda each: getattr(each, "__name__", str(each))
)
def test_a_network_gives_heatmaps_and_an_embedding(
    build: Callable[..., nn.Module], arguments: dict[str, Any], width: int
) -> None:
    """Heatmaps have a quarter of the image's sides; dropout has a place."""
    torch.manual_seed(0)
    network = build(5, **arguments).eval()
    with torch.inference_mode():
        outputs = network(torch.zeros(2, 3, 64, 64))
    assert is_heatmaps(outputs, num_joints=5)
    found = heatmaps_of(outputs)
    assert found is not None
    assert found.final.shape == (2, 5, 16, 16)

    def builds(num_classes: int) -> nn.Module:
        return build(num_classes, **arguments)

    port = PoseNetwork.of(build(5, **arguments).to("meta"), builds, (64, 64), num_classes=5)
    assert port.has_embedding
    assert port.can_drop


def test_the_embedding_of_hrnet_is_of_all_resolutions() -> None:
    """It is the concatenation of the averages of the four branches."""
    network = hrnet(5, **NARROW).eval()
    with torch.inference_mode():
        network(torch.zeros(2, 3, 64, 64))
    assert network.get_discriminative_al_features().shape == (2, 8 + 16 + 32 + 64)


def test_every_weight_of_the_light_network_learns() -> None:
    """All layers get a gradient, and it has about half a million weights."""
    network = light_pose(14).train()
    network(torch.randn(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, each in network.named_parameters() if each.grad is None] == []
    assert 400_000 < sum(each.numel() for each in network.parameters()) < 600_000


def test_hrnet_starts_from_a_file(tmp_path: Path) -> None:
    """Everything but the last layer is the file's; a file of another network is refused."""
    torch.manual_seed(1)
    source = EmbeddingHRNet(17, width=8)
    torch.save(source.state_dict(), tmp_path / "published.pth")
    network = hrnet(5, **NARROW, weights=str(tmp_path / "published.pth"))
    expected = source.state_dict()
    for key, value in network.state_dict().items():
        if not key.startswith("final_layer."):
            assert torch.equal(value, expected[key]), key
    with pytest.raises(InvalidSetting, match=r"backbone\.pose\.weights="):
        hrnet(5, width=16, weights=str(tmp_path / "published.pth"))
    with pytest.raises(InvalidSetting, match=r"backbone\.pose\.weights="):
        hrnet(5, **NARROW, weights=str(tmp_path / "none.pth"))


def test_images_fit_the_network() -> None:
    """Each constructor says which images it takes, and refuses sides that it cannot halve."""
    path = "experiments.models.pose_networks"
    assert input_format({"_target_": f"{path}.stacked_hourglass"}, {}).image_size == 256
    assert input_format({"_target_": f"{path}.hrnet", "weights": "scratch"}, {}).mean is None
    assert input_format({"_target_": f"{path}.hrnet", "weights": "a.pth"}, {}).mean is not None
    light = {"_target_": "experiments.models.small_trunk.light_pose", "image_size": 64}
    assert input_format(light, {}).image_size == 64
    for build, wrong in ((stacked_hourglass, 96), (hrnet, 40)):
        with pytest.raises(InvalidSetting, match=r"backbone\.image_size must be a multiple of"):
            build(5, image_size=wrong)
