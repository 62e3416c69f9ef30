"""vendored.drn against numbers, keys and shapes recorded from fyu/drn @ d75db2e.

drn.npz holds outputs for weights and images that recorded.py draws again; drn_keys.json.gz holds
keys, shapes and types of every network, and the channels that the superannotate fork really taps.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.vendored.drn_nets import FACTS, NARROW, RECORDED, fill_seg, narrow, signature, tiny
from tests.vendored.recorded import assert_close, fill_, image
from vendored import drn
from vendored.drn import DRN, DRNA, DRNSeg
from vendored.drn.blocks import BasicBlock, Bottleneck

# Parity with the recorded numbers


@pytest.mark.parametrize("name", ["drn_c_26", "drn_d_22", "drn_d_54"])
def test_classification_scores_are_upstreams(name: str) -> None:
    """A classification network of each family and block puts out upstream's class scores."""
    with torch.device("meta"):
        model = getattr(drn, name)()
    model = model.to_empty(device="cpu").eval()
    fill_(model, float(RECORDED[f"cls/{name}/gain"]))
    with torch.no_grad():
        scores = model(image(f"drn:{name}", (1, 3, 224, 224)))
    assert_close(scores, RECORDED[f"cls/{name}/out"], 1e-4)


@pytest.mark.parametrize("kind", ["deconv", "torchup"])
def test_segmentation_is_upstreams(kind: str) -> None:
    """Scores, log-probabilities and ten tapped tensors are upstream's, with both upsamplings."""
    model = DRNSeg("drn_d_22", 19, use_torch_up=kind == "torchup").eval()
    fill_seg(model, float(RECORDED["seg/drn_d_22/gain"]))
    with torch.no_grad():
        log_probs, scores = model(image("seg:drn_d_22", (1, 3, 128, 256)))
    assert_close(scores, RECORDED[f"seg/drn_d_22/{kind}/seg"], 1e-4)
    assert_close(log_probs[:, :, ::4, ::4], RECORDED[f"seg/drn_d_22/{kind}/logp_sub"], 1e-4)
    assert_close(log_probs[:, :, :9, :9], RECORDED[f"seg/drn_d_22/{kind}/logp_corner"], 1e-4)
    if kind == "torchup":
        return
    features = model.get_active_learning_features()
    assert len(features) == 10
    for index, feature in enumerate(features):
        flat = feature.flatten().double()
        stats = torch.stack([flat.mean(), flat.std(unbiased=False), flat.abs().mean()])
        assert_close(stats, RECORDED[f"seg/taps/{index}/stats"], 1e-4)
        regular = flat[:: flat.numel() // 512][:512]
        assert_close(regular, RECORDED[f"seg/taps/{index}/sub"], 1e-4)


def test_training_pass_is_upstreams() -> None:
    """In train mode outputs, loss per image and updated batch-norm statistics are upstream's."""
    model = DRNSeg("drn_d_22", 19).train()
    fill_seg(model, float(RECORDED["seg/drn_d_22/gain"]))
    log_probs, _ = model(image("segtrain", (4, 3, 64, 64)))
    target = torch.from_numpy(RECORDED["segtrain/target"].astype(np.int64))
    loss = functional.nll_loss(log_probs, target, ignore_index=255, reduction="none").mean((1, 2))
    assert_close(log_probs[:, :, ::4, ::4], RECORDED["segtrain/logp_sub"], 1e-4)
    assert_close(loss, RECORDED["segtrain/per_image_nll"], 1e-4)
    statistics = [
        [float(value.double().mean()), float(value.double().square().mean().sqrt())]
        for key, value in model.state_dict().items()
        if "running_" in key
    ]
    assert_close(torch.tensor(statistics), RECORDED["segtrain/bn_stats"], 1e-4)


def test_up_convolution_is_fixed_and_bilinear() -> None:
    """The up-convolution has upstream's weights and enlarges a constant map to that constant."""
    model = tiny()
    assert isinstance(model.up, nn.ConvTranspose2d)
    assert not model.up.weight.requires_grad
    np.testing.assert_array_equal(model.up.weight[:2].numpy(), RECORDED["seg/drn_d_22/up_weight"])
    inner = model.up(torch.full((1, 3, 4, 4), 2.5))[:, :, 4:-4, 4:-4]
    torch.testing.assert_close(inner, torch.full((1, 3, 24, 24), 2.5))


# Names, shapes, parameters


@pytest.mark.parametrize("name", sorted(FACTS["models"]))
def test_classification_keys_are_upstreams(name: str) -> None:
    """Each of the twelve networks has upstream's children, keys, shapes, types and order."""
    facts = FACTS["models"][name]
    with torch.device("meta"):
        model = getattr(drn, name)()
    assert signature(model) == facts["state_dict"]
    assert [child for child, _ in model.named_children()] == facts["children"]
    assert model.out_dim == facts["out_dim"]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]


