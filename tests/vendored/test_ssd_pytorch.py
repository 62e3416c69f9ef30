"""vendored.ssd_pytorch against numbers, keys and shapes recorded from amdegroot/ssd.pytorch.

ssd.npz holds outputs for weights and inputs that recorded.py draws again; ssd_pytorch_keys.json
holds keys and shapes of the networks, and the channels that the superannotate fork taps.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.vendored import recorded
from tests.vendored.recorded import assert_close, fill_, filled, image
from vendored.ssd_pytorch import (
    COCO,
    SSD,
    VOC,
    Detect,
    L2Norm,
    LightSSD,
    MultiBoxLoss,
    PriorBox,
    SSDConfig,
    boxes,
    build_ssd,
    match,
    match_batch,
    pad_targets,
    trunk_from_torchvision,
    vgg_trunk,
)

FIXTURES = Path(__file__).parent / "fixtures"
RECORDED = np.load(FIXTURES / "ssd.npz")
FACTS: dict[str, Any] = json.loads((FIXTURES / "ssd_pytorch_keys.json").read_text())
VARIANCES = (0.1, 0.2)
BOX_TOLERANCE = 1e-5


def numbers(key: str) -> Tensor:
    """A recorded array as a tensor."""
    return torch.from_numpy(RECORDED[key])


def array(name: str, shape: tuple[int, ...], lo: float, hi: float) -> Tensor:
    """A drawn input as a tensor."""
    return torch.from_numpy(recorded.array(name, shape, lo, hi))


def random_boxes(generator: torch.Generator, count: int) -> Tensor:
    """Corner boxes of all sizes within 0..1."""
    corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
    return corners.flatten(1)


def light(size: int = 64, num_classes: int = 4, **options: Any) -> LightSSD:
    """A small network with reproducible weights."""
    torch.manual_seed(0)
    return LightSSD(num_classes, size, **options)


def on_meta(num_classes: int) -> SSD:
    """A network of which only keys and shapes exist."""
    with torch.device("meta"):
        return build_ssd("train", 300, num_classes)


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
    """Detect gives upstream's rows, by default the best 200 of each image, which upstream means."""
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


# Priors and configurations


def priors_by_loops(config: SSDConfig) -> list[list[float]]:
    """The paper's default boxes, one after the other."""
    found = []
    for index, cells in enumerate(config.feature_maps):
        for row in range(cells):
            for column in range(cells):
                x = (column + 0.5) * config.steps[index] / config.image_size
                y = (row + 0.5) * config.steps[index] / config.image_size
                small = config.min_sizes[index] / config.image_size
                large = math.sqrt(small * config.max_sizes[index] / config.image_size)
                found += [[x, y, small, small], [x, y, large, large]]
                for ratio in config.aspect_ratios[index]:
                    root = math.sqrt(ratio)
                    found += [[x, y, small * root, small / root]]
                    found += [[x, y, small / root, small * root]]
    return found


@pytest.mark.parametrize("config", [VOC, COCO, light(96).config, light(90).config])
def test_priors_are_the_papers(config: SSDConfig) -> None:
    """Priors come in the order of rows, columns, squares and ratios, and are clipped at the end."""
    expected = torch.tensor(priors_by_loops(config))
    assert config.num_priors == len(expected)
    torch.testing.assert_close(PriorBox(config)(), expected.clamp(0, 1), rtol=0, atol=1e-7)


def test_coco_has_priors_of_its_own() -> None:
    """Any number of classes but 21 gets the smaller boxes of COCO."""
    assert on_meta(21).config == VOC
    assert on_meta(81).config == on_meta(201).config == COCO
    assert VOC.num_priors == COCO.num_priors == 8732


def test_upstreams_dictionary_describes_priors() -> None:
    """A configuration in upstream's form, and one without clipping, give the expected priors."""
    upstream = {
        "num_classes": 21,
        "lr_steps": [80000, 100000, 120000],
        "max_iter": 120000,
        "feature_maps": list(VOC.feature_maps),
        "min_dim": 300,
        "steps": list(VOC.steps),
        "min_sizes": list(VOC.min_sizes),
        "max_sizes": list(VOC.max_sizes),
        "aspect_ratios": [list(ratios) for ratios in VOC.aspect_ratios],
        "variance": [0.1, 0.2],
        "clip": True,
        "name": "VOC",
    }
    assert SSDConfig.from_upstream(upstream) == VOC
    assert torch.equal(PriorBox(upstream)(), PriorBox(VOC)())
    assert PriorBox({**upstream, "clip": False}).forward().max() > 1


