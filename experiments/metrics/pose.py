"""The share of correct keypoints, and average precision by object keypoint similarity.

Sources: PCK, the share of joints within a fraction of the longer side of the figure's box: Yang &
Ramanan, PAMI 2013. PCKh, within half the size of the head: Andriluka et al., CVPR 2014 (MPII).
Object keypoint similarity (OKS) and the average precision over its thresholds 0.50, 0.55, ...,
0.95: Lin et al., ECCV 2014 (COCO), as pycocotools computes them where each image has one figure and
one detection.

Joints that are not annotated count nowhere, and images without an annotated joint neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from experiments.metrics.declaration import percentage
from experiments.metrics.evaluation import NUM_BINS, Calibration, Evaluation, calibration

if TYPE_CHECKING:  # reports read the declarations without torch
    from torch import Tensor

COLUMNS = (
    percentage("pck", "correct joints by the figure's box (PCK)"),
    percentage("pckh", "correct joints by the head (PCKh at 0.5)"),
    percentage("oks_ap", "AP by object keypoint similarity"),
    percentage("oks_ap50", "AP by object keypoint similarity at 0.5"),
    percentage("pck_<joint>", "correct <joint>"),
)
"""The columns that `PoseMetrics` computes."""

HEAD_FRACTION = 0.5
"""PCKh: distance to a joint that is right, as a fraction of the head's size."""
OKS_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)

FloatArray = NDArray[np.float64]
Found = Callable[[Any], "Tensor"]


def keypoint_similarity(
    distances: FloatArray, annotated: NDArray[np.bool_], area: FloatArray, sigmas: FloatArray
) -> FloatArray:
    """Return the object keypoint similarity of each figure, in 0..1; NaN without a joint.

    Args:
        distances: (n, j) between predicted and annotated joints.
        annotated: bool (n, j).
        area: (n,) of the figures, in the square of the distances' unit.
        sigmas: (j,), the spread of annotations of each joint.
    """
    exponent = distances**2 / (2 * sigmas) ** 2 / (area[:, None] + np.spacing(1)) / 2
    similar = np.where(annotated, np.exp(-exponent), 0.0).sum(1)
    counts = annotated.sum(1)
    return np.where(counts > 0, similar / np.maximum(counts, 1), np.nan)


def average_precision(scores: FloatArray, right: NDArray[np.bool_]) -> float:
    """Return COCO's average precision over 101 recalls, in 0..1, of one detection an object.

    Args:
        scores: (n,) of the detections.
        right: bool (n,), whether each found its object. NaN for n = 0.
    """
    if not len(scores):
        return math.nan
    ordered = right[np.argsort(-scores, kind="mergesort")]
    hits = np.cumsum(ordered)
    precision = hits / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / len(hits), _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(hits))].mean())