@pytest.mark.parametrize("case", sorted(FACTS["drnseg_models"]))
def test_segmentation_keys_and_trained_parameters_are_upstreams(case: str) -> None:
    """DRNSeg has upstream's keys, and optim_parameters yields base, then seg, never up."""
    facts = FACTS["drnseg_models"][case]
    with torch.device("meta"):
        model = DRNSeg(*facts["args"], **facts["kwargs"])
    assert signature(model) == facts["state_dict"]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    trained = [names[id(parameter)] for parameter in model.optim_parameters()]
    assert trained == [name for name, _ in model.named_parameters() if name != "up.weight"]
    assert len(trained) == facts["optim_parameters"]["count"]
    assert trained[:2] == facts["optim_parameters"]["first"]
    assert trained[-2:] == facts["optim_parameters"]["last"]
    requiring = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert requiring == facts["trainable"]
    assert requiring == facts["optim_parameters"]["elements"]


@pytest.mark.parametrize("add_dropout", [False, True])
@pytest.mark.parametrize("name", drn.MODEL_NAMES)
def test_tap_counts_are_those_of_the_tensors(name: str, add_dropout: bool) -> None:
    """For every backbone the tapped tensors have the announced channels and the right sizes."""
    with torch.device("meta"):
        model = DRNSeg(name, 19, add_dropout=add_dropout).eval()
    with torch.no_grad():  # weights of any value will do
        model.to_empty(device="cpu")(torch.zeros(2, 3, 16, 24))
    counts = model.get_active_learning_feature_channel_counts()
    features = model.get_active_learning_features()
    assert [feature.shape[1] for feature in features] == counts
    if name in FACTS["tap_channels"]:
        assert counts == FACTS["tap_channels"][name]
    strides = (4, 8, 8, 8, 8, 1) if name == "drn_a_50" else (1, 2, 4, 8, 8, 8, 8, 8, 8, 1)
    assert [tuple(feature.shape[2:]) for feature in features] == [
        (16 // stride, 24 // stride) for stride in strides
    ]
    assert model.get_embedding().shape == (2, counts[-3])


def test_initialization_is_upstreams() -> None:
    """Convolutions start He-normal by fan out, batch norm at one and zero, the head's bias at 0."""
    torch.manual_seed(0)
    network = drn.drn_d_22()
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    for convolution in convolutions:
        fan_out = math.prod(convolution.kernel_size) * convolution.out_channels
        spread = math.sqrt(2 / fan_out)
        error = 5 * spread / math.sqrt(convolution.weight.numel())
        assert abs(convolution.weight.mean()) < error
        assert abs(convolution.weight.std() - spread) < error
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert bool((module.weight == 1).all())
            assert bool((module.bias == 0).all())
    assert network.fc.bias is not None
    assert 0 < network.fc.bias.abs().max() <= 1 / math.sqrt(512)
    head = DRNSeg("drn_d_tiny", 50).seg
    assert abs(head.weight.std() - math.sqrt(2 / 50)) < 0.02
    assert head.bias is not None
    assert bool((head.bias == 0).all())


# Options of the classification networks


@pytest.mark.parametrize("arch", ["C", "D"])
def test_class_map_and_middle_outputs(arch: str) -> None:
    """out_map returns the map whose average is the scores, out_middle the stage outputs."""
    model = narrow(arch).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        scores = model(images)
        model.out_map = model.out_middle = True
        class_map, middle = model(images)
    assert scores.shape == (2, 5)
    torch.testing.assert_close(class_map.mean((2, 3)), scores)
    assert [stage.shape[1] for stage in middle] == list(model.stage_channels) == list(NARROW)
    torch.testing.assert_close(model.fc(middle[-1]), class_map)


def test_outer_stages_of_c_have_no_residual_connection() -> None:
    """The unused projection updates its batch-norm statistics in training and has no gradient."""
    model = narrow("C", Bottleneck).train()
    block = model.get_submodule("layer7.0")
    projection = block.get_submodule("downsample")
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is None for parameter in projection.parameters())
    assert bool((projection.get_buffer("1.running_mean") != 0).all())
    for parameter in block.get_submodule("bn2").parameters():
        nn.init.zeros_(parameter)
    assert bool((block.eval()(torch.randn(1, 32, 8, 8)) == 0).all())


