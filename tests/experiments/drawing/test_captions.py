"""experiments.drawing.captions: counts of objects and of errors, in one line."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.data.labels import NO_CLASS, Box
from experiments.drawing.captions import (
    box_caption,
    class_caption,
    errors,
    mask_caption,
    with_duplicates,
)

NAMES = ("RBC", "WBC", "Platelets")


def boxes(name: str, *lefts: float, score: float | None = None, difficult: bool = False):
    """Return boxes of 10 x 10 pixels that begin at these columns."""
    return [Box(name, (x, 0.0, x + 10, 10.0), difficult, score) for x in lefts]


def test_predictions_are_counted_by_class() -> None:
    """The most frequent class comes first; no object is "nothing"."""
    predicted = [*boxes("WBC", 0, score=0.9), *boxes("RBC", 20, 40, score=0.8)]
    assert box_caption(predicted, None, NAMES) == "predicted 2 RBC, 1 WBC"
    assert box_caption([], None, NAMES) == "predicted nothing"


def test_errors_are_counted_where_the_truth_is_known() -> None:
    """Annotated objects by class, then how many were missed and how many boxes are false."""
    true = [*boxes("RBC", 0, 20, 40), *boxes("WBC", 60)]
    predicted = [*boxes("RBC", 1, 60, score=0.9), *boxes("WBC", 60, score=0.5)]
    assert box_caption(predicted, true, NAMES) == "annotated 3 RBC, 1 WBC; 2 missed, 1 false"
    assert box_caption(true, true, NAMES) == "annotated 3 RBC, 1 WBC; none missed, none false"
    assert box_caption([], [], NAMES) == "annotated nothing; none missed, none false"


def test_errors_say_which_boxes() -> None:
    """A second box on one object is false, the better one is right, whatever their order."""
    predicted = [*boxes("RBC", 1, score=0.4), *boxes("RBC", 0, score=0.9)]
    assert errors(predicted, boxes("RBC", 0, 50)) == ([True, False], [False, True])


def test_difficult_objects_are_neither_missed_nor_make_a_box_false() -> None:
    """As in evaluation, they count neither way."""
    difficult = boxes("RBC", 0, difficult=True)
    assert errors([], difficult) == ([], [False])
    assert errors(boxes("RBC", 0, score=0.9), difficult) == ([False], [False])


def test_many_classes_are_cut_short() -> None:
    """Six classes are named, the others counted."""
    names = [f"c{k}" for k in range(9)]
    predicted = [box for name in names for box in boxes(name, 0, score=1.0)]
    caption = box_caption(predicted, None, names)
    assert caption.endswith("1 c5 and 3 more classes")
    assert box_caption(predicted[:7], None, names).endswith("1 c5 and 1 more class")


@pytest.mark.parametrize(
    ("truth", "expected"),
    [(None, "predicted cat 51%, dog 44%"), ("dog", "predicted cat 51%, dog 44%; annotated dog")],
)
def test_likely_classes_are_named(truth: str | None, expected: str) -> None:
    """The most probable class and its rivals, without the improbable ones."""
    assert class_caption([("cat", 0.51), ("dog", 0.44), ("bird", 0.05)], truth) == expected


def test_shares_of_pixels_are_named_and_judged() -> None:
    """Classes by share; the right ones are of the annotated pixels alone."""
    predicted = np.zeros((10, 10), np.uint8)
    predicted[:3] = 1
    true = np.full((10, 10), NO_CLASS, np.uint8)
    assert mask_caption(predicted, true, NAMES) == "predicted RBC 70%, WBC 30%"
    true[:4] = 1
    caption = mask_caption(predicted, true, NAMES)
    assert caption == "predicted RBC 70%, WBC 30%; 75% of annotated pixels right"


def test_captions_mention_what_is_not_shown() -> None:
    """One near-duplicate, several, or none."""
    assert with_duplicates("predicted 2 RBC", 0) == "predicted 2 RBC"
    assert with_duplicates("predicted 2 RBC", 1) == "predicted 2 RBC; and 1 near-duplicate"
    assert with_duplicates("predicted 2 RBC", 5) == "predicted 2 RBC; and 5 near-duplicates"
