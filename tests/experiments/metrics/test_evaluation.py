"""Results by class: calibration, precision-recall curves, confusion, and the file that has them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from experiments.metrics.classification import CONFUSED_A_CELL, ClassificationMetrics
from experiments.metrics.detection import DetectionMetrics, precision_at
from experiments.metrics.evaluation import (
    RECALLS,
    Confused,
    Evaluation,
    calibration,
    most_confused,
)
from experiments.metrics.segmentation import SegmentationMetrics

NAMES = ("a", "b", "c")


def classified(*, parts: int = 1) -> Evaluation:
    """Counts of 200 random answers, by this many processes."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(200, 3) * 2, torch.randint(2, (200,))
    each = [ClassificationMetrics() for _ in range(parts)]
    for metrics, some, their in zip(
        each, outputs.tensor_split(parts), targets.tensor_split(parts), strict=True
    ):
        metrics.update(some, their)
    merged = ClassificationMetrics()
    merged.merge(each)
    return merged.evaluation(NAMES)


def test_calibration_of_known_answers() -> None:
    """Four answers of confidence 0.9 of which one is wrong are 15 points too confident; a
    confidence of exactly 1 falls into the last bin.
    """
    found = calibration(np.full(4, 0.9), np.array([True, True, True, False]))
    assert found.ece == pytest.approx(15)
    both = found + calibration(np.array([1.0]), np.array([True]))
    assert both.counts.sum() == 5
    assert both.counts[-1] == 1
    assert both.ece == pytest.approx(12)
    assert math.isnan(calibration(np.zeros(0), np.zeros(0, bool)).ece)


def test_ece_agrees_with_its_definition() -> None:
    """The sum over bins equals the weighted mean gap of the definition, computed bin by bin."""
    rng = np.random.default_rng(0)
    confidence = rng.random(500)
    right = rng.random(500) < confidence**2
    gaps = []
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            gaps.append(inside.mean() * abs(confidence[inside].mean() - right[inside].mean()))
    assert calibration(confidence, right).ece == pytest.approx(100 * sum(gaps))


def test_classes_of_a_classifier() -> None:
    """Rows of the confusion matrix count the true classes; accuracy by class is its diagonal; a
    class without a test image has none.
    """
    found = classified()
    assert found.confusion is not None
    assert found.confusion.sum(1).tolist() == found.counts.tolist()
    assert found.counts[2] == 0
    assert math.isnan(found.scores[2])
    assert found.scores[0] == pytest.approx(100 * found.confusion[0, 0] / found.counts[0])
    assert found.calibration.counts.sum() == 200


def test_images_behind_a_cell_are_its_most_confident_errors() -> None:
    """Each named image has the classes of its cell, and the most confident come first."""
    torch.manual_seed(0)
    outputs, targets = torch.randn(200, 3) * 2, torch.randint(2, (200,))
    found = classified()
    confidence, predicted = outputs.softmax(1).max(1)
    cells: dict[tuple[int, int], list[float]] = {}
    for each in found.confused:
        assert each.true != each.predicted
        assert (targets[each.image], predicted[each.image]) == (each.true, each.predicted)
        cells.setdefault((each.true, each.predicted), []).append(float(confidence[each.image]))
    assert len(cells) == 4  # the third class is never true
    for (true, answer), shown in cells.items():
        every = confidence[(targets == true) & (predicted == answer)].sort(descending=True).values
        assert shown == pytest.approx(every[:CONFUSED_A_CELL].tolist())


def test_processes_change_nothing() -> None:
    """Counts of three processes are those of one."""
    assert classified(parts=3).to_json() == classified().to_json()


def test_no_cell_has_all_of_the_images() -> None:
    """With room for three images each of two cells has one before the larger one has two."""
    confusion = np.array([[0, 9, 0], [1, 0, 0], [0, 0, 0]])
    images = {(0, 1): [5, 6, 7], (1, 0): [2], (1, 1): [3]}
    found = most_confused(confusion, images, limit=3)
    assert [(c.true, c.predicted, c.image) for c in found] == [(0, 1, 5), (0, 1, 6), (1, 0, 2)]


