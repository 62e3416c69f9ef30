"""Data of a task without images: enough to build the task and ask its model about images elsewhere.

What training measured on its pool comes from a checkpoint, as `Task.data_facts` gave it; what the
published weights of the three original repositories were trained with is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from al_core.errors import InvalidSetting
from experiments.data import cityscapes, voc
from experiments.data.classification import (
    CIFAR10_CLASSES,
    CIFAR10_MEAN,
    CIFAR10_STD,
    ImageClassification,
)
from experiments.data.detection import ObjectDetection, Objects
from experiments.data.pictures import MemoryPictures
from experiments.data.samples import MemorySamples
from experiments.data.segmentation import MemoryMasks, SemanticSegmentation, distinct_palette
from experiments.settings.input_format import DEFAULT_INTERPOLATION

BLANK_PIXELS = 32
"""Side of the one black image that a detector or a segmentation network stands ready with."""

BlankData = ImageClassification | ObjectDetection | SemanticSegmentation


def published_facts(kind: str) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return class names and data facts of the weights that the original repositories publish.

    CIFAR-10 for classification, Pascal VOC for detection, Cityscapes for segmentation.
    """
    if kind == "classification":
        facts = {"image_size": 32, "mean": list(CIFAR10_MEAN), "std": list(CIFAR10_STD)}
        return CIFAR10_CLASSES, facts
    if kind == "detection":
        return voc.CLASS_NAMES, {}
    return tuple(cityscapes.CLASSES), {
        "mean": list(cityscapes.MEAN),
        "std": list(cityscapes.STD),
        "palette": [list(color) for _, color in cityscapes.CLASSES.values()],
    }


def blank_data(kind: str, class_names: Sequence[str], facts: Mapping[str, Any]) -> BlankData:
    """Return a data set with one black image, of which nothing is known.

    Args:
        kind: "classification", "detection" or "segmentation".
        class_names: One a class, without background.
        facts: As `Task.data_facts` gives them.

    Raises:
        InvalidSetting: A fact is missing or of no use.
    """
    names = tuple(class_names)
    try:
        if kind == "classification":
            samples = _blank(facts["image_size"])
            targets = np.zeros(1, np.int64)
            return ImageClassification(
                samples, targets, samples, targets, names, *_mean_and_std(facts), flip=False,
                interpolation=facts.get("interpolation", DEFAULT_INTERPOLATION),
            )  # fmt: skip
        pictures = MemoryPictures(_blank(BLANK_PIXELS))
        if kind == "detection":
            nothing = Objects(
                np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_)
            )
            return ObjectDetection(pictures, [nothing], pictures, [nothing], names, flip=False)
        masks = MemoryMasks(np.zeros((1, BLANK_PIXELS, BLANK_PIXELS), np.uint8))
        palette = facts.get("palette") or distinct_palette(len(names))
        return SemanticSegmentation(
            pictures, masks, pictures, masks, names,
            tuple((red, green, blue) for red, green, blue in palette),
            *_mean_and_std(facts), flip=False,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidSetting(f"what the model was trained with is not to be had: {error}") from None


def _blank(side: int) -> MemorySamples:
    return MemorySamples(torch.zeros(1, 3, side, side, dtype=torch.uint8), ["blank"])


def _mean_and_std(
    facts: Mapping[str, Any],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    mean = red, green, blue = tuple(map(float, facts["mean"]))
    std = tuple(map(float, facts["std"]))
    if not all(0 <= value <= 1 for value in mean) or not all(0 < value <= 1 for value in std):
        raise ValueError(f"mean and std are fractions of 255, got {mean} and {std}")
    return (red, green, blue), (std[0], std[1], std[2])
