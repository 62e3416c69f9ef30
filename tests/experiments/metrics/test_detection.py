import contextlib
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.metrics.detection import DetectionMetrics, average_precision
from experiments.metrics.matching import Found, box_overlaps, voc_matches

Image = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]
NUM_CLASSES = 5


def random_boxes(rng: np.random.Generator, num: int) -> NDArray[np.float64]:
    """Draw boxes inside the unit square."""
    low = rng.uniform(0, 0.7, (num, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.3, (num, 2))], 1)


def random_image(rng: np.random.Generator, *, difficult: bool) -> Image:
    """Draw truths, and detections that are shifted truths, doubles, or wrong."""
    num = int(rng.integers(0, 7))
    truths = np.column_stack(
        [
            random_boxes(rng, num),
            rng.integers(0, NUM_CLASSES, num),
            (rng.random(num) < 0.3) & difficult,
        ]
    )
    copies = truths[rng.integers(0, num, 2 * num)] if num else truths
    near = copies[:, :4] + rng.normal(0, 0.02, (len(copies), 4))
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.01)
    boxes = np.concatenate([near, random_boxes(rng, 3)])
    labels = np.concatenate([copies[:, 4], rng.integers(0, NUM_CLASSES, 3)]).astype(np.int64)
    wrong = rng.random(len(labels)) < 0.15
    labels[wrong] = rng.integers(0, NUM_CLASSES, int(wrong.sum()))
    return boxes, rng.random(len(labels)), labels, truths


def random_images(*, difficult: bool) -> list[Image]:
    """Draw a hundred random images."""
    rng = np.random.default_rng(0)
    return [random_image(rng, difficult=difficult) for _ in range(100)]


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "difficult"])
def images(request: pytest.FixtureRequest) -> list[Image]:
    """A hundred random images; in the second set some truths are difficult."""
    return random_images(difficult=request.param)


def measured(images: list[Image]) -> dict[str, float]:
    """Compute our own metrics."""
    metrics = DetectionMetrics(NUM_CLASSES, lambda outputs: outputs)
    for image in images:
        metrics.add(*image)
    return dict(metrics.compute())


def plain_voc_ap(images: list[Image], label: int, points: int | None) -> float:
    """VOC's rule as its development kit has it: one detection at a time, in order of score."""
    found = []
    seen = {}
    num_truths = 0
    for k, (boxes, scores, labels, truths) in enumerate(images):
        mine = truths[truths[:, 4] == label]
        seen[k] = (mine, np.zeros(len(mine), bool))
        num_truths += int((mine[:, 5] == 0).sum())
        found += [(-s, k, b) for b, s, c in zip(boxes, scores, labels, strict=True) if c == label]
    found.sort(key=lambda item: item[0])
    hits, misses = [], []
    for _, k, box in found:
        truths, taken = seen[k]
        overlaps = box_overlaps(box[None], truths[:, :4])[0]
        best = int(overlaps.argmax()) if len(truths) else -1
        if best >= 0 and overlaps[best] >= 0.5:
            if truths[best, 5]:
                continue
            hits.append(not taken[best])
            misses.append(bool(taken[best]))
            taken[best] = True
        else:
            hits.append(False)
            misses.append(True)
    right, wrong = np.cumsum(hits), np.cumsum(misses)
    recall, precision = right / num_truths, right / np.maximum(right + wrong, 1e-12)
    if points:
        grid = np.linspace(0, 1, points)
        return float(np.mean([precision[recall >= t].max(initial=0) for t in grid]))
    area = 0.0
    for k in range(len(recall)):
        area += (recall[k] - (recall[k - 1] if k else 0)) * precision[k:].max()
    return area


def test_voc_rule_against_one_detection_at_a_time(images: list[Image]) -> None:
    """Area and 11-point AP equal the plain loop's, with and without difficult objects."""
    ours = measured(images)
    for name, points in (("map50", None), ("map50_11", 11)):
        values = [plain_voc_ap(images, label, points) for label in range(NUM_CLASSES)]
        assert ours[name] == pytest.approx(100 * np.mean(values), abs=1e-9)
        assert 5 < ours[name] < 95


