"""PCK and PCKh against loops, and average precision by OKS against pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
import pickle

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from experiments.metrics.columns import column
from experiments.metrics.pose import PoseMetrics, average_precision, keypoint_similarity

NAMES = ("nose", "left hand", "right hand", "tail", "toe")
SIGMAS = (0.03, 0.07, 0.07, 0.1, 0.05)
NUM_IMAGES = 60

Arrays = tuple[NDArray[np.float64], NDArray[np.float64]]


@pytest.fixture(scope="module")
def images() -> Arrays:
    """Predicted joints (n, j, 3) and targets (n, j + 1, 3), some joints and heads unknown."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.1, 0.9, (NUM_IMAGES, len(NAMES), 2))
    spread = rng.uniform(0.002, 0.12, (NUM_IMAGES, 1, 1))
    found = true + spread * rng.standard_normal(true.shape)
    annotated = rng.random((NUM_IMAGES, len(NAMES))) < 0.8
    annotated[3] = False
    heads = np.where(rng.random(NUM_IMAGES) < 0.7, rng.uniform(0.05, 0.15, NUM_IMAGES), np.nan)
    boxes = rng.uniform(0.4, 0.9, NUM_IMAGES)
    measures = np.stack([heads, boxes, boxes**2 * rng.uniform(0.3, 0.9, NUM_IMAGES)], 1)
    targets = np.concatenate([true, annotated[..., None]], 2)
    heights = rng.uniform(0, 1.1, (NUM_IMAGES, len(NAMES), 1))
    return np.concatenate([found, heights], 2), np.concatenate([targets, measures[:, None]], 1)


def counted(images: Arrays, *, has_heads: bool = True) -> PoseMetrics:
    """Count images in batches of 7, given as tensors."""
    metrics = PoseMetrics(
        NAMES, lambda outputs: outputs, fraction=0.1, sigmas=SIGMAS, has_heads=has_heads
    )
    for i in range(0, len(images[0]), 7):
        metrics.update(*(torch.from_numpy(each[i : i + 7]) for each in images))
    return metrics


def test_pck_counts_annotated_joints(images: Arrays) -> None:
    """A joint is right within a tenth of the box, or half the head; unknown ones count nowhere."""
    right: dict[str, list[bool]] = {"pck": [], "pckh": [], **{f"pck_{n}": [] for n in NAMES}}
    for found, target in zip(*images, strict=True):
        head, box, _ = target[-1]
        for k, name in enumerate(NAMES):
            if not target[k, 2]:
                continue
            apart = math.dist(found[k, :2], target[k, :2])
            right["pck"].append(apart <= 0.1 * box)
            right[f"pck_{name}"].append(apart <= 0.1 * box)
            if not math.isnan(head):
                right["pckh"].append(apart <= 0.5 * head)
    measured = counted(images).compute()
    for name, each in right.items():
        assert measured[name.replace(" ", "_")] == pytest.approx(100 * np.mean(each))
    assert "pckh" not in counted(images, has_heads=False).compute()
    assert all(column(name).is_declared for name in measured)


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_that_of_pycocotools(images: Arrays, ties: bool) -> None:
    """AP and AP50 by OKS agree where each image has one figure and one detection."""
    found, targets = images
    if ties:
        found = found.copy()
        found[:, :, 2] = np.round(found[:, :, 2], 1)
        found[:, 1:, 2] = found[:, :1, 2]
    truth, results = [], []
    scores = found[:, :, 2].mean(1)
    for i, (one, target) in enumerate(zip(found, targets, strict=True)):
        x, y = target[:-1, 0], target[:-1, 1]
        truth.append(
            {
                "id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0,
                "area": target[-1, 2], "bbox": [x.min(), y.min(), np.ptp(x), np.ptp(y)],
                "num_keypoints": int(target[:-1, 2].sum()),
                "keypoints": np.column_stack([x, y, 2 * target[:-1, 2]]).ravel().tolist(),
            }
        )  # fmt: skip
        points = np.column_stack([one[:, :2], np.ones(len(one))]).ravel().tolist()
        results.append(
            {"image_id": i, "category_id": 1, "keypoints": points, "score": float(scores[i])}
        )
    annotated = [i for i in range(NUM_IMAGES) if targets[i, :-1, 2].any()]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(NUM_IMAGES)],
            "categories": [{"id": 1, "name": "figure"}],
            "annotations": truth,
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(results), "keypoints")
        judge.params.kpt_oks_sigmas = np.array(SIGMAS)
        judge.params.imgIds = annotated
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, 0, 0, 0]
    measured = counted((found, targets)).compute()
    assert measured["oks_ap"] == pytest.approx(100 * precision.mean(), abs=1e-9)
    assert measured["oks_ap50"] == pytest.approx(100 * precision[0].mean(), abs=1e-9)
    assert 5 < measured["oks_ap"] < 95


