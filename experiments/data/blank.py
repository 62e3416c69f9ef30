"""Data sets of one black image, with which a task can be built for inference on other images.

Facts about the training images come from a checkpoint (see `Task.data_facts`). Those of the
published weights of the three original repositories are in this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from al_core.errors import InvalidSetting
from experiments.data import cityscapes, voc
from experiments.data.arranged import Data
from experiments.data.classification import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    ImageClassification,
)
from experiments.data.detection import NO_OBJECTS, ObjectDetection
from experiments.data.palette import distinct_palette
from experiments.data.pictures import MemoryPictures
from experiments.data.pose import PoseEstimation, no_figure
from experiments.data.samples import MemorySamples
from experiments.data.segmentation import MemoryMasks, SemanticSegmentation
from experiments.settings.checks import check_whole_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION

MAX_IMAGE_SIZE = 4096  # pixels, as of the data sets
BLANK_PIXELS = 32
"""Side of the black image of a detector or a segmentation network."""

Facts = Mapping[str, Any]
Names = tuple[str, ...]


def published_facts(kind: str) -> tuple[Names, dict[str, Any]]:
    """Return class names and data facts of the weights published by the original repositories.

    CIFAR-10 for classification, Pascal VOC for detection, Cityscapes for segmentation.

    Raises:
        InvalidSetting: None are known for this kind of task.
    """
    if kind not in PUBLISHED:
        raise InvalidSetting(f"no published weights for {kind} are known: set class_names")
    names, facts = PUBLISHED[kind]
    return names, dict(facts)


def blank_data(kind: str, class_names: Sequence[str], facts: Facts) -> Data:
    """Return a data set with one black, unlabeled image.

    Args:
        kind: A key of `BLANK`.
        class_names: One name per class, without background.
        facts: Facts about the training images, as from `Task.data_facts`.

    Raises:
        InvalidSetting: A fact is missing or unusable.
    """
    try:
        return BLANK[kind](tuple(class_names), facts)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"there is no {error}" if isinstance(error, KeyError) else error
        raise InvalidSetting(f"facts about the model's training data: {reason}") from None


def _classification(names: Names, facts: Facts) -> ImageClassification:
    check_whole_number("image_size", facts["image_size"], low=1, high=MAX_IMAGE_SIZE)
    samples = _blank(facts["image_size"])
    targets = np.zeros(1, np.int64)
    return ImageClassification(
        samples, targets, samples, targets, names, *_mean_and_std(facts), flip=False,
        # Earlier checkpoints knew no other ways.
        resize=str(facts.get("resize", "crop")),
        interpolation=str(facts.get("interpolation", DEFAULT_INTERPOLATION)),
    )  # fmt: skip


def _detection(names: Names, facts: Facts) -> ObjectDetection:
    pictures, nothing = MemoryPictures(_blank(BLANK_PIXELS)), [NO_OBJECTS]
    return ObjectDetection(pictures, nothing, pictures, nothing, names, flip=False)


def _segmentation(names: Names, facts: Facts) -> SemanticSegmentation:
    pictures = MemoryPictures(_blank(BLANK_PIXELS))
    masks = MemoryMasks(np.zeros((1, BLANK_PIXELS, BLANK_PIXELS), np.uint8))
    palette = _palette(facts.get("palette") or distinct_palette(len(names)), len(names))
    return SemanticSegmentation(
        pictures, masks, pictures, masks, names, palette, *_mean_and_std(facts), flip=False
    )


def _pose(names: Names, facts: Facts) -> PoseEstimation:
    pictures, figures = MemoryPictures(_blank(BLANK_PIXELS)), [no_figure(len(names))]
    bones = tuple((int(a), int(b)) for a, b in facts.get("skeleton", ()))
    return PoseEstimation(
        pictures, figures, pictures, figures, names, *_mean_and_std(facts), flip=False,
        skeleton=bones,
    )  # fmt: skip


BLANK: Mapping[str, Callable[[Names, Facts], Data]] = {
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
    "pose": _pose,
}
"""Kind of task -> its data set of one black image for class names and facts."""

PUBLISHED: Mapping[str, tuple[Names, dict[str, Any]]] = {
    "classification": (
        CIFAR10_CLASSES,
        {"image_size": 32, "mean": list(CIFAR10_MEAN), "std": list(CIFAR10_STD)},
    ),
    "detection": (voc.CLASS_NAMES, {}),
    "segmentation": (
        tuple(cityscapes.CLASSES),
        {
            "mean": list(cityscapes.MEAN),
            "std": list(cityscapes.STD),
            "palette": [list(color) for _, color in cityscapes.CLASSES.values()],
        },
    ),
}
"""Kind of task -> class names and data facts of its published weights."""


def _blank(side: int) -> MemorySamples:
    return MemorySamples(torch.zeros(1, 3, side, side, dtype=torch.uint8), ["blank"])


def _palette(colors: Sequence[Sequence[int]], count: int) -> tuple[tuple[int, int, int], ...]:
    found = tuple((red, green, blue) for red, green, blue in colors)
    ordinary = all(type(value) is int and 0 <= value < 256 for color in found for value in color)
    if len(found) != count or not ordinary:
        raise ValueError(f"palette must be {count} colors of three whole numbers, 0 .. 255")
    return found


def _mean_and_std(
    facts: Mapping[str, Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    mean, std = (tuple(map(float, facts[key])) for key in ("mean", "std"))
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ValueError(f"mean and std are fractions of 255, got {mean} and {std}")
    (red, green, blue), (red_std, green_std, blue_std) = mean, std
    return (red, green, blue), (red_std, green_std, blue_std)
