"""Settings, backbones and configuration of the segmentation task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from al_core import ActiveLearning
from al_core.errors import InvalidSetting
from experiments.models.drn import drn_seg
from experiments.settings.composition import build, make, plain
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, OptimizerSettings
from experiments.tasks.segmentation import Segmentation
from tests.experiments.segmentation_trees import small_data, small_task, tiny_drn
from tests.small_runs import compose

# ---- settings and backbones


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"crop_size": 8}, "crop_size"),
        ({"max_scale": 0.5}, "max_scale"),
        ({"max_rotation": 1.5}, "max_rotation"),
        ({"reduction": "sum"}, "labeled_pixels or all_pixels"),
        ({"mc_dropout_passes": -1}, "mc_dropout_passes"),
        ({"dropout": "yes"}, "dropout must be true or false"),
        ({"eval_batch_size": 0}, "eval_batch_size"),
    ],
)
def test_wrong_settings_are_one_clear_line(arguments: dict[str, Any], text: str) -> None:
    """Each names its key and what is permitted."""
    with pytest.raises(InvalidSetting, match=text) as raised:
        small_task(**arguments)
    assert "\n" not in str(raised.value)


def test_another_kind_of_network_is_refused() -> None:
    """A classifier as the backbone is told from a network that segments."""

    def classifier(num_classes: int) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))

    with pytest.raises(InvalidSetting, match=r"a tensor \(2, 4\), not class scores \(2, 4, h, w\)"):
        Segmentation(small_data(), classifier, crop_size=32)


@pytest.mark.slow
def test_every_drn_is_built_by_its_choice() -> None:
    """The twelve and the small one: each file of conf/backbone/drn_* is the network of its name."""
    from vendored.drn import MODEL_NAMES

    for name in MODEL_NAMES:
        config = compose(
            "task=drn_cityscapes", f"backbone={name}", "backbone.segmentation.weights=scratch"
        )
        with torch.device("meta"):
            net = build(
                plain(config.backbone.segmentation),
                where="backbone.segmentation",
                num_classes=19,
            )
            model = ActiveLearning(net, 6, 256).eval()
            (log_probs, _), predicted = model(torch.empty(2, 3, 64, 72))
        assert log_probs.shape == (2, 19, 64, 72)
        assert predicted.shape == (2,)
        assert config.backbone.name == name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model_name": "drn_d_23"}, "drn_d_22"),
        ({"model_name": "drn_d_24", "weights": "imagenet"}, "none are published for drn_d_24"),
        ({"model_name": "drn_d_tiny", "weights": "no/such.pth"}, "weights=scratch"),
        ({"model_name": "drn_d_tiny", "weights": 3}, "imagenet, scratch or a path"),
    ],
)
def test_networks_and_weights_that_are_not_there_are_one_clear_line(
    arguments: dict[str, Any], text: str
) -> None:
    """Each error says what there is instead."""
    with pytest.raises(InvalidSetting, match=text) as raised:
        drn_seg(4, **arguments)
    assert "\n" not in str(raised.value)


def test_weights_of_a_file_are_the_start(tmp_path: Path) -> None:
    """The classification network's weights in a file become the backbone's."""
    from vendored.drn import drn_d_tiny

    source = drn_d_tiny()
    torch.save(source.state_dict(), tmp_path / "tiny.pth")
    net = tiny_drn(3, weights=str(tmp_path / "tiny.pth"))
    expected = source.state_dict()["layer0.0.weight"]
    assert torch.equal(net.state_dict()["base.0.0.weight"], expected)


# ---- configuration


def test_the_published_protocol_is_the_forks() -> None:
    """The numbers of the recipe, with DRN-D-22 from ImageNet's weights, and no others."""
    config = compose("task=drn_cityscapes")
    cycle = make(CycleSettings, plain(config.cycle), where="cycle")
    assert (cycle.initial_size, cycle.query_size, cycle.candidates) == (150, 150, 1500)
    assert (cycle.epochs, cycle.batch_size, cycle.milestones) == (250, 4, (0.4, 0.8))
    assert (cycle.schedule, cycle.gamma, cycle.min_steps) == ("step", 0.1, 0)
    optimizer = OptimizerSettings.of(plain(config.optimizer))
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.01, 0.9, 1e-4)
    head = make(LossPredictionSettings, plain(config.loss_prediction), where="loss_prediction")
    assert (head.weight, head.pool_size, head.width) == (0.01, 6, 256)
    assert (head.detach_at, head.warm_up_epochs, head.margin) == (0.6, 2, 1.0)
    backbone = config.backbone.segmentation
    assert (backbone.model_name, backbone.weights) == ("drn_d_22", "imagenet")
    assert config.task.build.crop_size == 896
    assert config.data.name == "cityscapes"


def test_embedded_scenes_get_a_small_network_and_a_short_protocol() -> None:
    """data=digits needs no download and no patience; a backbone that is named wins."""
    config = compose("task=drn_cityscapes", "data=digits")
    backbone = config.backbone.segmentation
    assert (backbone.model_name, backbone.weights) == ("drn_d_tiny", "scratch")
    assert (config.cycle.name, config.cycle.batch_size) == ("quick", 8)
    assert config.optimizer["_target_"] == "torch.optim.AdamW"
    build = config.task.build  # crops differ only where they are smaller than the scenes
    assert (build.crop_size, build.max_scale, build.max_rotation) == (80, 1.3, 10)
    assert build.crop_size < config.data.scene_size
    named = compose("task=drn_cityscapes", "data=digits", "backbone=drn_d_38")
    assert named.backbone.segmentation.model_name == "drn_d_38"
    assert (named.optimizer["_target_"], named.optimizer.lr) == ("torch.optim.SGD", 0.01)
    build = named.task.build
    assert (build.crop_size, build.max_scale, build.max_rotation) == (96, 1.0, 0)