def test_similarity_of_a_perfect_figure_is_one() -> None:
    """At distance 0 it is 1, at one spread exp(-1/2) of COCO's scale, without joints unknown."""
    distances = np.array([[0.0, 0.0], [2 * 0.1 * 0.5, 0.0], [1.0, 1.0]])
    annotated = np.array([[True, True], [True, False], [False, False]])
    area, sigmas = np.full(3, 0.25), np.array([0.1, 0.2])
    found = keypoint_similarity(distances, annotated, area, sigmas)
    np.testing.assert_allclose(found[:2], [1.0, math.exp(-0.5)], rtol=1e-6)
    assert math.isnan(found[2])


def test_a_late_mistake_costs_less_than_an_early_one() -> None:
    """The order of the scores matters, and precision after the last hit counts as 0."""
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    early = average_precision(scores, np.array([False, True, True, True]))
    late = average_precision(scores, np.array([True, True, True, False]))
    assert late > early
    assert late == pytest.approx(76 / 101)  # precision 1 up to a recall of 3/4
    assert math.isnan(average_precision(np.empty(0), np.empty(0, bool)))


def test_evaluation_is_joint_by_joint(images: Arrays) -> None:
    """Scores and counts are by joint, and heights of peaks are compared with being right."""
    metrics = counted(images)
    found = metrics.evaluation(NAMES)
    measured = metrics.compute()
    assert (found.score, found.unit, found.class_names) == ("PCK", "joints", NAMES)
    for name, score in zip(NAMES, found.scores, strict=True):
        assert score == pytest.approx(measured[f"pck_{name.replace(' ', '_')}"])
    assert found.counts.tolist() == images[1][:, :-1, 2].sum(0).astype(int).tolist()
    assert found.calibration.counts.sum() == found.counts.sum()
    assert 100 * found.calibration.right.sum() / found.counts.sum() == pytest.approx(
        measured["pck"]
    )
    assert type(found).from_json(found.to_json()).scores.tolist() == pytest.approx(
        found.scores.tolist(), abs=1e-5
    )


def test_parts_of_a_test_set_add_up(images: Arrays) -> None:
    """Counts of processes merge to those of one, also after being sent from one to another."""
    parts = [counted(tuple(each[k::3] for each in images)) for k in range(3)]  # type: ignore[arg-type]
    merged = counted(tuple(each[:0] for each in images))  # type: ignore[arg-type]
    merged.merge([pickle.loads(pickle.dumps(part)) for part in parts])
    for name, value in counted(images).compute().items():
        assert merged.compute()[name] == pytest.approx(value)


def test_no_image_names_the_metrics() -> None:
    """Without an image there are the same metrics, unknown, so that a wrong name can be told."""
    none = PoseMetrics(NAMES, lambda o: o, fraction=0.1, sigmas=SIGMAS, has_heads=True)
    measured = none.compute()
    assert list(measured) == ["pck", "pckh", "oks_ap", "oks_ap50"]
    assert all(math.isnan(value) for value in measured.values())
