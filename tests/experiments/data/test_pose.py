"""Sets for pose: figures, their mirror images, and how an image lies in the network's square."""

from __future__ import annotations

import math

import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.data.arranged import GONE, Arrangement, arranged
from experiments.data.labels import MISSING
from experiments.data.pose import (
    Figure,
    FramedSamples,
    PoseEstimation,
    digit_figures,
    framed,
    from_frame,
    mirrored_joints,
    side_of,
    to_frame,
)


@pytest.fixture(scope="module")
def data() -> PoseEstimation:
    """Six scenes to choose from and three to test with."""
    return digit_figures(num_scenes=6, num_test_scenes=3, scene_size=64)


def test_embedded_scenes_are_a_set(data: PoseEstimation) -> None:
    """Pool and test set have their sizes, names of their own, and heads of a known size."""
    assert (len(data.train), len(data.test)) == (6, 3)
    assert data.train.names[0] == "train_figure_00000.png"
    assert all(0 < figure.head < 64 for figure in (*data.train_figures, *data.test_figures))
    assert data.flip
    assert {side_of(name) for name in data.class_names} == {"left", "right", ""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_scenes": 1}, r"data\.num_scenes must be a whole number, 2"),
        ({"num_test_scenes": 0}, r"data\.num_test_scenes"),
        ({"scene_size": 16}, r"data\.scene_size"),
    ],
)
def test_settings_out_of_range_are_named(arguments: dict[str, int], message: str) -> None:
    """A wrong setting of the scenes is refused with its key."""
    with pytest.raises(InvalidSetting, match=message):
        digit_figures(**arguments)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("left_eye", "nose", "right_eye"), (2, 1, 0)),
        (("LeftEye", "RightEye"), (1, 0)),
        (("l_ear", "r_ear", "tail"), (1, 0, 2)),
        (("knee.L", "knee.R"), (1, 0)),
        (("Left Ear", "tail"), (0, 1)),  # without a counterpart
        (("lr", "leftover", "lemon"), (0, 1, 2)),
        (("front left paw", "front right paw", "back left paw"), (1, 0, 2)),
    ],
)
def test_mirrored_joints_follow_from_names(
    names: tuple[str, ...], expected: tuple[int, ...]
) -> None:
    """Names that differ in left and right alone are swapped, all others stay."""
    assert mirrored_joints(names) == expected


def test_mirroring_twice_changes_nothing(data: PoseEstimation) -> None:
    """The counterpart of the counterpart is the joint itself."""
    once = mirrored_joints(data.class_names)
    assert [once[joint] for joint in once] == list(range(14))
    assert sum(joint != k for k, joint in enumerate(once)) == 12


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (64, 64), (33, 47)])
def test_frames_are_undone(size: tuple[int, int]) -> None:
    """Points go into the square and come back; the image's corners are those of its content."""
    height, width = size
    points = np.array([[0, 0], [width, height], [width / 3, height / 7]], np.float32)
    there = to_frame(points, size, 96)
    assert there.min() >= 0
    assert there.max() <= 1
    np.testing.assert_allclose(from_frame(there, size, 96), points, atol=1e-3)
    white = np.full((*size, 3), 255, np.uint8)
    content = np.argwhere(framed(white, 96)[:, :, 0] == 255)
    low, high = content.min(0)[::-1] / 96, (content.max(0)[::-1] + 1) / 96
    np.testing.assert_allclose(there[:2], [low, high], atol=1e-6)


def test_an_image_is_seen_whole(data: PoseEstimation) -> None:
    """Images of the square's size are unchanged, others are resized."""
    same = FramedSamples(data.train, 64).images(np.array([2]))
    assert np.array_equal(same[0].permute(1, 2, 0).numpy(), data.train.picture(2))
    assert FramedSamples(data.train, 32).images(np.array([2, 0])).shape == (2, 3, 32, 32)


def test_the_box_is_around_annotated_joints() -> None:
    """Missing joints do not count; fewer than two joints have the extent of the image."""
    points = np.array([[3, 4], [13, 9], [500, 500]], np.float32)
    figure = Figure(points, np.array([1, 2, MISSING], np.uint8))
    assert figure.box_within((50, 60)) == (5, 10)
    alone = Figure(points, np.array([0, 2, 0], np.uint8))
    assert alone.box_within((50, 60)) == (50, 60)


def test_another_order_takes_the_figures_along(data: PoseEstimation) -> None:
    """Each figure stays with its image; a sample that is gone has a figure without joints."""
    there = Arrangement(np.array([4, GONE, 1]), ["a", "b", "c"], {1: "it is gone"})
    same = Arrangement(np.arange(3), data.test.names, {})
    found = arranged(data, train=there, test=same)
    assert found.train_figures[0] is data.train_figures[4]
    assert found.train_figures[2] is data.train_figures[1]
    assert not found.train_figures[1].visibility.any()
    assert np.array_equal(found.train.picture(2), data.train.picture(1))
    assert found.test is data.test


def test_a_set_that_does_not_fit_together_is_refused(data: PoseEstimation) -> None:
    """Names, skeleton, sigmas and figures must be of the same joints."""
    parts = (data.train, data.train_figures, data.test, data.test_figures)
    form = {"mean": data.mean, "std": data.std, "flip": True}
    with pytest.raises(ValueError, match="distinct names"):
        PoseEstimation(*parts, ("a", "a"), **form)
    with pytest.raises(ValueError, match="outside of 0"):
        PoseEstimation(*parts, ("a", "b"), **form, skeleton=((0, 2),))
    with pytest.raises(ValueError, match="2 joints but 1 sigmas"):
        PoseEstimation(*parts, ("a", "b"), **form, sigmas=(0.1,))
    with pytest.raises(ValueError, match="6 images but 5 figures"):
        PoseEstimation(data.train, data.train_figures[:5], *parts[2:], ("a", "b"), **form)
    assert math.isnan(Figure(np.zeros((1, 2), np.float32), np.ones(1, np.uint8)).area)
