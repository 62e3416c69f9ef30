"""Confusion matrix of detections: cells, difficult objects, images behind cells, files."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from experiments.metrics.box_confusion import SHOWN_SCORE, BoxConfusion
from experiments.metrics.evaluation import Evaluation
from tests.experiments.metrics.test_detection import Image, random_images

LEFT, RIGHT, BELOW = (0.0, 0.0, 0.4, 0.4), (0.6, 0.0, 1.0, 0.4), (0.0, 0.6, 0.4, 1.0)
BACKGROUND = 2


def counted(*images: tuple[list[tuple[object, ...]], list[tuple[object, ...]]]) -> BoxConfusion:
    """Count images of two classes, given as (box, score, label) and (box, label, difficult)."""
    confusion = BoxConfusion(2)
    for detections, truths in images:
        boxes = np.array([box for box, *_ in detections], np.float64).reshape(-1, 4)
        scores = np.array([score for _, score, _ in detections], np.float64)
        labels = np.array([label for *_, label in detections], np.int64)
        rows = [(*box, label, difficult) for box, label, difficult in truths]  # type: ignore[misc]
        confusion.add(boxes, scores, labels, np.array(rows, np.float64).reshape(-1, 6))
    return confusion


def test_every_object_and_detection_has_a_cell() -> None:
    """One found, one taken for another class, one missed, and one detection of nothing."""
    found = counted(
        (
            [(LEFT, 0.9, 0), (RIGHT, 0.8, 0), ((0.8, 0.8, 1.0, 1.0), 0.7, 1)],
            [(LEFT, 0, 0), (RIGHT, 1, 0), (BELOW, 1, 0)],
        )
    )
    assert found.matrix.tolist() == [[1, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_the_own_class_comes_first() -> None:
    """A better detection of another class does not take an object from one of its own class."""
    found = counted(([(LEFT, 0.9, 1), (LEFT, 0.5, 0)], [(LEFT, 0, 0)]))
    assert found.matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_a_second_detection_is_of_nothing() -> None:
    """An object is found once."""
    found = counted(([(LEFT, 0.9, 0), (LEFT, 0.5, 0)], [(LEFT, 0, 0)]))
    assert found.matrix[BACKGROUND, 0] == 1


@pytest.mark.parametrize("score", [0.9, None])
def test_difficult_objects_count_neither_way(score: float | None) -> None:
    """They are neither found nor missed."""
    detections: list[tuple[object, ...]] = [] if score is None else [(LEFT, score, 0)]
    assert not counted((detections, [(LEFT, 0, 1)])).matrix.any()


def test_faint_detections_do_not_count() -> None:
    """The matrix leaves out what is not drawn."""
    faint = SHOWN_SCORE - 0.01
    assert counted(([(LEFT, faint, 0)], [(LEFT, 0, 0)])).matrix[0].tolist() == [0, 0, 1]


def test_images_behind_a_cell_have_the_most_of_it() -> None:
    """The image with two missed objects stands before the one with one."""
    found = counted(
        ([], [(LEFT, 0, 0)]),
        ([], [(LEFT, 0, 0), (RIGHT, 0, 0)]),
        ([(LEFT, 0.9, 0)], [(LEFT, 0, 0)]),
    )
    assert [(each.true, each.predicted, each.image) for each in found.images()] == [
        (0, BACKGROUND, 1), (0, BACKGROUND, 0),
    ]  # fmt: skip


def all_of(images: list[Image]) -> BoxConfusion:
    """Count random images of five classes, detections in decreasing order of score."""
    confusion = BoxConfusion(5)
    for boxes, scores, labels, truths in images:
        order = np.argsort(-scores, kind="stable")
        confusion.add(boxes[order], scores[order], labels[order], truths)
    return confusion


def test_rows_are_objects_and_columns_detections() -> None:
    """Without difficult objects every object is in its row once, every detection in its column."""
    images = random_images(difficult=False)
    matrix: NDArray[np.int64] = all_of(images).matrix
    objects = np.concatenate([truths[:, 4] for *_, truths in images]).astype(np.int64)
    shown = np.concatenate([labels[scores >= SHOWN_SCORE] for _, scores, labels, _ in images])
    assert matrix[:-1].sum(1).tolist() == np.bincount(objects, minlength=5).tolist()
    assert matrix[:, :-1].sum(0).tolist() == np.bincount(shown, minlength=5).tolist()


def test_processes_change_nothing() -> None:
    """Counts and images of two processes are those of one."""
    images = random_images(difficult=True)
    whole, parts = all_of(images), all_of(images[:40])
    parts.merge(all_of(images[40:]))
    assert (parts.matrix == whole.matrix).all()
    assert parts.images() == whole.images()


def test_a_file_keeps_the_background() -> None:
    """Its row, its column and its images come back, and its name stands behind the classes."""
    from experiments.metrics.detection import DetectionMetrics

    metrics = DetectionMetrics(5, lambda outputs: outputs)
    for boxes, scores, labels, truths in random_images(difficult=False):
        metrics.add(boxes, scores, labels, truths)
    found = metrics.evaluation(tuple("abcde"))
    again = Evaluation.from_json(found.to_json())
    assert again.answers == (*"abcde", "background")
    assert again.confusion is not None
    assert found.confusion is not None
    assert (again.confusion == found.confusion).all()
    assert again.confused == found.confused
    assert {5} <= {each.predicted for each in again.confused}