def test_coco_map_against_pycocotools() -> None:
    """COCO mAP equals pycocotools' where no truth is difficult (which it does not know)."""
    images = random_images(difficult=False)
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def corner(box: NDArray[Any]) -> list[float]:
        # Large enough that nothing depends on pycocotools' area ranges.
        x_min, y_min, x_max, y_max = (1000 * box).tolist()
        return [x_min, y_min, x_max - x_min, y_max - y_min]

    truths, found = [], []
    for k, (boxes, scores, labels, rows) in enumerate(images):
        for row in rows:
            box = corner(row[:4])
            truths.append({"id": len(truths) + 1, "image_id": k, "category_id": int(row[4]),
                           "bbox": box, "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        for box, score, label in zip(boxes, scores, labels, strict=True):
            found.append({"image_id": k, "category_id": int(label), "bbox": corner(box),
                          "score": float(score)})  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": k} for k in range(len(images))],
            "categories": [{"id": c, "name": str(c)} for c in range(NUM_CLASSES)],
            "annotations": truths,
        }
        truth.createIndex()
        run = cocoeval.COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert measured(images)["map"] == pytest.approx(100 * run.stats[0], abs=1e-6)


def test_known_values() -> None:
    """Two of three truths found, one false alarm between: the values by hand."""
    right = np.array([True, False, True])
    assert average_precision(right, num_truths=3) == pytest.approx((1 + 2 / 3) / 3)
    eleven = average_precision(right, num_truths=3, recalls=np.linspace(0, 1, 11))
    assert eleven == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert average_precision(np.zeros(0, bool), num_truths=2) == 0
    assert np.isnan(average_precision(np.zeros(0, bool), num_truths=0))


def test_doubles_and_difficult_objects() -> None:
    """The second detection of an object is an error; those of a difficult one count neither way."""
    found = Found(
        np.array([0.9, 0.8, 0.7, 0.6]),
        np.array([[0.9, 0.0], [0.7, 0.0], [0.0, 0.5], [0.0, 0.6]]),
        np.array([False, True]),
    )
    right, counts = voc_matches(found, 0.5)
    assert right.tolist() == [True, False, False, False]
    assert counts.tolist() == [True, True, False, False]


def test_classes_without_truths_are_left_out() -> None:
    """A class that the test set lacks is no part of the mean; one never detected counts as 0."""
    truths = np.array([[0, 0, 0.5, 0.5, 1, 0], [0.5, 0.5, 1, 1, 2, 0]])
    image = (truths[:1, :4], np.array([0.9]), np.array([1]), truths)
    assert measured([image])["map50"] == pytest.approx(50)
    nothing = DetectionMetrics(2, lambda outputs: outputs)
    assert all(np.isnan(value) for value in nothing.compute().values())


def test_parts_of_processes_merge(images: list[Image]) -> None:
    """Counts of two processes, pickled and merged, equal those of one."""
    parts = [DetectionMetrics(NUM_CLASSES, lambda outputs: outputs) for _ in range(2)]
    for k, image in enumerate(images):
        parts[k >= 50].add(*image)
    merged = DetectionMetrics(NUM_CLASSES, lambda outputs: outputs)
    merged.merge([pickle.loads(pickle.dumps(part)) for part in parts])
    assert merged.compute() == measured(images)


def test_update_takes_batches_of_detections(images: list[Image]) -> None:
    """Rows of corners, score and label count as the boxes that they are."""

    def rows(image: Image) -> Tensor:
        boxes, scores, labels, _ = image
        return torch.from_numpy(np.column_stack([boxes, scores, labels]))

    metrics = DetectionMetrics(NUM_CLASSES, lambda outputs: outputs)
    for k in range(0, len(images), 10):
        batch = images[k : k + 10]
        targets = [torch.from_numpy(truths).float() for *_, truths in batch]
        metrics.update([rows(image) for image in batch], targets)
    for name, value in metrics.compute().items():
        assert value == pytest.approx(measured(images)[name], abs=0.02)
