"""vendored.pytorch_cifar against keys, shapes and numbers recorded from kuangliu/pytorch-cifar.

cifar.npz holds outputs at commit 49b7aa9 for weights and images that recorded.py draws again;
pytorch_cifar_keys.json.gz holds the state_dict entries of all 44 networks.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import vendored.pytorch_cifar as networks
from tests.vendored.recorded import assert_close, fill_, image
from vendored.checkpoints import load_into
from vendored.taps import TappedClassifier

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = np.load(FIXTURES / "cifar.npz")
FACTS: dict[str, Any] = json.loads(
    gzip.decompress((FIXTURES / "pytorch_cifar_keys.json.gz").read_bytes())
)
WITH_NUMBERS = [
    key.removesuffix("/out") for key in RECORDED if key.endswith("/out") and key[:5] != "train"
]
SMALLEST_OF_EACH_FAMILY = [
    "VGG11", "ResNet18", "PreActResNet18", "densenet_cifar", "DPN26", "GoogLeNet", "LeNet",
    "MobileNet", "MobileNetV2", "PNASNetA", "PNASNetB", "RegNetX_200MF", "RegNetY_400MF",
    "ResNeXt29_32x4d", "SENet18", "ShuffleNetG2", "ShuffleNetG3", "ShuffleNetV2(0.5)",
    "EfficientNetB0", "DLA", "SimpleDLA",
]  # fmt: skip


def build(name: str, **options: Any) -> TappedClassifier:
    """The network of one entry of the facts."""
    facts = FACTS[name]
    model: TappedClassifier = getattr(networks, facts["constructor"])(*facts["args"], **options)
    return model


def build_meta(name: str, **options: Any) -> TappedClassifier:
    """The same network on the meta device, which takes no time to initialize."""
    with torch.device("meta"):
        return build(name, **options)


def build_empty(name: str, **options: Any) -> TappedClassifier:
    """The same network with undefined weights, for tests of shapes or to be filled."""
    return build_meta(name, **options).to_empty(device="cpu")


# Names, keys, shapes


def test_the_package_exports_upstreams_constructors() -> None:
    """All of upstream's constructors, and nothing else, can be imported from the package."""
    assert set(networks.__all__) == {facts["constructor"] for facts in FACTS.values()}
    assert len(FACTS) == 44


