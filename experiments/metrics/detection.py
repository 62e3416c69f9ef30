"""Average precision of detections, by the rules of Pascal VOC and of COCO.

Sources: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010, section 4.2, and
its development kit (11-point until 2009, the area under the curve since); Lin et al., ECCV 2014,
and pycocotools 2.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.metrics.box_confusion import BoxConfusion
from experiments.metrics.declaration import percentage
from experiments.metrics.evaluation import RECALLS, Evaluation, calibration
from experiments.metrics.matching import (
    VOC_THRESHOLD,
    Found,
    box_overlaps,
    coco_matches,
    voc_matches,
)

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

COLUMNS = (
    percentage("map50", "mAP at an overlap of 0.5"),
    percentage("map50_11", "mAP at an overlap of 0.5, 11 points"),
    percentage("map", "mAP over overlaps from 0.5 to 0.95"),
    percentage("ap_<class>", "AP of <class>"),
)
"""Means over classes, which `DetectionMetrics` computes, and average precision of single classes,
as other programs write it."""

COCO_THRESHOLDS = np.linspace(0.5, 0.95, 10)
COCO_RECALLS = np.linspace(0, 1, 101)
COCO_MAX_DETECTIONS = 100
"""Detections of an image and class that pycocotools considers."""
LEAST_CONFIDENCE = 0.05
"""Detections with a smaller score, of which a detector has hundreds, do not count for its
calibration."""

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def average_precision(
    right: BoolArray, *, num_truths: int, recalls: FloatArray | None = None
) -> float:
    """Area under the curve of precision over recall, made non-increasing.

    Args:
        right: (m,), best detection first, of those that count.
        num_truths: Number of truths that count.
        recalls: The result is the mean of the precisions at these; None for the exact area.

    Returns:
        In 0..1; NaN if there is no truth.
    """
    if not num_truths:
        return float("nan")
    if recalls is not None:
        return float(precision_at(right, num_truths, recalls).mean())
    recall, best = _precision_recall(right, num_truths)
    steps = np.diff(recall, prepend=0.0)
    return float((steps * best).sum())


def precision_at(right: BoolArray, num_truths: int, recalls: FloatArray = RECALLS) -> FloatArray:
    """Return the highest precision at each recall or beyond, 0 where none is reached.

    Args:
        right: (m,), best detection first, of those that count.
        num_truths: Number of truths that count.
        recalls: (r,) in 0..1.

    Returns:
        (r,); NaN if there is no truth.
    """
    if not num_truths:
        return np.full(len(recalls), np.nan)
    recall, best = _precision_recall(right, num_truths)
    place = np.searchsorted(recall, recalls, side="left")
    reached: FloatArray = np.append(best, 0.0)[place]
    return reached


def _precision_recall(right: BoolArray, num_truths: int) -> tuple[FloatArray, FloatArray]:
    """Return recall after each detection, and the precision, made non-increasing."""
    hits = right.cumsum()
    precision = hits / np.arange(1, len(right) + 1)
    return hits / num_truths, np.maximum.accumulate(precision[::-1])[::-1]


class DetectionMetrics:
    """Average precision over a whole test set.

    Args:
        num_classes: Without background.
        detect: Turns a batch of outputs into the detections of each image, (m, 6): corners as
            fractions, score, label. It is no part of a pickle.
    """

    def __init__(self, num_classes: int, detect: Callable[[Any], Sequence[Tensor]]) -> None:
        self._detect: Callable[[Any], Sequence[Tensor]] | None = detect
        self._found: list[list[Found]] = [[] for _ in range(num_classes)]
        self._confusion = BoxConfusion(num_classes)

    def update(self, outputs: Any, targets: Sequence[Tensor]) -> None:
        """Count a batch.

        Args:
            outputs: The input of `detect`.
            targets: For each image (n, 6): corners as fractions, label, 1 if difficult.
        """
        assert self._detect is not None, "counts of another process take no further batch"
        for image, target in zip(self._detect(outputs), targets, strict=True):
            found = image.cpu().double().numpy()
            labels = found[:, 5].astype(np.int64)
            self.add(found[:, :4], found[:, 4], labels, target.cpu().double().numpy())

    def __getstate__(self) -> dict[str, Any]:
        """Leave out `detect`, which may hold a whole network."""
        return {**self.__dict__, "_detect": None}

    def add(
        self, boxes: FloatArray, scores: FloatArray, labels: NDArray[np.int64], truths: FloatArray
    ) -> None:
        """Count one image: (m, 4) boxes, (m,) scores and labels, (n, 6) truths as in `update`."""
        order = np.argsort(-scores, kind="stable")
        boxes, scores, labels = boxes[order], scores[order], labels[order]
        self._confusion.add(boxes, scores, labels, truths)
        for label in np.union1d(labels, truths[:, 4].astype(np.int64)).tolist():
            mine, theirs = labels == label, truths[truths[:, 4] == label]
            self._found[label].append(
                Found(
                    scores[mine],
                    box_overlaps(boxes[mine], theirs[:, :4]),
                    theirs[:, 5] > 0,
                )
            )

    def merge(self, others: Sequence[Self]) -> None:
        """Add the detections of other processes, in their order."""
        for other in others:
            for mine, theirs in zip(self._found, other._found, strict=True):
                mine += theirs
            self._confusion.merge(other._confusion)

    def compute(self) -> Mapping[str, float]:
        """Return means over the classes that occur in the test set, in percent.

        `map50` is VOC's since 2010 (the area under the curve), `map50_11` that of 2007 (11 points),
        both at an overlap of 0.5; `map` is COCO's, over ten overlaps from 0.5 to 0.95.
        """
        values = np.array([self._of_class(found) for found in self._found], np.float64)
        there = values[~np.isnan(values).any(1)]
        means = there.mean(0) if len(there) else np.full(3, np.nan)
        return dict(zip(("map50", "map50_11", "map"), (100.0 * means).tolist(), strict=True))

    def evaluation(self, class_names: Sequence[str]) -> Evaluation:
        """Return AP at an overlap of 0.5 and the precision-recall curve of each class, by VOC's
        rule, the confusion matrix of objects, and the calibration of all detections that score at
        least LEAST_CONFIDENCE.
        """
        judged = [_judged(found) for found in self._found]
        counts = [_num_truths(found) for found in self._found]
        there = [score >= LEAST_CONFIDENCE for score, _ in judged]
        return Evaluation(
            class_names=tuple(class_names),
            score="AP",
            scores=np.array(
                [
                    100.0 * average_precision(right, num_truths=n)
                    for (_, right), n in zip(judged, counts, strict=True)
                ]
            ),
            unit="objects",
            counts=np.array(counts, np.int64),
            confusion=self._confusion.matrix,
            confused=self._confusion.images(),
            precision=np.stack(
                [precision_at(right, n) for (_, right), n in zip(judged, counts, strict=True)]
            ),
            calibration=calibration(
                *(
                    np.concatenate([values[kept] for values, kept in zip(each, there, strict=True)])
                    for each in zip(*judged, strict=True)
                )
            ),
        )

    def _of_class(self, found: list[Found]) -> tuple[float, float, float]:
        num_truths = _num_truths(found)
        if not num_truths:
            return (float("nan"),) * 3
        _, voc = _judged(found)
        first = [_first(each, COCO_MAX_DETECTIONS) for each in found]
        matches = [coco_matches(each, COCO_THRESHOLDS) for each in first]
        order = np.argsort(-np.concatenate([each.scores for each in first]), kind="stable")
        right, counts = (np.concatenate(parts, 1)[:, order] for parts in zip(*matches, strict=True))
        coco = [
            average_precision(right[t][counts[t]], num_truths=num_truths, recalls=COCO_RECALLS)
            for t in range(len(COCO_THRESHOLDS))
        ]
        return (
            average_precision(voc, num_truths=num_truths),
            average_precision(voc, num_truths=num_truths, recalls=np.linspace(0, 1, 11)),
            float(np.mean(coco)),
        )


def _num_truths(found: Sequence[Found]) -> int:
    """Return the number of objects that count."""
    return sum(int((~each.difficult).sum()) for each in found)


def _judged(found: Sequence[Found]) -> tuple[FloatArray, BoolArray]:
    """Return score and correctness, by VOC's rule, of one class's detections that count, the best
    first.
    """
    if not found:
        return np.zeros(0), np.zeros(0, bool)
    matches = [voc_matches(each, VOC_THRESHOLD) for each in found]
    scores = np.concatenate([each.scores for each in found])
    order = np.argsort(-scores, kind="stable")
    right, counts = (np.concatenate(parts)[order] for parts in zip(*matches, strict=True))
    return scores[order][counts], right[counts]


def _first(found: Found, count: int) -> Found:
    return Found(found.scores[:count], found.overlaps[:count], found.difficult)