@pytest.mark.parametrize(
    "change",
    [
        {"steps": (8.0,)},
        {"min_sizes": (10.0, 0.0)},
        {"variance": (0.1, -0.2)},
        {"image_size": 0},
        {"aspect_ratios": ((2.0,), (-1.0,))},
    ],
)
def test_impossible_configuration_is_refused(change: dict[str, Any]) -> None:
    """Lengths that differ and numbers that are not positive raise ValueError."""
    valid: dict[str, Any] = {
        "image_size": 32,
        "feature_maps": (4, 2),
        "steps": (8.0, 16.0),
        "min_sizes": (10.0, 20.0),
        "max_sizes": (20.0, 30.0),
        "aspect_ratios": ((2.0,), (2.0,)),
    }
    SSDConfig(**valid)
    with pytest.raises(ValueError, match=next(iter(change))):
        SSDConfig(**{**valid, **change})


# Boxes and matching


def test_coding_is_reversible() -> None:
    """Decoding encoded boxes, and changing the form there and back, gives the boxes again."""
    generator = torch.Generator().manual_seed(1)
    corners = random_boxes(generator, 8732)
    priors = numbers("voc/priors")
    decoded = boxes.decode(boxes.encode(corners, priors, VARIANCES), priors, VARIANCES)
    torch.testing.assert_close(decoded, corners, rtol=0, atol=1e-5)
    torch.testing.assert_close(boxes.point_form(boxes.center_size(corners)), corners)


def test_overlaps_are_those_of_counted_cells() -> None:
    """Boxes on a grid have the overlaps that counting grid cells gives."""
    generator = torch.Generator().manual_seed(2)
    corners = (random_boxes(generator, 30) * 16).round()
    corners[:, 2:] = torch.maximum(corners[:, 2:], corners[:, :2] + 1)
    cells = torch.zeros(30, 17, 17)
    for cover, (x0, y0, x1, y1) in zip(cells, corners.int().tolist(), strict=True):
        cover[y0:y1, x0:x1] = 1
    shared = torch.einsum("ayx,byx->ab", cells, cells)
    area = cells.sum(dim=(1, 2))
    torch.testing.assert_close(boxes.intersect(corners, corners), shared)
    expected = shared / (area[:, None] + area - shared)
    torch.testing.assert_close(boxes.jaccard(corners, corners), expected)


def match_by_loops(
    truths: Tensor, labels: Tensor, priors: Tensor, threshold: float
) -> tuple[list[int], list[int]]:
    """For each prior the class and the number of its truth, by the rules one at a time."""
    overlap = boxes.jaccard(truths, boxes.point_form(priors)).tolist()
    owner = [max(range(len(truths)), key=lambda t: overlap[t][p]) for p in range(len(priors))]
    positive = [overlap[owner[p]][p] >= threshold for p in range(len(priors))]
    for truth in range(len(truths)):
        best = max(range(len(priors)), key=lambda p: overlap[truth][p])
        owner[best], positive[best] = truth, True
    classes = [int(labels[o]) + 1 if p else 0 for o, p in zip(owner, positive, strict=True)]
    return classes, owner


def test_batched_matching_is_the_loops() -> None:
    """A padded batch is matched as loops over images do, shared priors and twins included."""
    generator = torch.Generator().manual_seed(3)
    priors = light().priors
    targets = []
    for count in (1, 9, 4, 0, 30, 6):
        corners = random_boxes(generator, count)
        if count == 6:  # the same box three times: the best prior goes to the last
            corners[2] = corners[5] = corners[0].clone()
        labels = torch.randint(0, 20, (count, 1), generator=generator)
        targets.append(torch.cat((corners, labels.float()), dim=1))
    for threshold in (0.2, 0.5, 0.9):
        loc, conf = match_batch(
            pad_targets(targets), priors, threshold=threshold, variances=VARIANCES
        )
        for index, target in enumerate(targets):
            if len(target) == 0:
                assert not conf[index].any()
                assert not loc[index].any()
                continue
            truths, labels = target[:, :4], target[:, 4]
            classes, owner = match_by_loops(truths, labels, priors, threshold)
            assert conf[index].tolist() == classes
            expected = boxes.encode(truths[owner], priors, VARIANCES)
            torch.testing.assert_close(loc[index], expected)


