"""docs/your-own-model.md is followed word for word, on small data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch.utils.data import TensorDataset

import al_core
from al_core.entropies import read_ranking_csv
from experiments.models.detector import detector_of
from experiments.models.torchvision_detector import adapted
from experiments.settings.run_config import Backbone, RunConfig
from tests.small_runs import compose

GUIDE = (Path(__file__).parents[1] / "docs" / "your-own-model.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_training_loops_run() -> None:
    """Each block runs after those before it, with a batch of images and the names in capitals."""
    torch.manual_seed(0)
    images, labels = torch.randn(4, 3, 64, 64), torch.arange(4)
    names: dict[str, Any] = {"images": images, "labels": labels, "loader": [(images, labels)] * 2}
    names |= {"VIT": "test_vit", "PRETRAINED": False}
    plain, transformer, of_a_dict, *_ = blocks("python")
    exec(plain, names)
    assert len(names["net"].fc) == 4
    exec(of_a_dict, names)
    assert names["predicted"].shape == (4,)
    assert names["outputs"]["logits"].shape == (4, 10)
    assert torch.isfinite(names["loss"])
    pytest.importorskip("timm")
    names["images"] = torch.randn(4, 3, 160, 160)
    exec(transformer, names)
    assert names["embedding"].shape == (4, 64)


class _Named(TensorDataset):
    """Images that have names."""

    def get_image_path(self, index: int) -> str:
        return f"photos/{index}.jpg"


def test_the_csv_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the training loop, the block on choosing writes the names of the chosen images."""
    torch.manual_seed(0)
    images, labels = torch.randn(12, 3, 64, 64), torch.arange(12) % 10
    names: dict[str, Any] = {"images": images, "labels": labels, "loader": [(images, labels)]}
    names |= {"dataset": _Named(images, labels), "unlabeled": list(range(12)), "cycle": 1}
    names |= {"rand_state": np.random.RandomState(0), "device": "cpu"}
    monkeypatch.chdir(tmp_path)
    plain, _, _, choosing, *_ = blocks("python")
    exec(plain, names)
    exec(choosing, names)
    chosen, values = read_ranking_csv("next.csv")
    assert len(set(chosen)) == 10
    assert list(values) == sorted(values, reverse=True)
    assert len(names["unlabeled"]) == 2


@pytest.mark.slow
def test_every_strategy_selects_on_the_networks_of_the_guide() -> None:
    """The blocks on `ModelLearner` run with the networks of the blocks before them."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    images, labels = torch.randn(12, 3, 160, 160), torch.arange(12) % 10
    of_dicts = [{"pixel_values": image, "labels": 0} for image in images]
    names: dict[str, Any] = {"images": images, "labels": labels, "loader": [(images, labels)]}
    names |= {"dataset": TensorDataset(images, labels), "dataset_of_dicts": of_dicts}
    names |= {"budget": 3, "labeled": [0, 1], "vit": timm.create_model("test_vit", num_classes=10)}
    plain, _, of_a_dict, _, selecting, others = blocks("python")
    for block in (plain, of_a_dict, plain, selecting, others):
        exec(block, names)
    assert len(set(names["indices"].tolist()) - {0, 1}) == 3
    assert names["ranked"].indices.size == 10
    for learner in ("of_torchvision", "of_timm", "of_dicts"):
        query = names[learner].query(al_core.TypiClust(), 3, labeled=[0, 1])
        assert query.indices.size == 3


COMMANDS = [
    f"python{command}"
    for block in blocks("sh")
    for command in block.split("python")[1:]
    if "--config-dir" not in command
]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_compose(command: str, tmp_path: Path) -> None:
    """Every choice and key in them exists, and their configurations are complete."""
    if "backbone=timm" in command:
        pytest.importorskip("timm")
    arguments = command.replace("\\\n", " ").split()
    assert arguments[:3] == ["python", "-m", "experiments.run"]
    config = RunConfig.of(compose(*arguments[3:], f"out={tmp_path}"))
    if config.kind == "classification":
        assert config.values["data"]["classification"]["image_size"] == 224
        assert config.values["data"]["classification"]["interpolation"] == "bicubic"
        cycle = config.recipe.cycle
        length = (60, 600, 64) if "frozen=true" in command else (15, 0, 16)
        assert (cycle.epochs, cycle.min_steps, cycle.batch_size) == length
    assert config.values["optimizer"]["recipe"] == (
        "frozen" if "frozen=true" in command else "fine_tuning"
    )


def test_the_keys_of_the_example_are_known() -> None:
    """The files of constructors of one's own have no key that does nothing."""
    own, _, of_segmenter = map(yaml.safe_load, blocks("yaml"))
    own["classification"] = {"_target_": "vendored.pytorch_cifar.LeNet"}
    config = compose("data=digits", "backbone=lenet")
    config.backbone.update(own)
    values = RunConfig.of(config).values
    assert values["data"]["image_size"] == 224
    config = compose("task=segmentation", "data.root=/data", "backbone=drn_d_tiny")
    config.backbone = {**config.backbone, **of_segmenter}
    assert RunConfig.of(config).values["optimizer"]["lr"] == 3.0e-3


def test_the_documented_optimizer_is_one() -> None:
    """The example of another optimizer composes."""
    text = re.search(r"For example `(.*?)`", GUIDE, re.DOTALL)
    assert text is not None
    config = RunConfig.of(compose("data=digits", "backbone=lenet", *text[1].split()))
    assert config.recipe.optimizer.kind is torch.optim.RMSprop
    assert config.recipe.optimizer.arguments["alpha"] == 0.9


def test_a_detection_constructor_of_torchvision_is_a_backbone() -> None:
    """The file of the guide builds a network that the port of detection takes, without weights."""
    _, own, _ = map(yaml.safe_load, blocks("yaml"))
    node = {**own["detection"], "weights_backbone": None, "trainable_backbone_layers": None}
    backbone = Backbone.of({**own, "detection": node}, "detection")
    network = adapted(backbone(num_classes=3))
    detector = detector_of(network, backbone.input_format)
    assert detector.image_size == 800
    assert detector.mean == pytest.approx((123.675, 116.28, 103.53))