def test_first_block_of_a_dilated_stage_of_a_is_not_dilated() -> None:
    """DRN-A has dilations 1, 2, 2, ... in layer3 and 1, 4, 4 in layer4; C and D start dilated."""

    def dilations(model: nn.Module, stage: str) -> list[int]:
        blocks = model.get_submodule(stage).children()
        return [block.get_submodule("conv2").dilation[0] for block in blocks]  # type: ignore[union-attr,index]

    with torch.device("meta"):
        a, d = drn.drn_a_50(), drn.drn_d_54()
    assert dilations(a, "layer3") == [1, 2, 2, 2, 2, 2]
    assert dilations(a, "layer4") == [1, 4, 4]
    assert dilations(d, "layer5") == [2, 2, 2, 2, 2, 2]
    assert dilations(d, "layer6") == [4, 4, 4]


def test_wrong_arguments_are_refused() -> None:
    """Arguments out of range raise ValueError with the permitted values."""
    with pytest.raises(ValueError, match=r"'drn_d_23'.*drn_d_22"):
        DRNSeg("drn_d_23", 19)
    with pytest.raises(ValueError, match="classes must be positive, not 0"):
        DRNSeg("drn_d_tiny", 0)
    with pytest.raises(ValueError, match="not both"):
        DRNSeg("drn_d_tiny", 3, {}, pretrained=True)
    with pytest.raises(ValueError, match="arch must be 'C' or 'D', not 'A'"):
        narrow("A")
    with pytest.raises(ValueError, match="channels must be eight positive numbers"):
        drn.drn_d_tiny(channels=(8, 16))
    with pytest.raises(ValueError, match="num_classes and pool_size must be positive"):
        drn.drn_d_tiny(num_classes=0)
    with pytest.raises(ValueError, match="layers must be four positive numbers"):
        DRNA(Bottleneck, (3, 4, 6))


def test_arguments_have_upstreams_places() -> None:
    """Positional arguments mean the same as upstream."""
    network = DRN(BasicBlock, [1] * 8, 5, NARROW, True, True, 4, "C").eval()
    class_map, stages = network(torch.zeros(1, 3, 32, 32))
    assert class_map.shape == (1, 5, 4, 4)
    assert [stage.shape[1] for stage in stages] == list(NARROW)
    assert DRNA(Bottleneck, [1, 1, 1, 1], 5).fc.out_features == 5
    assert isinstance(DRNSeg("drn_d_tiny", 3, None, False, True).up, nn.UpsamplingBilinear2d)