def test_match_fills_upstreams_buffers() -> None:
    """With upstream's last three arguments the targets are written into the row of the image."""
    truths, labels = numbers("match/three/truths"), numbers("match/three/labels")
    priors = numbers("voc/priors")
    loc_t, conf_t = torch.zeros(2, 8732, 4), torch.zeros(2, 8732, dtype=torch.int64)
    loc, conf = match(0.5, truths, priors, VARIANCES, labels, loc_t, conf_t, 1)
    assert torch.equal(loc_t[1], loc)
    assert torch.equal(conf_t[1], conf)
    assert not conf_t[0].any()
    with pytest.raises(ValueError, match="belong together"):
        match(0.5, truths, priors, VARIANCES, labels, loc_t)
    with pytest.raises(ValueError, match="one label for each box"):
        match(0.5, truths, priors, VARIANCES, labels[:1])


def test_match_of_nothing_is_background() -> None:
    """An image without objects has no positive prior and finite targets."""
    priors = numbers("voc/priors")
    loc, conf = match(0.5, torch.zeros(0, 4), priors, VARIANCES, torch.zeros(0))
    assert not conf.any()
    assert not loc.any()


def test_suppression_is_greedy() -> None:
    """Of many random boxes a loop keeps the same, equal scores from the last to the first."""
    generator = torch.Generator().manual_seed(4)
    corners = random_boxes(generator, 150)
    scores = torch.randint(0, 30, (150,), generator=generator) / 30
    order = sorted(range(150), key=lambda i: (-float(scores[i]), -i))[:100]
    overlap = boxes.jaccard(corners, corners)
    expected: list[int] = []
    for index in order:
        if all(overlap[index, other] <= 0.4 for other in expected):
            expected.append(index)
    keep, count = boxes.nms(corners, scores, 0.4, 100)
    assert keep[:count].tolist() == expected


def test_suppression_of_nothing_and_of_nonsense() -> None:
    """No boxes give an empty pair; shapes that do not fit and top_k 0 raise ValueError."""
    keep, count = boxes.nms(torch.zeros(0, 4), torch.zeros(0))
    assert (keep.shape, count) == ((0,), 0)
    with pytest.raises(ValueError, match="boxes"):
        boxes.nms(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="top_k"):
        boxes.nms(torch.zeros(3, 4), torch.zeros(3), 0.5, 0)


def test_log_sum_exp_survives_distant_rows() -> None:
    """Rows thousands apart keep their own value, where one common maximum would give -inf."""
    logits = torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]])
    expected = torch.tensor([[1000.0], [-1000.0]]) + math.log(2)
    torch.testing.assert_close(boxes.log_sum_exp(logits), expected)


# Loss


def random_case(seed: int, counts: tuple[int, ...]) -> tuple[Any, list[Tensor]]:
    """Outputs of a network with four classes, and targets of so many objects each."""
    generator = torch.Generator().manual_seed(seed)
    priors = light().priors
    shape = (len(counts), len(priors))
    loc = torch.randn(*shape, 4, generator=generator)
    conf = torch.randn(*shape, 4, generator=generator)
    targets = [
        torch.cat(
            (
                random_boxes(generator, count),
                torch.randint(0, 3, (count, 1), generator=generator).float(),
            ),
            dim=1,
        )
        for count in counts
    ]
    return (loc, conf, priors), targets


def test_loss_is_that_of_loops() -> None:
    """Loops over images and priors give the losses, with 3 and 1.5 negatives for each positive."""
    (loc, conf, priors), targets = random_case(5, (3, 0, 12, 60))
    for neg_pos in (3, 1.5):
        losses = MultiBoxLoss(4, 0.3, neg_pos=neg_pos).per_image((loc, conf, priors), targets)
        for index, target in enumerate(targets):
            loc_t, conf_t = match(0.3, target[:, :4], priors, VARIANCES, target[:, 4])
            positive = conf_t > 0
            entropy = functional.cross_entropy(conf[index], conf_t, reduction="none")
            hardest = entropy[~positive].sort(descending=True).values
            num_negatives = min(math.ceil(neg_pos * int(positive.sum())), len(priors) - 1)
            expected_c = entropy[positive].sum() + hardest[:num_negatives].sum()
            expected_l = functional.smooth_l1_loss(
                loc[index][positive], loc_t[positive], reduction="sum"
            )
            torch.testing.assert_close(losses.confidence[index], expected_c)
            torch.testing.assert_close(losses.localization[index], expected_l)
            assert losses.num_positives[index] == positive.sum()