@pytest.mark.parametrize("name", FACTS)
def test_state_dict_is_upstreams(name: str) -> None:
    """Keys, their order, shapes, types and the number of parameters are upstream's."""
    model = build_meta(name)
    entries = [
        [key, list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in model.state_dict().items()
    ]
    assert entries == FACTS[name]["state_dict"]
    assert sum(p.numel() for p in model.parameters()) == FACTS[name]["parameters"]


@pytest.mark.parametrize("name", FACTS)
def test_getters_describe_what_a_forward_gives(name: str) -> None:
    """Channel counts and embedding sizes, read before a forward pass, are those of the pass."""
    model = build_empty(name, num_classes=7).eval()
    counts = model.get_active_learning_feature_channel_counts()
    [[size]] = model.get_discriminative_al_layer_shapes()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    features = model.get_active_learning_features()
    assert 3 <= len(features) <= 5
    assert all(feature.ndim == 4 and len(feature) == 1 for feature in features)
    assert [feature.shape[1] for feature in features] == counts
    assert [feature.shape[2] for feature in features] == sorted(
        (feature.shape[2] for feature in features), reverse=True
    )
    assert model.get_discriminative_al_features().shape == (1, size)


# Numbers


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_scores_are_upstreams(name: str) -> None:
    """In eval mode, with equal weights, class scores are upstream's."""
    model = build_empty(name).eval()
    fill_(model, float(RECORDED[f"{name}/gain"]))
    with torch.no_grad():
        scores = model(image(f"cifar:{name}", (2, 3, 32, 32)))
    assert_close(scores, RECORDED[f"{name}/out"])


def test_a_training_step_is_upstreams() -> None:
    """ResNet18 in training: scores, loss, running statistics and gradient norms are upstream's."""
    model = build_empty("ResNet18").double().train()
    fill_(model, float(RECORDED["ResNet18/gain"]))
    scores = model(image("cifar-train:ResNet18", (8, 3, 32, 32)).double())
    loss = cross_entropy(scores, torch.arange(8))
    torch.autograd.backward(loss)
    statistics = [
        [value.mean().item(), value.square().mean().sqrt().item()]
        for key, value in model.state_dict().items()
        if "running_" in key
    ]
    norms = [p.grad.norm().item() for p in model.parameters() if p.grad is not None]
    assert_close(scores, RECORDED["train/ResNet18/out"])
    assert_close(loss, RECORDED["train/ResNet18/loss"])
    assert_close(statistics, RECORDED["train/ResNet18/bn_stats"])
    assert_close(norms, RECORDED["train/ResNet18/grad_norms"])


def test_features_are_the_forks() -> None:
    """ResNet18's four features and embedding are those that the superannotate fork taps."""
    model = build_empty("ResNet18").eval()
    fill_(model, float(RECORDED["ResNet18/gain"]))
    with torch.no_grad():
        model(image("cifar:ResNet18", (2, 3, 32, 32)))
    features = model.get_active_learning_features()
    assert [tuple(feature.shape) for feature in features] == [
        (2, 64, 32, 32),
        (2, 128, 16, 16),
        (2, 256, 8, 8),
        (2, 512, 4, 4),
    ]
    for i, feature in enumerate(features):
        flat = feature.double().flatten()
        statistics = [flat.mean().item(), flat.std(correction=0).item(), flat.abs().mean().item()]
        assert_close(statistics, RECORDED[f"taps/ResNet18/{i}/stats"])
        regular = flat[:: flat.numel() // 512][:512]
        assert_close(regular, RECORDED[f"taps/ResNet18/{i}/sub"])
    assert_close(model.get_discriminative_al_features(), RECORDED["taps/ResNet18/disc"])
    assert model.get_active_learning_feature_channel_counts() == [64, 128, 256, 512]
    assert model.get_discriminative_al_layer_shapes() == [[512]]


# Behavior of the networks


@pytest.mark.parametrize("name", SMALLEST_OF_EACH_FAMILY)
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    """Every trainable parameter gets a gradient, which DistributedDataParallel needs."""
    model = build_empty(name)
    model(image("gradient", (2, 3, 32, 32))).sum().backward()
    without = [k for k, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_efficientnet_drops_out_in_training_only() -> None:
    """Dropout changes scores in training only, and never the embedding."""
    model = build("EfficientNetB0")
    x = image("efficientnet", (4, 3, 32, 32))
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), model(x), rtol=0, atol=0)
        first, embedding = model.train()(x), model.get_discriminative_al_features()
        second = model(x)
    torch.testing.assert_close(model.get_discriminative_al_features(), embedding)
    assert not torch.allclose(first, second)
    unused = ["layers.0.conv1.weight", "layers.0.bn1.weight", "layers.0.bn1.bias"]
    assert [key for key, p in model.named_parameters() if not p.requires_grad] == unused
    assert not model.state_dict()["layers.0.bn1.num_batches_tracked"]


def test_features_are_of_the_latest_forward() -> None:
    """Each forward pass replaces the features; changes of a returned list have no effect."""
    model = build("LeNet")
    with pytest.raises(RuntimeError, match="no features are kept"):
        model.get_active_learning_features()
    with pytest.raises(RuntimeError, match="no embedding is kept"):
        model.get_discriminative_al_features()
    model(image("first", (2, 3, 32, 32)))
    first = model.get_active_learning_features()
    scores = model(image("second", (3, 3, 32, 32)))
    second = model.get_active_learning_features()
    assert [len(feature) for feature in first + second] == [2] * 4 + [3] * 4
    torch.testing.assert_close(model.classify(model.get_discriminative_al_features()), scores)
    assert all(feature.grad_fn is not None for feature in second)
    second.clear()
    assert len(model.get_active_learning_features()) == 4


def test_features_are_let_go_when_the_next_forward_starts() -> None:
    """Old features are freed when the next forward pass starts, and a failed one leaves none."""
    model = build("LeNet")
    model(image("first", (2, 3, 32, 32)))
    old = [weakref.ref(feature) for feature in model.get_active_learning_features()]
    alive: list[bool] = []
    model.conv1.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda *_: alive.append(any(ref() is not None for ref in old))
    )
    model(image("second", (2, 3, 32, 32)))
    assert alive == [False]
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model(image("larger", (2, 3, 64, 64)))
    with pytest.raises(RuntimeError, match="no features are kept"):
        model.get_active_learning_features()


