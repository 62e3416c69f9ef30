from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from experiments.metrics.segmentation import SegmentationMetrics

RECORDED = Path(__file__).parents[2] / "vendored" / "fixtures" / "drn.npz"


def names(num_classes: int) -> list[str]:
    """c0, c1, ..."""
    return [f"c{label}" for label in range(num_classes)]


def random_masks(
    shape: tuple[int, int, int], num_classes: int, *, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Predictions that are right in about half of the pixels, and targets with ignored ones."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, num_classes, shape)
    predicted = np.where(rng.random(shape) < 0.5, target, rng.integers(0, num_classes, shape))
    target[rng.random(shape) < 0.1] = 255
    return torch.from_numpy(predicted), torch.from_numpy(target.astype(np.uint8))


def counted(predicted: Tensor, target: Tensor, num_classes: int) -> SegmentationMetrics:
    """Metrics of one batch."""
    metrics = SegmentationMetrics(names(num_classes))
    metrics.count(predicted, target)
    return metrics


@pytest.mark.parametrize("num_classes", [2, 5, 19])
def test_it_equals_torchmetrics(num_classes: int) -> None:
    """Mean and per-class IoU and pixel accuracy are those of an independent implementation."""
    predicted, target = random_masks((3, 40, 50), num_classes)
    found = counted(predicted, target, num_classes).compute()
    arguments = {"num_classes": num_classes, "ignore_index": 255}
    target = target.long()
    each = MulticlassJaccardIndex(**arguments, average="none")(predicted, target)
    for label in range(num_classes):
        assert found[f"iou_c{label}"] == pytest.approx(100 * each[label].item(), abs=1e-4)
    assert found["miou"] == pytest.approx(100 * each.mean().item(), abs=1e-4)
    accuracy = MulticlassAccuracy(**arguments, average="micro")(predicted, target)
    assert found["pixel_accuracy"] == pytest.approx(100 * accuracy.item(), abs=1e-4)


def test_it_equals_upstreams_recorded_numbers() -> None:
    """Confusion matrix, IoU per class and mean are those that fyu/drn computed for these masks."""
    with np.load(RECORDED) as recorded:
        label, predicted = recorded["miou/label"], recorded["miou/pred"]
        hist, iou, mean = recorded["miou/hist"], recorded["miou/iu"], recorded["miou/mean"]
    metrics = counted(torch.from_numpy(predicted), torch.from_numpy(label), 19)
    assert np.array_equal(metrics.confusion, hist)
    found = metrics.compute()
    for k in range(19):
        if math.isnan(iou[k]):
            assert f"iou_c{k}" not in found
        else:
            assert found[f"iou_c{k}"] == pytest.approx(100 * iou[k], rel=1e-12)
    assert found["miou"] == pytest.approx(100 * float(mean), rel=1e-12)


def test_an_absent_class_is_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    """A class without a pixel in the test set never counts, not even when it is predicted."""
    target = torch.tensor([[[0, 0, 1, 1]]], dtype=torch.uint8)
    right, wrong = torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([[[0, 2, 1, 1]]])
    with caplog.at_level(logging.INFO):
        found = counted(right, target, 4).compute()
    assert found == {"miou": 100.0, "pixel_accuracy": 100.0, "iou_c0": 100.0, "iou_c1": 100.0}
    assert "no pixel of the test set is c2, c3" in caplog.text
    other = counted(wrong, target, 4).compute()
    assert other.keys() == found.keys()  # whatever the model predicts
    assert other["miou"] == 75.0


def test_it_is_one_matrix_not_a_mean_over_batches() -> None:
    """Counts of all images are added up before anything is divided: no running mean of IoU."""
    parts = [random_masks((1, 12, 12), 4, seed=seed) for seed in range(5)]
    together = SegmentationMetrics(names(4))
    for predicted, target in parts:
        together.count(predicted, target)
    whole = [torch.cat([part[i] for part in parts]) for i in (0, 1)]
    expected = counted(whole[0], whole[1], 4).compute()
    assert together.compute() == expected
    running = np.mean([counted(*part, 4).compute()["miou"] for part in parts])
    assert abs(running - expected["miou"]) > 0.01


def test_the_counts_of_processes_are_merged() -> None:
    """Counts of several processes add up to those of one."""
    parts = [random_masks((2, 9, 9), 3, seed=seed) for seed in range(3)]
    merged = SegmentationMetrics(names(3))
    merged.merge([counted(*part, 3) for part in parts])
    one = SegmentationMetrics(names(3))
    for part in parts:
        one.count(*part)
    assert np.array_equal(merged.confusion, one.confusion)
    assert merged.confusion.sum() == sum(int((target != 255).sum()) for _, target in parts)


def test_the_most_probable_class_is_counted() -> None:
    """`update` takes a model's outputs: log-probabilities and whatever comes with them."""
    predicted, target = random_masks((2, 8, 8), 3)
    log_probs = torch.nn.functional.one_hot(predicted, 3).permute(0, 3, 1, 2).float()
    metrics = SegmentationMetrics(names(3))
    metrics.update((log_probs, torch.empty(0)), target)
    assert np.array_equal(metrics.confusion, counted(predicted, target, 3).confusion)


def test_class_names_become_column_names() -> None:
    """A name of two words makes one word of a column."""
    metrics = SegmentationMetrics(["traffic light", "road"])
    metrics.count(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.uint8))
    assert "iou_traffic_light" in metrics.compute()


def test_nothing_counted_is_no_number() -> None:
    """Without a labeled pixel there is no accuracy, rather than one of zero."""
    found = SegmentationMetrics(names(3)).compute()
    assert math.isnan(found["miou"])
    assert math.isnan(found["pixel_accuracy"])
