"""The embedded scenes of figures: what they show, and that the annotations lie on it."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from experiments.data.labels import HIDDEN, VISIBLE
from experiments.data.stick_figures import (
    DEGREES,
    HEAD_TOP,
    JOINT_NAMES,
    KINDS,
    LENGTHS,
    NECK,
    SKELETON,
    FigureScene,
    figure_scene,
    figure_scenes,
)

SIZE = 96
AT = {name: position for position, name in enumerate(JOINT_NAMES)}


@pytest.fixture(scope="module")
def composed() -> list[FigureScene]:
    """Sixty scenes."""
    return figure_scenes(60, size=SIZE)


def test_a_scene_depends_on_seed_and_index_only(composed: list[FigureScene]) -> None:
    """Another number of scenes, or another order, changes none of them; another seed does."""
    again = figure_scene(7, size=SIZE)
    assert np.array_equal(again.image, composed[7].image)
    assert np.array_equal(again.points, composed[7].points)
    assert not np.array_equal(figure_scene(7, size=SIZE, seed=1).points, again.points)
    assert not np.array_equal(figure_scene(7, size=SIZE, held_out=True).image, again.image)


def test_limbs_have_the_lengths_of_one_body(composed: list[FigureScene]) -> None:
    """The head's length is the same share of all limbs' in every pose."""
    for scene in composed:
        lengths = {
            part: np.linalg.norm(scene.points[AT[first]] - scene.points[AT[second]])
            for part, first, second in (
                ("head", "neck", "head_top"),
                ("forearm", "left_elbow", "left_wrist"),
                ("arm", "right_shoulder", "right_elbow"),
                ("thigh", "right_hip", "right_knee"),
                ("shin", "left_knee", "left_ankle"),
            )
        }
        for part, length in lengths.items():
            assert length / lengths["head"] == pytest.approx(
                LENGTHS[part] / LENGTHS["head"], rel=1e-3
            )


def test_the_figure_is_seen_from_the_front(composed: list[FigureScene]) -> None:
    """Turned upright, its right shoulder and hip are on the image's left, so shape tells sides."""
    for scene in composed:
        up = scene.points[NECK] - (scene.points[AT["left_hip"]] + scene.points[AT["right_hip"]]) / 2
        to_the_image_right = np.array([-up[1], up[0]])
        for part in ("shoulder", "hip"):
            across = scene.points[AT[f"left_{part}"]] - scene.points[AT[f"right_{part}"]]
            assert across @ to_the_image_right > 0


def test_every_joint_is_inside_and_most_are_in_plain_sight(composed: list[FigureScene]) -> None:
    """A digit covers some joints; none lies beyond the border."""
    seen = np.concatenate([scene.visibility for scene in composed])
    assert set(seen.tolist()) == {HIDDEN, VISIBLE}
    assert (seen == VISIBLE).mean() > 0.9
    points = np.concatenate([scene.points for scene in composed])
    assert points.min() >= 0.5
    assert points.max() <= SIZE - 0.5


def test_kinds_are_rare_in_the_pool_and_equally_frequent_in_a_test_set() -> None:
    """Their shares are those that are stated, and a figure is turned as its kind says."""
    assert sum(kind.share for kind in KINDS) == pytest.approx(1)
    held_out = figure_scenes(40, size=SIZE, held_out=True)
    assert Counter(scene.kind for scene in held_out) == dict.fromkeys(KINDS, 10)
    pool = figure_scenes(400, size=SIZE)
    for kind, number in Counter(scene.kind for scene in pool).items():
        assert abs(number - 400 * kind.share) < 4 * (400 * kind.share * (1 - kind.share)) ** 0.5
    for scene in pool[:100]:
        hips = (scene.points[AT["left_hip"]] + scene.points[AT["right_hip"]]) / 2
        right, down = scene.points[NECK] - hips
        turn = abs(np.rad2deg(np.arctan2(right, -down)))
        assert abs(turn - scene.kind.turn) <= DEGREES["body"] + DEGREES["torso"] + 1


def test_joints_lie_on_the_limbs_that_are_drawn(composed: list[FigureScene]) -> None:
    """A limb has one color from joint to joint, unlike the ground beside it."""
    for scene in (each for each in composed if (each.visibility == VISIBLE).all()):
        image = scene.image.astype(float)

        def color(at: np.ndarray, image: np.ndarray = image) -> np.ndarray:
            x, y = (int(value) for value in at)
            return np.asarray(image[y - 1 : y + 2, x - 1 : x + 2].mean((0, 1)))

        ground = np.median(image[:6].reshape(-1, 3), 0)
        for first, second in SKELETON:
            if HEAD_TOP in (first, second):
                continue  # a digit, with holes
            start, end = scene.points[first], scene.points[second]
            inner = [start + share * (end - start) for share in (0.25, 0.5, 0.75)]
            assert min(np.linalg.norm(color(at) - ground) for at in inner) > 40


def test_too_small() -> None:
    """Scenes too small to hold a figure are refused."""
    with pytest.raises(ValueError, match="at least 32"):
        figure_scene(0, size=16)