def test_copies_and_files_leave_the_features_out() -> None:
    """After a forward pass in training a model can be copied, pickled and saved."""
    model = build("LeNet")
    x = image("copied", (2, 3, 32, 32))
    keys = list(model.state_dict())
    scores = model(x)
    assert list(model.state_dict()) == keys
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        with pytest.raises(RuntimeError, match="no features are kept"):
            other.get_active_learning_features()
        torch.testing.assert_close(other(x), scores)
        assert len(other.get_active_learning_features()) == 4
    assert len(model.get_active_learning_features()) == 4


class Summed(nn.Module):
    """A module that reads the features in its own forward pass, like a loss-prediction module."""

    def __init__(self, network: TappedClassifier) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (b, k), and the sum of the features' means (b,)."""
        scores = self.network(x)
        maps = self.network.get_active_learning_features()
        return scores, sum((f.mean((1, 2, 3)) for f in maps), start=torch.zeros(len(x)))


@pytest.mark.parametrize("name", ["LeNet", pytest.param("ResNet18", marks=pytest.mark.slow)])
def test_compiled_networks_remember_too(name: str) -> None:
    """torch.compile takes the whole network, and its features are fresh in every forward."""
    model = build(name)
    whole = Summed(copy.deepcopy(model))
    compiled: Any = torch.compile(whole.network, backend="eager", fullgraph=True)
    compiled_whole = torch.compile(whole, backend="eager", fullgraph=True)
    for text in ("first", "second"):
        x = image(text, (2, 3, 32, 32))
        expected = model.eval()(x)
        features = model.get_active_learning_features()
        whole.eval()
        torch.testing.assert_close(compiled(x), expected)
        torch.testing.assert_close(compiled.get_active_learning_features(), features)
        sums = torch.stack([f.mean((1, 2, 3)) for f in features]).sum(0)
        torch.testing.assert_close(compiled_whole(x), (expected, sums))


@pytest.mark.parametrize("name", ["ResNet18", "densenet_cifar", "ShuffleNetV2(0.5)", "LeNet"])
def test_channels_last_is_kept_and_changes_nothing(name: str) -> None:
    """With channels_last weights and images the scores are equal and the maps are channels_last."""
    model = build(name).eval()
    x = image("layout", (4, 3, 32, 32))
    with torch.no_grad():
        expected = model(x)
        model = model.to(memory_format=torch.channels_last)
        scores = model(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    for feature in model.get_active_learning_features():
        assert feature.is_contiguous(memory_format=torch.channels_last)


def test_larger_images_fit_where_pooling_is_global() -> None:
    """Networks with a global last pooling take images of other sizes than 32x32."""
    for name in ("VGG11", "ResNet18", "GoogLeNet", "MobileNet", "DLA"):
        assert build_meta(name)(torch.empty(2, 3, 64, 48, device="meta")).shape == (2, 10)


def test_upstreams_checkpoints_load(tmp_path: Path) -> None:
    """A file as upstream's training script writes it, from several GPUs, fills a network."""
    trained, fresh = build("LeNet"), build("LeNet")
    state = {f"module.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"net": state, "acc": 61.2, "epoch": 199}, tmp_path / "ckpt.pth")
    load_into(fresh, tmp_path / "ckpt.pth")
    torch.testing.assert_close(fresh.state_dict(), trained.state_dict(), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"ckpt\.pth does not fit VGG: 58 missing: features\.0"):
        load_into(build("VGG11"), tmp_path / "ckpt.pth")


def test_wrong_arguments_are_named() -> None:
    """An unknown configuration or number of classes raises ValueError with the permitted values."""
    with pytest.raises(ValueError, match=r"'VGG12'; it must be one of \['VGG11', 'VGG13'"):
        networks.VGG("VGG12")
    with pytest.raises(ValueError, match=r"3; it must be one of \[0\.5, 1, 1\.5, 2\]"):
        networks.ShuffleNetV2(3)
    with pytest.raises(ValueError, match="num_classes is 0; it must be 1 or more"):
        networks.ResNet18(num_classes=0)
