from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.swin_transformer import SwinTransformer

from al_core import ActiveLearning, find_stages
from al_core.errors import InvalidSetting, TapError
from tests.al_core.nets import IMAGES, Offering, Residual

LAST = "encoder.layers.encoder_layer_"


def on_meta(name: str, **options: Any) -> nn.Module:
    """Build a network of torchvision without memory or arithmetic: only shapes are computed."""
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model.to("meta")


@pytest.mark.parametrize("image_size", [32, 224])
@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v3_small", ["features.1", "features.3", "features.8", "features.12"]),
        ("efficientnet_b0", ["features.2", "features.3", "features.5", "features.8"]),
        ("vgg11_bn", ["features.6", "features.13", "features.20", "features.27"]),
        ("convnext_tiny", ["features.1", "features.3", "features.5", "features.7"]),
        ("swin_t", ["features.1", "features.3", "features.5", "features.7"]),
        ("densenet121", [f"features.denseblock{i}" for i in (1, 2, 3, 4)]),
        ("regnet_y_400mf", [f"trunk_output.block{i}" for i in (1, 2, 3, 4)]),
        ("squeezenet1_1", ["features.1", "features.4", "features.7", "features.12"]),
        ("vit_b_16", [LAST + str(i) for i in (2, 5, 8, 11)]),
    ],
)
def test_the_stages_of_known_networks_are_found(
    name: str, stages: list[str], image_size: int
) -> None:
    """Each stage's last block, or its last activation; in a ViT every third block."""
    options: dict[str, Any] = {"image_size": image_size} if name == "vit_b_16" else {}
    # torchvision's RegNet computes with values while it is built, and cannot be built on meta.
    with torch.device("cpu" if name == "regnet_y_400mf" else "meta"):
        model = on_meta(name, **options)
    images = torch.empty(2, 3, image_size, image_size, device="meta")
    assert find_stages(model, images) == stages
    with torch.device("meta"):
        net = ActiveLearning(model, layers="auto", example=images)
    assert net(images)[1].shape == (2,)


@pytest.mark.parametrize(
    ("at_most", "stages"), [(1, ["layer2"]), (2, ["layer1", "layer2"]), (4, ["layer1", "layer2"])]
)
def test_the_last_stages_are_kept(at_most: int, stages: list[str]) -> None:
    """If there are more stages than requested, the deepest are returned."""
    assert find_stages(Residual(), IMAGES, at_most=at_most) == stages


class Blocks(nn.Module):
    """A patch embedding, equal blocks of tokens, and a classifier, named as in timm."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 6, 4, 4)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6)) for _ in range(num_blocks))
        )
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Classify the mean token."""
        tokens = self.patch_embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens[:, :1], tokens], 1)  # one more than patches
        out: Tensor = self.head(self.blocks(tokens).mean(1))
        return out


@pytest.mark.parametrize(
    ("num_blocks", "at_most", "numbers"),
    [
        (12, 4, [2, 5, 8, 11]),
        (6, 4, [0, 2, 3, 5]),
        (3, 4, [0, 1, 2]),
        (5, 2, [1, 4]),
        (7, 1, [6]),
    ],
)
def test_blocks_of_one_resolution_are_spaced_evenly(
    num_blocks: int, at_most: int, numbers: list[int]
) -> None:
    """Where the resolution never changes the last block and evenly spaced ones are taken."""
    found = find_stages(Blocks(num_blocks), IMAGES, at_most=at_most)
    assert found == [f"blocks.{number}" for number in numbers]


class DecoderNet(nn.Module):
    """An encoder of two stages in a dict-returning backbone, and a decoder that grows again."""

    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(
                nn.Sequential(nn.Conv2d(c, 8, 3, 2, 1), nn.ReLU()) for c in (3, 8)
            )

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            high = self.stages[0](x)
            return {"high": high, "low": self.stages[1](high)}

    def __init__(self) -> None:
        super().__init__()
        self.backbone = self.Backbone()
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.shared = nn.Conv2d(8, 8, 1)
        self.out = nn.Sequential(nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 5, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Segment."""
        features = self.backbone(x)
        high = self.shared(features["high"]) + self.up(self.shared(features["low"]))
        return {"out": self.out(high)}


def test_decoders_shared_layers_and_dictionaries_are_passed_over() -> None:
    """The stages are those of the encoder; layers called twice and growing maps do not count."""
    assert find_stages(DecoderNet(), IMAGES) == ["backbone.stages.0", "backbone.stages.1"]


def test_layers_after_global_pooling_are_no_stage() -> None:
    """A head that computes on 1 x 1 maps is not taken for a stage."""
    for pooling in (nn.AdaptiveAvgPool2d(1), nn.AvgPool2d(16)):
        net = nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), pooling, nn.Conv2d(8, 9, 1), nn.Flatten()
        )
        assert find_stages(net, IMAGES) == ["1"]


def test_a_backbone_in_one_module_is_looked_into() -> None:
    """Two stages inside a single container are found there."""
    backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 2, 2), nn.ReLU())
    net = nn.Sequential(nn.Sequential(backbone), nn.Flatten(), nn.Linear(256, 5))
    assert find_stages(net, IMAGES) == ["0.0.1", "0.0.3"]


def test_two_stages_in_one_container_beside_other_layers_are_found() -> None:
    """A small Swin has both stages in `features` and a norm after it."""
    net = SwinTransformer([4, 4], 24, [1, 1], [2, 2], [2, 2], num_classes=5)
    images = torch.zeros(1, 3, 32, 32)
    assert find_stages(net, images) == ["features.1", "features.3"]


def test_finding_leaves_no_trace() -> None:
    """Statistics, modes and hooks of the network are as before, also after a failing example."""
    net = Residual().train()
    net.layer1.eval()
    state = copy.deepcopy(net.state_dict())
    modes = [module.training for module in net.modules()]
    find_stages(net, IMAGES)
    with pytest.raises(RuntimeError, match="channels"):
        find_stages(net, torch.zeros(1, 1, 8, 8))
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_network_without_maps_is_refused() -> None:
    """A multilayer perceptron has no stages: raises and says to name layers."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 5))
    with pytest.raises(InvalidSetting, match="no layer of Sequential returns a map"):
        find_stages(net, IMAGES)
    with pytest.raises(InvalidSetting, match="at_most must be a positive whole number, got 0"):
        find_stages(Residual(), IMAGES, at_most=0)
    with pytest.raises(TapError, match="DataParallel"):
        find_stages(nn.DataParallel(Offering()), IMAGES)
