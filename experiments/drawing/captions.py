"""Captions: one line that says how many objects of which class, and how many errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import NO_CLASS, Box, Keypoint, Mask
from experiments.metrics.matching import VOC_THRESHOLD, Found, box_overlaps, voc_matches
from experiments.settings.wording import counted

MAX_NAMED = 6
"""Classes named in a caption; of the others only the number is given."""
MIN_SHARE = 0.01
"""Share of the pixels from which a class is named."""
MIN_PROBABILITY = 0.1
"""Probability from which a class other than the most probable is named."""


class Errors(NamedTuple):
    """Where predicted and annotated boxes disagree.

    Attributes:
        false: Whether each predicted box is wrong.
        missed: Whether each annotated box was not found; never of difficult objects.
    """

    false: list[bool]
    missed: list[bool]


def errors(predicted: Sequence[Box], true: Sequence[Box]) -> Errors:
    """Match predicted to annotated boxes of the same class, best first, by VOC's rule.

    An overlap of 0.5 is a match. A second detection of one object is false, and one of a difficult
    object counts neither way.
    """
    false, missed = np.zeros(len(predicted), bool), np.zeros(len(true), bool)
    for name in {box.class_name for box in (*predicted, *true)}:
        own = np.array([k for k, box in enumerate(predicted) if box.class_name == name], np.int64)
        own = own[np.argsort([-(predicted[k].score or 0.0) for k in own], kind="stable")]
        theirs = np.array([k for k, box in enumerate(true) if box.class_name == name], np.int64)
        overlaps = box_overlaps(_corners(predicted, own), _corners(true, theirs))
        difficult = np.array([true[k].difficult for k in theirs], bool)
        scores = np.array([predicted[k].score or 0.0 for k in own])
        right, counts = voc_matches(Found(scores, overlaps, difficult), VOC_THRESHOLD)
        false[own] = counts & ~right
        missed[theirs] = ~difficult
        if right.any():
            missed[theirs[overlaps[right].argmax(1)]] = False
    return Errors(false.tolist(), missed.tolist())


def class_caption(probabilities: Iterable[tuple[str, float]], truth: str | None) -> str:
    """Caption an image with the most probable classes, given from the most probable on."""
    named = [
        f"{name} {probability:.0%}"
        for place, (name, probability) in enumerate(probabilities)
        if not place or probability >= MIN_PROBABILITY
    ]
    return f"predicted {_listed(named)}" + ("" if truth is None else f"; annotated {truth}")


def box_caption(
    predicted: Sequence[Box], true: Sequence[Box] | None, class_names: Sequence[str]
) -> str:
    """Caption an image with its objects by class, and the errors where it is annotated."""
    if true is None:
        return f"predicted {_counted(predicted, class_names)}"
    found = errors(predicted, true)
    wrong = [
        f"{sum(each) or 'none'} {name}"
        for name, each in (("missed", found.missed), ("false", found.false))
    ]
    return f"annotated {_counted(true, class_names)}; {', '.join(wrong)}"


def mask_caption(predicted: Mask, true: Mask | None, class_names: Sequence[str]) -> str:
    """Caption an image with the shares of its pixels by class, and how many of them are right."""
    shares = np.bincount(predicted.ravel(), minlength=256)[: len(class_names)] / predicted.size
    largest = np.argsort(-shares, kind="stable").tolist()
    named = [f"{class_names[k]} {shares[k]:.0%}" for k in largest if shares[k] >= MIN_SHARE]
    caption = f"predicted {_listed(named)}"
    labeled = None if true is None else true != NO_CLASS
    if labeled is not None and labeled.any():
        caption += f"; {(predicted == true)[labeled].mean():.0%} of annotated pixels right"
    return caption


def figure_caption(
    predicted: Sequence[Keypoint], true: Sequence[Keypoint] | None, wrong: Sequence[str]
) -> str:
    """Caption an image with the least certain joint, or with the wrong ones where it is annotated.

    Args:
        predicted: The predicted joints.
        true: The annotated ones, or None.
        wrong: Names of the predicted joints that are too far from the annotated ones.
    """
    if true is None:
        if not predicted:
            return "predicted no joint"
        least = min(predicted, key=lambda joint: joint.score or 0.0)
        found = counted(len(predicted), "joint")
        return f"predicted {found}; least certain: {least.name} {least.score or 0:.0%}"
    right = len(true) - len(wrong)
    caption = f"{right} of {counted(len(true), 'annotated joint')} right"
    return caption + (f"; wrong: {_listed(wrong, 'joint', 'joints')}" if wrong else "")


def _counted(boxes: Sequence[Box], class_names: Sequence[str]) -> str:
    """Count boxes by class, the most frequent first."""
    counts = Counter(box.class_name for box in boxes)
    ordered = sorted(counts, key=lambda name: (-counts[name], class_names.index(name)))
    return _listed([f"{counts[name]} {name}" for name in ordered])


def _listed(named: Sequence[str], one: str = "class", several: str = "classes") -> str:
    if not named:
        return "nothing"
    more = len(named) - MAX_NAMED
    rest = f" and {more} more {one if more == 1 else several}" if more > 0 else ""
    return ", ".join(named[:MAX_NAMED]) + rest


def _corners(boxes: Sequence[Box], chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.array([boxes[k].corners for k in chosen], np.float64).reshape(-1, 4)


def with_duplicates(caption: str, num_duplicates: int) -> str:
    """Return a caption that mentions the near-duplicates that are not shown."""
    return (
        f"{caption}; and {counted(num_duplicates, 'near-duplicate')}" if num_duplicates else caption
    )