def test_images_of_a_batch_do_not_affect_each_other() -> None:
    """The losses of an image are the same alone and among images with more or no objects."""
    (loc, conf, priors), targets = random_case(6, (2, 0, 17))
    criterion = MultiBoxLoss(4)
    together = criterion((loc, conf, priors), targets)
    for index, target in enumerate(targets):
        one = slice(index, index + 1)
        alone = criterion((loc[one], conf[one], priors), [target])
        torch.testing.assert_close(together[0][one], alone[0])
        torch.testing.assert_close(together[1][one], alone[1])


@pytest.mark.parametrize("empty", [torch.zeros(0, 5), torch.zeros(0)])
def test_batch_without_objects_costs_nothing(empty: Tensor) -> None:
    """Without any object losses and gradients are 0, not NaN, divided by n as well."""
    (loc, conf, priors), _ = random_case(7, (0, 0))
    loc.requires_grad_()
    conf.requires_grad_()
    criterion = MultiBoxLoss(4)
    loss_l, loss_c, n = criterion((loc, conf, priors), [empty, empty])
    assert loss_l.tolist() == loss_c.tolist() == [0, 0]
    ((loss_l + loss_c).sum() / n).backward()
    assert loc.grad is not None
    assert conf.grad is not None
    assert not loc.grad.any()
    assert not conf.grad.any()
    assert criterion.per_image((loc, conf, priors), [empty, empty]).num_positives.tolist() == [0, 0]


def test_object_without_area_does_not_spoil_negatives() -> None:
    """A degenerate box makes its own prior's loss infinite, but no gradient of negatives NaN."""
    (loc, conf, priors), _ = random_case(8, (0,))
    loc.requires_grad_()
    target = torch.tensor([[0.5, 0.5, 0.5, 0.5, 1.0]])
    losses = MultiBoxLoss(4).per_image((loc, conf, priors), [target])
    torch.autograd.backward(losses.localization.sum())
    assert losses.num_positives.tolist() == [1]
    assert loc.grad is not None
    assert loc.grad.isfinite().all()
    assert loc.grad.any(dim=2).sum() == 1


def test_upstreams_argument_list_is_accepted() -> None:
    """The published call works and equals the short one; what upstream cannot do is refused."""
    outputs, targets = random_case(9, (4, 1))
    published = MultiBoxLoss(4, 0.5, True, 0, True, 3, 0.5, False, True)
    for got, expected in zip(
        published(outputs, targets), MultiBoxLoss(4)(outputs, targets), strict=True
    ):
        assert torch.equal(got, expected)
    for refused in (
        {"prior_for_matching": False},
        {"bkg_label": 1},
        {"neg_mining": False},
        {"encode_target": True},
        {"overlap_thresh": 1.5},
        {"neg_pos": -1},
    ):
        with pytest.raises(ValueError, match=next(iter(refused))):
            MultiBoxLoss(4, **refused)
    with pytest.raises(ValueError, match="background"):
        MultiBoxLoss(1)


def test_wrong_targets_are_refused() -> None:
    """Labels out of range and shapes that do not fit raise ValueError that says what is wanted."""
    outputs, targets = random_case(10, (2, 2))
    criterion = MultiBoxLoss(4)
    too_high, negative = targets[0].clone(), targets[0].clone()
    too_high[0, 4], negative[0, 4] = 3, -1
    for wrong in (too_high, negative):
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.2"):
            criterion(outputs, [targets[1], wrong])
    with pytest.raises(ValueError, match="2 images but targets of 1"):
        criterion(outputs, targets[:1])
    with pytest.raises(ValueError, match="of image 1"):
        criterion(outputs, [targets[0], targets[1][:, :4]])
    with pytest.raises(ValueError, match="logits"):
        MultiBoxLoss(5)(outputs, targets)


