"""The embedded scenes of figures: what they show, and that the annotations lie on it."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.data.labels import HIDDEN, MISSING, VISIBLE
from experiments.data.stick_figures import (
    HEAD_TOP,
    JOINT_NAMES,
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


def test_easy_scenes_show_the_whole_figure(composed: list[FigureScene]) -> None:
    """In easy scenes every joint is in plain sight; hard ones have hidden and missing joints."""
    easy = [scene for scene in composed if not scene.hard]
    hard = [scene for scene in composed if scene.hard]
    assert 10 < len(hard) < 30
    assert all((scene.visibility == VISIBLE).all() for scene in easy)
    seen = np.concatenate([scene.visibility for scene in hard])
    assert set(seen.tolist()) == {MISSING, HIDDEN, VISIBLE}
    assert (seen == VISIBLE).mean() > 0.7
    for scene in hard:
        inside = ((scene.points >= 0) & (scene.points < SIZE)).all(1)
        assert np.array_equal(inside, scene.visibility != MISSING)


def test_joints_lie_on_the_limbs_that_are_drawn(composed: list[FigureScene]) -> None:
    """In easy scenes a limb has one color from joint to joint, unlike the ground beside it."""
    for scene in (each for each in composed if not each.hard):
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
