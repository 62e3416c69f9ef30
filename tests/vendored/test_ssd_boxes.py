"""Priors, box functions, matching and suppression of vendored.ssd_pytorch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.vendored.ssd_cases import VARIANCES, light, numbers, on_meta, random_boxes
from vendored.ssd_pytorch import (
    COCO,
    VOC,
    PriorBox,
    SSDConfig,
    boxes,
    match,
    match_batch,
    pad_targets,
)

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
    """Any number of classes other than 21 has the smaller boxes of COCO."""
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
    """Decoding encoded boxes, and converting forms in both directions, gives the boxes again."""
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
    """The class and the index of the truth of each prior, by applying the rules one at a time."""
    overlap = boxes.jaccard(truths, boxes.point_form(priors)).tolist()
    owner = [max(range(len(truths)), key=lambda t: overlap[t][p]) for p in range(len(priors))]
    positive = [overlap[owner[p]][p] >= threshold for p in range(len(priors))]
    for truth in range(len(truths)):
        best = max(range(len(priors)), key=lambda p: overlap[truth][p])
        owner[best], positive[best] = truth, True
    classes = [int(labels[o]) + 1 if p else 0 for o, p in zip(owner, positive, strict=True)]
    return classes, owner


def test_batched_matching_is_the_loops() -> None:
    """A padded batch is matched like images in a loop, with shared priors and equal boxes too."""
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
    """With upstream's last three arguments the targets are written to the row of the image."""
    truths, labels = numbers("match/three/truths"), numbers("match/three/labels")
    priors = numbers("voc/priors")
    loc_t, conf_t = torch.zeros(2, 8732, 4), torch.zeros(2, 8732, dtype=torch.int64)
    loc, conf = match(0.5, truths, priors, VARIANCES, labels, loc_t, conf_t, 1)
    assert torch.equal(loc_t[1], loc)
    assert torch.equal(conf_t[1], conf)
    assert not conf_t[0].any()
    with pytest.raises(ValueError, match="given together"):
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
    """A loop keeps the same of many random boxes; equal scores count from the last to the first."""
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
    """Rows that are thousands apart have finite values, unlike with one common maximum."""
    logits = torch.tensor([[1000.0, 1000.0], [-1000.0, -1000.0]])
    expected = torch.tensor([[1000.0], [-1000.0]]) + math.log(2)
    torch.testing.assert_close(boxes.log_sum_exp(logits), expected)


def test_half_precision_boxes_are_computed_in_float32() -> None:
    """Box functions of bfloat16 and float16 input return the float32 results for these numbers."""
    a, b = numbers("box/a"), numbers("box/b")
    for dtype in (torch.bfloat16, torch.float16):
        small_a, small_b = a.to(dtype), b.to(dtype)
        expected = boxes.jaccard(small_a.float(), small_b.float())
        assert torch.equal(boxes.jaccard(small_a, small_b), expected)
        assert boxes.center_size(small_a).dtype == torch.float32