def test_curves_of_a_detector() -> None:
    """One of two objects found by the best detection, then a false one: precision is 1 up to a
    recall of a half and 0 beyond; a class without objects has no curve.
    """
    detections = torch.tensor(
        [[0.0, 0.0, 0.5, 0.5, 0.9, 0.0], [0.6, 0.6, 0.7, 0.7, 0.4, 0.0]]  # corners, score, label
    )
    truths = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0, 0], [0.8, 0.8, 1.0, 1.0, 0, 0]])
    metrics = DetectionMetrics(2, lambda outputs: outputs)
    metrics.update([detections], [truths])
    found = metrics.evaluation(("cell", "plate"))
    assert found.precision is not None
    assert found.precision[0][RECALLS <= 0.5].tolist() == [1.0] * 51
    assert not found.precision[0][RECALLS > 0.5].any()
    assert np.isnan(found.precision[1]).all()
    assert found.counts.tolist() == [2, 0]
    assert found.scores[0] == pytest.approx(50)
    assert found.calibration.counts.sum() == 2
    assert found.calibration.right.sum() == 1


def test_nothing_found_has_no_precision() -> None:
    """A class whose objects were all missed has a precision of 0 at every recall."""
    assert not precision_at(np.zeros(0, bool), 3).any()


def test_pixels_of_a_segmentation() -> None:
    """IoU, confusion and calibration of pixels leave out those of no class, and the image with the
    most confused pixels stands first.
    """
    probabilities = torch.full((2, 3, 1, 4), 0.05)
    probabilities[:, 0] = 0.9
    truths = torch.tensor([[[0, 0, 1, 255]], [[1, 1, 1, 2]]])
    metrics = SegmentationMetrics(NAMES)
    metrics.update((probabilities.log(), torch.empty(0)), truths)
    found = metrics.evaluation(NAMES)
    assert found.confusion is not None
    assert found.confusion.tolist() == [[2, 0, 0], [4, 0, 0], [1, 0, 0]]
    assert found.scores[0] == pytest.approx(100 * 2 / 7)
    assert found.calibration.counts.sum() == 7
    assert found.calibration.ece == pytest.approx(100 * (0.9 - 2 / 7))
    assert [(c.true, c.image) for c in found.confused] == [(1, 1), (1, 0), (2, 1)]


def test_the_file_keeps_everything() -> None:
    """Reading the text of an evaluation gives it back, NaN and names included."""
    found = classified().with_images(np.arange(200) + 7, [f"{k}.png" for k in range(207)])
    assert found.confused[0].name == f"{found.confused[0].image}.png"
    precision = np.array([[1.0] * 101, [math.nan] * 101, [0.5] * 101])
    found = replace(found, precision=precision)
    again = Evaluation.from_json(found.to_json())
    assert again.to_json() == found.to_json()
    assert again.confused[0] == found.confused[0]
    assert isinstance(again.confused[0], Confused)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"format": 2}', json.dumps({"format": 1, "class_names": ["a"]})],
)
def test_damaged_files_are_refused(text: str) -> None:
    """Text that is no evaluation raises ValueError and nothing else."""
    with pytest.raises(ValueError, match=r".+"):
        Evaluation.from_json(text)


CONFUSED: dict[str, Any] = {
    "true": 1,
    "predicted": 0,
    "image": 0,
    "name": "0.png",
    "file": "cycle_00/01.jpg",
}


@pytest.mark.parametrize(
    "damage",
    [
        {"confused": [{**CONFUSED, "true": 99}]},
        {"confused": [{**CONFUSED, "predicted": -1}]},
        {"confused": [{**CONFUSED, "true": "a"}]},
        {"confused": [{**CONFUSED, "file": 5}]},
        {"confusion": None},
        {"confusion": [[0, -1, 3]]},
        {"counts": [10**30, 1]},
        {"precision": [[1.0], [1.0]]},
        {"calibration": {"counts": [1.0], "confidence": [1.0], "right": [1.0]}},
    ],
)
def test_files_with_wrong_numbers_are_refused(damage: dict[str, Any]) -> None:
    """Text whose parts do not fit one another raises ValueError and nothing else."""
    bins = calibration(np.array([0.5]), np.array([True]))
    whole = Evaluation(("a", "b"), "AP", np.zeros(2), "objects", np.ones(2, np.int64), bins)
    content = json.loads(whole.to_json())
    content |= {"confusion": [[0, 0, 1], [1, 0, 1]], "confused": [CONFUSED]}
    assert Evaluation.from_json(json.dumps(content)).confused == (Confused(**CONFUSED),)
    damaged = {key: value for key, value in {**content, **damage}.items() if value is not None}
    with pytest.raises(ValueError, match=r".+"):
        Evaluation.from_json(json.dumps(damaged))


def test_deep_files_are_refused() -> None:
    """A file that is nested beyond the reader's depth raises ValueError."""
    with pytest.raises(ValueError, match="RecursionError"):
        Evaluation.from_json("[" * 100_000)
