"""The light detector on EfficientNet-Lite0: its maps, its boxes, its weights and its settings."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from al_core.errors import InvalidSetting
from experiments.learning.optimizer import make_optimizer
from experiments.models.detector import detector_of
from experiments.models.lite0_ssd import SCALES, lite0_ssd
from experiments.models.pretrained import lite0_trunk
from experiments.settings.input_format import InputFormat
from experiments.settings.recipe import OptimizerSettings
from experiments.settings.run_config import Backbone
from tests.experiments.models.test_pretrained import needs_lite0
from vendored.ssd_pytorch import point_form


@pytest.mark.parametrize("size", [64, 100, 256])
def test_every_position_of_the_maps_has_its_boxes(size: int) -> None:
    """Outputs and default boxes agree in number for any size, the smallest at stride 4."""
    network = lite0_ssd(4, weights="none", image_size=size).eval()
    with torch.no_grad():
        offsets, logits, priors = network(torch.zeros(1, 3, size, size))
    assert offsets.shape[1:] == priors.shape
    assert logits.shape == (1, len(priors), 4)
    maps = network.get_active_learning_features()
    assert [m.shape[2] for m in maps] == [-(-size // stride) for stride in (4, 8, 16, 32, 64)]
    assert network.get_embedding().shape == (1, maps[0].shape[1])
    sides = (point_form(priors)[:, 2:] - point_form(priors)[:, :2]).amin(1)
    assert sides.min() == pytest.approx(SCALES[0] / 2**0.5, rel=1e-4)


@needs_lite0
def test_it_starts_from_imagenet_and_its_images_are_normalized_for_it() -> None:
    """The trunk has the published weights, and fine-tuning takes smaller steps with them."""
    choice = {
        "name": "efficientnet_lite0",
        "detection": {"_target_": "experiments.models.lite0_ssd.lite0_ssd", "image_size": 64},
    }
    backbone = Backbone.of(choice, "detection")
    network = backbone(num_classes=3)
    for key, value in lite0_trunk().state_dict().items():
        assert torch.equal(network.trunk.state_dict()[key], value), key
    detector = detector_of(network, backbone.input_format)
    assert (detector.image_size, detector.mean, detector.std) == (64, (127.5,) * 3, (127.5,) * 3)

    class Task:
        head = staticmethod(detector.head)

    settings = OptimizerSettings(lr=0.1, backbone_lr_scale=0.5)
    groups = make_optimizer(settings, network, Task(), fused=False).param_groups
    trunk = {id(p) for p in network.trunk.parameters()}
    by_rate = {group["lr"]: {id(p) for p in group["params"]} for group in groups}
    assert by_rate[0.05] == trunk
    assert by_rate[0.1] == {id(p) for p in network.parameters()} - trunk


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"image_size": 32}, r"backbone\.image_size must be a whole number.*64"),
        ({"scales": [0.1, 0.2]}, r"backbone\.detection\.scales: scales must be 6 increasing"),
        ({"scales": [0.1, 0.1, 0.2, 0.3, 0.4, 0.5]}, r"must be 6 increasing fractions"),
        ({"weights": "/no.pth"}, r"backbone\.weights=/no\.pth: there is no file /no\.pth"),
    ],
)
def test_wrong_settings_are_one_line(arguments: dict[str, Any], says: str) -> None:
    """Size, scales and weights are refused with the key that has them."""
    with pytest.raises(InvalidSetting, match=says) as refused:
        lite0_ssd(4, **{"weights": "none", **arguments})
    assert "\n" not in str(refused.value)
    detector_of(lite0_ssd(4, weights="none", image_size=64), InputFormat(image_size=64))
