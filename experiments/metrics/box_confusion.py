"""Confusion matrix of detections: what is found, taken for another class, missed or invented.

A further row and column stand for the background: an object that nobody found is "taken for
background", and a detection of nothing is background taken for an object.
"""

from __future__ import annotations

import numpy as np

from experiments.metrics.evaluation import Confused, IntArray, images_with_most, most_confused
from experiments.metrics.matching import (
    VOC_THRESHOLD,
    BoolArray,
    FloatArray,
    Found,
    box_overlaps,
    voc_matches,
)

SHOWN_SCORE = 0.3
"""Detections with a smaller score are neither counted here, nor drawn, nor handed out as drafts."""
NUM_CONFUSED, CONFUSED_A_CELL = 24, 3
"""Images behind the matrix that are named at most, of all cells and of each."""


class BoxConfusion:
    """Counts of objects by true and predicted class, over a whole test set.

    Attributes:
        matrix: (k + 1, k + 1) true against predicted class; the last is the background.
    """

    def __init__(self, num_classes: int) -> None:
        self.matrix: IntArray = np.zeros((num_classes + 1, num_classes + 1), np.int64)
        self._cells: list[list[tuple[int, int, int]]] = []

    def add(
        self, boxes: FloatArray, scores: FloatArray, labels: IntArray, truths: FloatArray
    ) -> None:
        """Count one image.

        Objects are matched within their class by VOC's rule first. What is left over is matched
        across classes, the best detection first. A difficult object counts neither way.

        Args:
            boxes: (m, 4) corners of the detections, the best first.
            scores: (m,).
            labels: (m,).
            truths: (n, 6) corners, label, 1 if difficult.
        """
        shown = scores >= SHOWN_SCORE
        boxes, scores, labels = boxes[shown], scores[shown], labels[shown]
        classes, difficult = truths[:, 4].astype(np.int64), truths[:, 5] > 0
        overlaps = box_overlaps(boxes, truths[:, :4])
        taken: BoolArray = np.zeros(len(truths), bool)
        left: BoolArray = np.ones(len(boxes), bool)
        image = np.zeros_like(self.matrix)
        for label in np.unique(labels).tolist():
            mine, theirs = np.flatnonzero(labels == label), np.flatnonzero(classes == label)
            found = Found(scores[mine], overlaps[np.ix_(mine, theirs)], difficult[theirs])
            right, counts = voc_matches(found, VOC_THRESHOLD)
            left[mine] = counts & ~right
            if right.any():
                taken[theirs[found.overlaps[right].argmax(1)]] = True
                image[label, label] = right.sum()
        background = len(image) - 1
        for k in np.flatnonzero(left).tolist():
            free = np.where(taken | difficult, 0.0, overlaps[k])
            true = background
            if free.size and free.max() >= VOC_THRESHOLD:
                true = int(classes[free.argmax()])
                taken[free.argmax()] = True
            image[true, labels[k]] += 1
        np.add.at(image[:, background], classes[~taken & ~difficult], 1)
        self.matrix += image
        np.fill_diagonal(image, 0)
        cells = np.argwhere(image)
        self._cells.append([(t, p, int(image[t, p])) for t, p in cells.tolist()])

    def merge(self, other: BoxConfusion) -> None:
        """Add the counts of another process, whose images follow."""
        self.matrix += other.matrix
        self._cells += other._cells

    def images(self) -> tuple[Confused, ...]:
        """Return the images behind the largest cells, those with the most such objects first."""
        images = images_with_most(self._cells, CONFUSED_A_CELL)
        return most_confused(self.matrix, images, limit=NUM_CONFUSED)
