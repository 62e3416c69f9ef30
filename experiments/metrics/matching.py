"""Matching of detections to annotated objects, by the rules of Pascal VOC and of COCO.

Sources as in `detection`. Detections and truths are matched with array arithmetic; only COCO's rule
loops, over detections that overlap something.

An overlap does not change when both axes are stretched, so boxes as fractions of their image do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOC_THRESHOLD = 0.5

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Found:
    """Detections and truths of one class in one image, detections best first.

    Attributes:
        scores: (m,).
        overlaps: (m, n), intersection over union of each detection with each truth.
        difficult: (n,).
    """

    scores: FloatArray
    overlaps: FloatArray
    difficult: BoolArray


def box_overlaps(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the intersection over union (n, m) of corner boxes (n, 4) and (m, 4)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clip(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).clip(0).prod(1) for each in (a, b)]
    overlaps: FloatArray = shared / np.maximum(areas[0][:, None] + areas[1] - shared, 1e-12)
    return overlaps


def voc_matches(found: Found, threshold: float) -> tuple[BoolArray, BoolArray]:
    """Judge detections by VOC's rule.

    A detection is matched to the truth that it overlaps most. It is right if that overlap is at
    least the threshold and no better detection is matched to the same truth; a match with a
    difficult truth is not counted at all.
    Differs: amdegroot/ssd.pytorch @ 5b0b77f requires an overlap above the threshold; VOC's
    development kit, like this, requires one at least as large.

    Returns:
        (m,) right, (m,) counts.
    """
    num = len(found.scores)
    if not len(found.difficult):
        return np.zeros(num, bool), np.ones(num, bool)
    meant = found.overlaps.argmax(1)
    hits = found.overlaps[np.arange(num), meant] >= threshold
    hard = hits & found.difficult[meant]
    right = np.zeros(num, bool)
    _, first = np.unique(np.where(hits, meant, -1), return_index=True)
    right[first] = True  # detections are in order, so the first of a truth is the best
    return right & hits & ~hard, ~hard


def coco_matches(found: Found, thresholds: FloatArray) -> tuple[BoolArray, BoolArray]:
    """Judge detections by COCO's rule, at several thresholds.

    In decreasing order of score, each detection is matched to the truth that it overlaps most among
    those not yet matched. A difficult truth is matched only where no other is possible, and such a
    match is not counted at all.

    Returns:
        (t, m) right, (t, m) counts.
    """
    num, num_thresholds = len(found.scores), len(thresholds)
    right = np.zeros((num_thresholds, num), bool)
    counts = np.ones((num_thresholds, num), bool)
    if not len(found.difficult):
        return right, counts
    free = np.ones((num_thresholds, len(found.difficult)), bool)
    rows = np.arange(num_thresholds)
    bound = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for k in np.flatnonzero(found.overlaps.max(1) >= bound.min()):
        possible = free & (found.overlaps[k] >= bound)
        # Any truth that counts is preferred to every difficult one. Of equal overlaps the last is
        # taken, as pycocotools does.
        value = np.where(possible, found.overlaps[k] + 2.0 * ~found.difficult, -1.0)[:, ::-1]
        taken = value.shape[1] - 1 - value.argmax(1)
        matched = possible.any(1)
        free[rows[matched], taken[matched]] = False
        hard = matched & found.difficult[taken]
        right[:, k] = matched & ~hard
        counts[:, k] = ~hard
    return right, counts