# Detections


def test_detections_are_those_of_loops() -> None:
    """Rows equal suppression class by class, with the limits per class and per image."""
    (loc, conf, priors), _ = random_case(11, (0, 0))
    probabilities = (2 * conf).softmax(dim=-1)
    detect = Detect(4, 0, 15, 0.2, 0.3, keep_top_k=20)
    got = detect(loc, probabilities, priors)
    assert got.shape == (2, 4, 15, 5)
    for index in range(2):
        corners = boxes.decode(loc[index], priors, VARIANCES)
        rows: list[tuple[float, int, list[float]]] = []
        for label in range(1, 4):
            likely = probabilities[index, :, label] > 0.2
            scores, likely_corners = probabilities[index, likely, label], corners[likely]
            keep, count = boxes.nms(likely_corners, scores, 0.3, 15)
            rows += [
                (float(scores[k]), label, likely_corners[k].tolist()) for k in keep[:count].tolist()
            ]
        assert len(rows) > 20
        expected = torch.zeros(4, 15, 5)
        filled_rows = [0] * 4
        for score, label, corner in sorted(rows, reverse=True)[:20]:
            expected[label, filled_rows[label]] = torch.tensor([score, *corner])
            filled_rows[label] += 1
        torch.testing.assert_close(got[index], expected)


def test_classes_do_not_suppress_each_other_beyond_the_image() -> None:
    """A box that reaches far to the left of the image is detected in each class that is likely."""
    prior = torch.tensor([[-4.5, -4.5, 11.0, 11.0]])
    conf = torch.tensor([[[0.1, 0.5, 0.4]]])
    got = Detect(3)(torch.zeros(1, 1, 4), conf, prior)
    torch.testing.assert_close(got[0, 1, 0], torch.tensor([0.5, -10.0, -10.0, 1.0, 1.0]))
    torch.testing.assert_close(got[0, 2, 0], torch.tensor([0.4, -10.0, -10.0, 1.0, 1.0]))


def test_nothing_likely_gives_zeros() -> None:
    """An image whose every box is background gives rows of zeros; the threshold itself is out."""
    priors = light().priors
    conf = torch.zeros(1, len(priors), 3)
    conf[..., 0], conf[..., 1] = 0.99, 0.01
    assert not Detect(3)(torch.zeros(1, len(priors), 4), conf, priors).any()


def test_background_is_never_detected() -> None:
    """The class that is called background has no detections, whichever it is."""
    (loc, conf, priors), _ = random_case(12, (0,))
    for label in (0, 2):
        got = Detect(4, label)(loc, conf.softmax(dim=-1), priors)
        assert [bool(rows.any()) for rows in got[0]] == [c != label for c in range(4)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"bkg_label": 4},
        {"top_k": 0},
        {"keep_top_k": 0},
        {"conf_thresh": -0.1},
        {"nms_thresh": 0.0},
    ],
)
def test_impossible_detect_is_refused(wrong: dict[str, Any]) -> None:
    """Settings out of range raise ValueError with their name."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Detect(4, **wrong)
    with pytest.raises(ValueError, match="probabilities"):
        Detect(4)(torch.zeros(1, 7, 4), torch.zeros(1, 7, 3), torch.zeros(7, 4))


# Networks


def test_test_phase_detects(net: SSD) -> None:
    """Phase "test" returns the detections in what phase "train" returns, and is no mode."""
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
    """Upstream's silent None is a ValueError, and so are images that the priors are not for."""
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


def torchvision_like() -> dict[str, Tensor]:
    """Weights of torchvision's VGG16's keys and shapes, the largest of them without memory."""
    generator = torch.Generator().manual_seed(13)
    state: dict[str, Tensor] = {}
    for key, value in vgg_trunk().state_dict().items():
        if int(key.split(".", maxsplit=1)[0]) < 31:
            state[f"features.{key}"] = torch.randn(value.shape, generator=generator)
    state["classifier.0.weight"] = torch.randn(4096, 1, generator=generator).expand(-1, 25088)
    state["classifier.3.weight"] = torch.randn(1, 4096, generator=generator).expand(4096, -1)
    for layer, width in (("0", 4096), ("3", 4096), ("6", 1000)):
        state[f"classifier.{layer}.bias"] = torch.randn(width, generator=generator)
    return state


