"""vendored.ssd_pytorch against numbers, keys and shapes recorded from amdegroot/ssd.pytorch."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.vendored.recorded import assert_close, fill_, filled, image
from tests.vendored.ssd_cases import (
    BOX_TOLERANCE,
    FACTS,
    RECORDED,
    VARIANCES,
    array,
    light,
    numbers,
    on_meta,
)
from vendored.ssd_pytorch import (
    SSD,
    Detect,
    L2Norm,
    LightSSD,
    MultiBoxLoss,
    boxes,
    build_ssd,
    match,
)


@pytest.fixture(scope="module")
def net() -> SSD:
    """SSD300 for VOC with the recorded weights."""
    model = build_ssd("train", 300, 21)
    fill_(model, 2.0)
    return model


# Parity with the recorded numbers


def test_outputs_and_taps_are_upstreams(net: SSD) -> None:
    """Offsets, logits, priors and the six tapped tensors of SSD300 are upstream's."""
    with torch.no_grad():
        loc, conf, priors = net(image("ssd:voc", (1, 3, 300, 300)))
    assert_close(priors, RECORDED["voc/priors"], 1e-7)
    assert_close(loc, RECORDED["voc/loc"], 1e-4)
    assert_close(conf[0, ::7], RECORDED["voc/conf_sub"], 1e-4)
    features = net.get_active_learning_features()
    assert [list(feature.shape[1:]) for feature in features] == [
        [512, 38, 38],
        [1024, 19, 19],
        [512, 10, 10],
        [256, 5, 5],
        [256, 3, 3],
        [256, 1, 1],
    ]
    for index, feature in enumerate(features):
        flat = feature.double().flatten()
        stats = [flat.mean(), flat.std(unbiased=False), flat.abs().mean()]
        sub = RECORDED[f"voc/taps/{index}/sub"]
        spaced = flat[:: len(flat) // len(sub)][: len(sub)]
        assert_close(torch.stack(stats), RECORDED[f"voc/taps/{index}/stats"], 1e-4)
        assert_close(spaced, sub, 1e-4)
    torch.testing.assert_close(net.get_embedding(), features[1].mean((2, 3)))


def test_box_functions_are_upstreams() -> None:
    """Forms, overlaps, coding and log_sum_exp give upstream's numbers."""
    a, b, priors = numbers("box/a"), numbers("box/b"), numbers("box/priors40")
    centered = boxes.center_size(a)
    assert_close(centered, RECORDED["box/center_size_a"], BOX_TOLERANCE)
    assert_close(boxes.point_form(centered), RECORDED["box/point_form"], BOX_TOLERANCE)
    assert_close(boxes.intersect(a, b), RECORDED["box/intersect"], BOX_TOLERANCE)
    assert_close(boxes.jaccard(a, b), RECORDED["box/jaccard"], BOX_TOLERANCE)
    assert_close(boxes.encode(a, priors, VARIANCES), RECORDED["box/encode"], BOX_TOLERANCE)
    loc = array("decode", (40, 4), -1.5, 1.5)
    assert_close(boxes.decode(loc, priors, VARIANCES), RECORDED["box/decode"], BOX_TOLERANCE)
    logits = array("lse", (50, 21), -8, 8)
    assert_close(boxes.log_sum_exp(logits), RECORDED["box/log_sum_exp"], BOX_TOLERANCE)


@pytest.mark.parametrize("threshold", [0.5, 0.35])
@pytest.mark.parametrize("case", ["one", "three", "shared_prior"])
def test_matching_is_upstreams(case: str, threshold: float) -> None:
    """Classes of all priors are exactly upstream's, and their encoded boxes agree."""
    truths, labels = numbers(f"match/{case}/truths"), numbers(f"match/{case}/labels")
    loc, conf = match(threshold, truths, numbers("voc/priors"), VARIANCES, labels)
    key = f"match/{case}/{threshold}"
    assert np.array_equal(conf, RECORDED[f"{key}/conf"])
    assert_close(loc[conf > 0], RECORDED[f"{key}/loc_pos"], BOX_TOLERANCE)
    assert_close(loc[::37], RECORDED[f"{key}/loc_sub"], BOX_TOLERANCE)


@pytest.mark.parametrize("top_k", [200, 20])
@pytest.mark.parametrize("overlap", [0.2, 0.45, 0.5, 0.7])
@pytest.mark.parametrize("count", [1, 12, 120])
def test_suppression_is_upstreams(count: int, overlap: float, top_k: int) -> None:
    """The same boxes are kept in upstream's order, padded with zeros to the input's length."""
    keep, kept = boxes.nms(
        numbers(f"nms/{count}/boxes"), numbers(f"nms/{count}/scores"), overlap, top_k
    )
    assert keep[:kept].tolist() == RECORDED[f"nms/{count}/{overlap}/{top_k}"].tolist()
    assert keep.dtype == torch.int64
    assert keep[kept:].tolist() == [0] * (count - kept)


def test_l2norm_is_upstreams() -> None:
    """L2Norm agrees with upstream as constructed and with other weights."""
    x, layer = array("l2", (2, 16, 5, 7), -2, 2), L2Norm(16, 20)
    assert_close(layer(x), RECORDED["l2norm/default"], 1e-5)
    layer.load_state_dict({"weight": torch.from_numpy(filled("weight", (16,), 1.0))})
    assert_close(layer(x), RECORDED["l2norm/filled"], 1e-5)


@pytest.mark.parametrize(("case", "num_images"), [("b4", 4), ("b1", 1)])
def test_loss_is_upstreams(case: str, num_images: int) -> None:
    """Losses of each image, positives, gradients and mined priors are upstream's."""
    loc = array(f"mbl:loc:{case}", (num_images, 8732, 4), -2, 2).requires_grad_()
    conf = array(f"mbl:conf:{case}", (num_images, 8732, 21), -3, 3).requires_grad_()
    targets = [numbers(f"mbl/{case}/target{index}") for index in range(num_images)]
    loss_l, loss_c, n = MultiBoxLoss(21)((loc, conf, numbers("voc/priors")), targets)
    assert_close(loss_l, RECORDED[f"mbl/{case}/loss_l"], 1e-5)
    assert_close(loss_c, RECORDED[f"mbl/{case}/loss_c"], 1e-5)
    assert int(n) == RECORDED[f"mbl/{case}/N"]
    assert_close(loss_l.sum() / n, RECORDED[f"mbl/{case}/orig_l"], 1e-5)
    assert_close(loss_c.sum() / n, RECORDED[f"mbl/{case}/orig_c"], 1e-5)
    torch.autograd.backward((loss_l + loss_c).sum() / n)
    assert loc.grad is not None
    assert conf.grad is not None
    norms = [grad.flatten(1).norm(dim=1) for grad in (loc.grad, conf.grad)]
    assert_close(norms[0], RECORDED[f"mbl/{case}/grad_loc_norm"], 1e-4)
    assert_close(norms[1], RECORDED[f"mbl/{case}/grad_conf_norm"], 1e-4)
    rows = conf.grad.abs().sum(dim=2).count_nonzero(dim=1)
    assert rows.tolist() == RECORDED[f"mbl/{case}/conf_rows"].tolist()


def test_detections_are_upstreams() -> None:
    """Detect gives upstream's rows, by default only the best 200 of each image."""
    loc, conf = array("det:loc", (2, 400, 4), -1, 1), numbers("detect/conf")
    expected = RECORDED["detect/default"].copy()
    everything = Detect(21, 0, 200, 0.01, 0.45, keep_top_k=21 * 200)
    assert_close(everything(loc, conf, numbers("detect/priors")), expected, BOX_TOLERANCE)
    assert (expected[..., 0] > 0).sum() > 2 * 200
    last = np.sort(expected[..., 0].reshape(2, -1))[:, -200]
    expected[expected[..., 0] < last[:, None, None]] = 0
    got = Detect(21, 0, 200, 0.01, 0.45)(loc, conf, numbers("detect/priors"))
    assert_close(got, expected, BOX_TOLERANCE)
    assert (got[..., 0] > 0).sum(dim=(1, 2)).tolist() == [200, 200]


@pytest.mark.parametrize("name", ["SSD300_21", "SSD300_81", "SSD300_201"])
def test_state_dict_is_upstreams(name: str) -> None:
    """Keys, shapes, order and number of parameters are upstream's for any number of classes."""
    facts = FACTS["models"][name]
    model = on_meta(facts["args"][2])
    got = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    assert got == facts["state_dict"]
    assert sum(parameter.numel() for parameter in model.parameters()) == facts["parameters"]


def test_tapped_channels_are_the_forks() -> None:
    """The channels read from the heads are those that the superannotate fork declares."""
    assert on_meta(21).get_active_learning_feature_channel_counts() == FACTS["tapped_channels"]


# Networks


def test_test_phase_detects(net: SSD) -> None:
    """Phase "test" returns the detections of the outputs of phase "train", in either mode."""
    images = image("ssd:voc", (1, 3, 300, 300))
    tester = copy.copy(net)
    tester.phase = "test"
    with torch.no_grad():
        detected, outputs = tester(images), net(images)
    assert detected.shape == (1, 21, 200, 5)
    assert torch.equal(detected, net.detections(outputs))
    assert not detected[:, 0].any()
    assert 0 < (detected[..., 0] > 0).sum() <= 200


def test_unknown_phase_or_size_is_refused() -> None:
    """Unknown phases and sizes, and images of another size than the priors', raise ValueError."""
    with pytest.raises(ValueError, match="phase"):
        build_ssd("eval")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size must be 300"):
        build_ssd("train", 512)
    with pytest.raises(ValueError, match="background"):
        LightSSD(1)
    with pytest.raises(ValueError, match="at least 64"):
        LightSSD(4, 32)
    with pytest.raises(ValueError, match="in_channels"):
        LightSSD(4, in_channels=0)
    with pytest.raises(ValueError, match="images must be"):
        light()(torch.zeros(1, 3, 96, 96))


def test_checkpoints_load(net: SSD, tmp_path: Path) -> None:
    """A file saved from a wrapped network, and one of the trunk alone, fill new networks."""
    whole, trunk = tmp_path / "whole.pth", tmp_path / "trunk.pth"
    torch.save({f"module.{key}": value for key, value in net.state_dict().items()}, whole)
    torch.save(net.vgg.state_dict(), trunk)
    loaded = build_ssd("test")
    loaded.load_trunk_weights(trunk)
    for key, value in loaded.vgg.state_dict().items():
        assert torch.equal(value, net.vgg.state_dict()[key])
    loaded.load_weights(whole)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, net.state_dict()[key])
    with pytest.raises(ValueError, match="missing"):
        loaded.load_weights(trunk)


def test_heads_start_as_upstream_trains_them() -> None:
    """Extras and heads have Xavier-uniform weights and biases of 0."""
    torch.manual_seed(0)
    fresh = build_ssd("train")
    for layer in [*fresh.extras, *fresh.loc, *fresh.conf]:
        assert isinstance(layer, nn.Conv2d)
        assert layer.bias is not None
        weight, bias = layer.weight.detach(), layer.bias.detach()
        area = weight[0, 0].numel()
        bound = math.sqrt(6 / (area * (weight.shape[0] + weight.shape[1])))
        assert 0.97 * bound < float(weight.abs().max()) <= bound * (1 + 1e-6)
        assert not bias.any()