class PoseMetrics:
    """Distances of predicted and annotated joints, over the figures of a test set.

    Args:
        joint_names: One a joint.
        found: Returns predicted joints (b, j, 3) in a network's outputs: x, y and height of the
            peak, as fractions. It is no part of a pickle.
        fraction: PCK: distance to a joint that is right, as a fraction of the longer side of the
            box around the figure's annotated joints.
        sigmas: Spread of each joint, for object keypoint similarity.
        has_heads: Whether the sizes of heads are known, so that there is PCKh.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        found: Found,
        *,
        fraction: float,
        sigmas: Sequence[float],
        has_heads: bool,
    ) -> None:
        self._names = tuple(joint_names)
        self._found = found
        self._fraction = fraction
        self._has_heads = has_heads
        self._sigmas = np.array(sigmas, np.float64)
        count = len(self._names)
        self.distances: list[FloatArray] = []
        """(b, j) of each batch, in sides of the images; NaN where no joint is annotated."""
        self.heights: list[FloatArray] = []
        """(b, j) of each batch: the heights of the peaks."""
        self.sizes: list[FloatArray] = [np.empty((0, 3))]
        """(b, 3) of each batch: size of the head, longer side of the box, and area."""
        self.distances.append(np.empty((0, count)))
        self.heights.append(np.empty((0, count)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_found": None}  # the network's output stays in its process

    def update(self, outputs: Any, targets: Tensor) -> None:
        """Count a batch.

        Args:
            outputs: The network's.
            targets: (b, j + 1, 3): x, y and visibility of each joint, and in the last row the size
                of the head, the longer side of the box, and the area, as fractions.
        """
        self.add(self._found(outputs).double().cpu().numpy(), targets.double().cpu().numpy())

    def add(self, found: FloatArray, targets: FloatArray) -> None:
        """Count predicted joints (b, j, 3) against targets, as for `update`."""
        true, sizes = targets[:, :-1], targets[:, -1]
        apart = np.linalg.norm(found[:, :, :2] - true[:, :, :2], axis=2)
        self.distances.append(np.where(true[:, :, 2] > 0, apart, np.nan))
        self.heights.append(found[:, :, 2])
        self.sizes.append(sizes)

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of other processes."""
        for other in others:
            self.distances += other.distances
            self.heights += other.heights
            self.sizes += other.sizes

    def compute(self) -> Mapping[str, float]:
        """Return the metrics in percent; `pckh` of the figures whose head has a known size.

        A joint that is annotated in no image of the test set has no entry `pck_<joint>`.
        """
        distances, sizes = np.concatenate(self.distances), np.concatenate(self.sizes)
        annotated = np.isfinite(distances)
        metrics = {"pck": _percent(self._right()[annotated])}
        if self._has_heads:
            within = distances <= HEAD_FRACTION * sizes[:, :1]
            metrics["pckh"] = _percent(within[annotated & np.isfinite(sizes[:, :1])])
        precisions = self._precisions()
        metrics["oks_ap"], metrics["oks_ap50"] = float(np.mean(precisions)), precisions[0]
        for name, score in zip(self._names, self._scores().tolist(), strict=True):
            if not math.isnan(score):
                metrics[f"pck_{name.replace(' ', '_')}"] = score
        return metrics

    def evaluation(self, class_names: Sequence[str]) -> Evaluation:
        """Return the share of correct joints by joint, and whether high peaks are right."""
        distances, heights = np.concatenate(self.distances), np.concatenate(self.heights)
        annotated = np.isfinite(distances)
        bins = Calibration(*np.zeros((3, NUM_BINS)))
        if annotated.any():
            confidence = heights[annotated].clip(0, 1)
            bins = calibration(confidence, self._right()[annotated])
        return Evaluation(
            class_names=tuple(class_names),
            score="PCK",
            scores=self._scores(),
            unit="joints",
            counts=annotated.sum(0),
            calibration=bins,
        )

    def _right(self) -> NDArray[np.bool_]:
        """Return whether each predicted joint is right, (n, j); False where none is annotated."""
        distances, sizes = np.concatenate(self.distances), np.concatenate(self.sizes)
        right: NDArray[np.bool_] = distances <= self._fraction * sizes[:, 1:2]
        return right

    def _scores(self) -> FloatArray:
        """Return the share of correct joints by joint, in percent, (j,)."""
        annotated = np.isfinite(np.concatenate(self.distances)).sum(0)
        right = self._right().sum(0)
        return np.where(annotated > 0, 100.0 * right / np.maximum(annotated, 1), np.nan)

    def _precisions(self) -> list[float]:
        """Return the average precision at each of `OKS_THRESHOLDS`, in percent."""
        distances, sizes = np.concatenate(self.distances), np.concatenate(self.sizes)
        annotated = np.isfinite(distances)
        similarity = keypoint_similarity(
            np.nan_to_num(distances), annotated, sizes[:, 2], self._sigmas
        )
        counted = np.isfinite(similarity)
        scores = np.concatenate(self.heights).mean(1)[counted]
        return [
            100.0 * average_precision(scores, similarity[counted] >= threshold)
            for threshold in OKS_THRESHOLDS
        ]


def _percent(right: NDArray[np.bool_]) -> float:
    return 100.0 * float(right.mean()) if right.size else math.nan