def test_trunk_takes_torchvisions_weights() -> None:
    """Every entry of the trunk is filled, fc6 and fc7 from every fourth channel."""
    state = torchvision_like()
    got = trunk_from_torchvision(state, pixel_input=False)
    vgg_trunk().load_state_dict(got)
    assert all(torch.equal(got[f"{i}.weight"], state[f"features.{i}.weight"]) for i in (0, 28))
    rows = state["classifier.0.weight"][::4, 0]
    assert torch.equal(got["31.weight"], rows[:, None, None, None].expand(1024, 512, 3, 3))
    assert torch.equal(got["31.bias"], state["classifier.0.bias"][::4])
    columns = state["classifier.3.weight"][0, ::4]
    assert torch.equal(got["33.weight"], columns[:, None, None].expand(1024, 1024, 1, 1))
    assert torch.equal(got["33.bias"], state["classifier.3.bias"][::4])
    # fc6's inputs are numbered channel, row, column: 7 x 7 positions to rows and columns 0, 3, 6.
    positions = torch.arange(25088.0).expand(4096, -1)
    moved = trunk_from_torchvision({**state, "classifier.0.weight": positions})["31.weight"]
    assert moved[0, 0].tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    assert moved[1023, 511, 2, 1] == 25088 - 4


def test_trunk_sees_torchvisions_normalization_in_pixels() -> None:
    """The rescaled first convolution of SSD's input is torchvision's of its own, off the border."""
    state = torchvision_like()
    pixels = torch.randint(0, 256, (1, 3, 12, 12), generator=torch.Generator().manual_seed(14))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
    shifted = pixels - torch.tensor([123.0, 117.0, 104.0])[:, None, None]
    got = trunk_from_torchvision(state)
    torch.testing.assert_close(
        functional.conv2d(shifted, got["0.weight"], got["0.bias"]),
        functional.conv2d(normalized, state["features.0.weight"], state["features.0.bias"]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_other_networks_weights_are_refused() -> None:
    """A state_dict that is not VGG16's raises ValueError with the key."""
    state = torchvision_like()
    with pytest.raises(ValueError, match=r"classifier\.3\.weight is missing"):
        trunk_from_torchvision({k: v for k, v in state.items() if k != "classifier.3.weight"})
    with pytest.raises(ValueError, match=r"features\.0\.weight must be"):
        trunk_from_torchvision({**state, "features.0.weight": torch.zeros(64, 1, 3, 3)})


def test_l2norm_has_a_gradient_at_zero() -> None:
    """Positions where every channel is 0 give 0, and a finite gradient."""
    x = torch.zeros(1, 4, 2, 2)
    x[..., 0] = 1
    x.requires_grad_()
    out = L2Norm(4, 20)(x)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    torch.testing.assert_close(out[0, :, 0, 0], torch.full((4,), 10.0))
    assert not out[..., 1].any()


# Taps


def test_features_are_of_the_latest_pass() -> None:
    """Each pass replaces the features, which are then freed; before the first there are none."""
    model = light()
    with pytest.raises(RuntimeError, match="no features yet"):
        model.get_active_learning_features()
    model(torch.zeros(2, 3, 64, 64))
    first = weakref.ref(model.get_active_learning_features()[0])
    model(torch.zeros(3, 3, 64, 64))
    assert first() is None
    features = model.get_active_learning_features()
    counts = model.get_active_learning_feature_channel_counts()
    assert [tuple(feature.shape[:2]) for feature in features] == [(3, count) for count in counts]
    assert model.get_embedding().shape == (3, 128)
    features.clear()
    assert len(model.get_active_learning_features()) == 4


def test_features_are_no_part_of_copies() -> None:
    """Copies and pickles after a pass work, compute the same, and have no features; keys stay."""
    model = light().eval()
    keys = list(model.state_dict())
    images = torch.randn(2, 3, 64, 64)
    outputs = model(images)
    assert list(model.state_dict()) == keys
    assert "priors" not in keys
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with pytest.raises(RuntimeError, match="no features yet"):
            twin.get_embedding()
        for got, expected in zip(twin(images), outputs, strict=True):
            assert torch.equal(got, expected)
    assert len(model.get_active_learning_features()) == 4


def test_features_carry_gradients() -> None:
    """A loss on the features and the embedding trains the trunk."""
    model = light()
    model(torch.randn(2, 3, 64, 64))
    deep = model.get_active_learning_features()[-1]
    torch.autograd.backward(deep.sum() + model.get_embedding().sum())
    assert next(model.parameters()).grad is not None


# LightSSD, precision


@pytest.mark.parametrize("size", [64, 90, 96, 128, 160])
def test_light_outputs_fit_its_priors(size: int) -> None:
    """Any size gives one row of offsets and logits for each prior, whose centres are inside."""
    model = light(size, in_channels=1).eval()
    with torch.no_grad():
        loc, conf, priors = model(torch.zeros(1, 1, size, size))
    assert loc.shape == (1, model.config.num_priors, 4)
    assert conf.shape == (1, model.config.num_priors, 4)
    assert priors.shape == (model.config.num_priors, 4)
    assert 0 < priors[:, :2].min() < priors[:, :2].max() < 1


def scene(generator: torch.Generator, size: int) -> tuple[Tensor, Tensor]:
    """A noisy image with one bright filled or hollow square, and its target."""
    side = int(torch.randint(size // 5, size // 2, (), generator=generator))
    x, y = torch.randint(0, size - side, (2,), generator=generator).tolist()
    label = int(torch.randint(0, 2, (), generator=generator))
    picture = 0.3 * torch.randn(3, size, size, generator=generator)
    picture[:, y : y + side, x : x + side] += 2
    if label == 1:
        inner = side // 4
        picture[:, y + inner : y + side - inner, x + inner : x + side - inner] -= 2
    target = torch.tensor([[x, y, x + side, y + side, label * size]]) / size
    return picture, target


def test_light_learns_from_scratch() -> None:
    """Fifty small steps halve the loss, and new scenes' squares are found where they are."""
    generator = torch.Generator().manual_seed(15)
    model, criterion = light(64, num_classes=3), MultiBoxLoss(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for _ in range(50):
        scenes = [scene(generator, 64) for _ in range(16)]
        loss_l, loss_c, n = criterion(
            model(torch.stack([picture for picture, _ in scenes])), [t for _, t in scenes]
        )
        loss = (loss_l + loss_c).sum() / n
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    scenes = [scene(generator, 64) for _ in range(32)]
    model.eval()
    with torch.no_grad():
        found = model.detections(model(torch.stack([picture for picture, _ in scenes])))
    best = found[:, 1:, 0].flatten(0, 1)  # of each class
    best = best.view(32, 2, 5)[torch.arange(32), best.view(32, 2, 5)[..., 0].argmax(dim=1), 1:]
    truths = torch.cat([target[:, :4] for _, target in scenes])
    assert boxes.jaccard(best, truths).diagonal().median() > 0.5


def test_bfloat16_autocast_costs_little_precision() -> None:
    """Under autocast losses are float32 and near float32's, and boxes are decoded in float32."""
    model, criterion = light().eval(), MultiBoxLoss(4)
    images = torch.randn(3, 3, 64, 64)
    _, targets = random_case(16, (2, 0, 5))
    expected = criterion(model(images), targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(images)
        loss_l, loss_c, n = criterion(outputs, targets)
        found = model.detections(outputs)
        embedding = model.get_embedding()
        normalized = L2Norm(64, 20)(model.get_active_learning_features()[0])
    assert outputs[0].dtype == normalized.dtype == torch.bfloat16
    assert loss_l.dtype == loss_c.dtype == found.dtype == embedding.dtype == torch.float32
    assert n == expected[2]
    torch.testing.assert_close(loss_l, expected[0], rtol=0.05, atol=0.05)
    torch.testing.assert_close(loss_c, expected[1], rtol=0.05, atol=0.05)
    (loss_l + loss_c).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_half_precision_boxes_are_computed_in_float32() -> None:
    """Box functions of bfloat16 and float16 input return float32, as for the same numbers."""
    a, b = numbers("box/a"), numbers("box/b")
    for dtype in (torch.bfloat16, torch.float16):
        small_a, small_b = a.to(dtype), b.to(dtype)
        expected = boxes.jaccard(small_a.float(), small_b.float())
        assert torch.equal(boxes.jaccard(small_a, small_b), expected)
        assert boxes.center_size(small_a).dtype == torch.float32
