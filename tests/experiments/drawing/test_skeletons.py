"""Figures on images: lines, dots and errors are where the joints are."""

from __future__ import annotations

import numpy as np

from experiments.data.labels import HIDDEN, VISIBLE, Keypoint, Label
from experiments.drawing.rendering import FULL, render
from experiments.drawing.skeletons import ERROR_COLOR, SIDE_COLORS, Drawn, Gap, Joint, draw_figures
from experiments.drawing.views import figure_view, label_view

NAMES = ("left_hand", "right_hand", "head")
BONES = ((0, 2), (1, 2))
TRUTH = (
    Keypoint("left_hand", 80, 70, VISIBLE),
    Keypoint("right_hand", 20, 70, HIDDEN),
    Keypoint("head", 50, 20, VISIBLE),
)


def blank() -> np.ndarray:
    """Return a white image, on which dark casings and colors are seen."""
    return np.full((100, 100, 3), 255, np.uint8)


def is_near(color: np.ndarray, wanted: tuple[int, int, int]) -> bool:
    """Tell whether a color has the hue of another one; edges of lines are softened with dark."""
    strongest = int(np.argmax(wanted))
    others = np.delete(color.astype(int), strongest)
    return bool(color[strongest] > others.max() + 50)


def test_a_bone_connects_its_joints() -> None:
    """The line runs from joint to joint, in its color; a missing joint has neither line nor dot."""
    red, blue = (200, 0, 0), (0, 0, 200)
    joints = (Joint(0.2, 0.5, red), Joint(0.8, 0.5, red), None, Joint(0.5, 0.9, blue))
    image = blank()
    draw_figures(image, [Drawn(joints, ((0, 1), (1, 2)))], (), line=4)
    for x in (25, 50, 75):
        assert is_near(image[50, x], red) or is_near(image[49, x], red)
    assert is_near(image[90, 50], blue) or is_near(image[89, 49], blue)
    assert (image[70] == 255).all()


def test_dashes_stand_for_annotated() -> None:
    """A dashed line has gaps, a solid one has none, and rings are open in the middle."""
    color = (0, 120, 0)
    joints = (Joint(0.1, 0.5, color), Joint(0.9, 0.5, color))
    solid, dashed = blank(), blank()
    draw_figures(solid, [Drawn(joints, ((0, 1),))], (), line=2)
    draw_figures(dashed, [Drawn(joints, ((0, 1),), dashed=True)], (), line=2)
    drawn = [(image[48:52, 20:80] != 255).any((0, 2)) for image in (solid, dashed)]
    assert drawn[0].all()
    assert 0.3 < drawn[1].mean() < 0.9


def test_a_gap_leads_to_the_annotation() -> None:
    """An error is a line in a color of its own, on top of the figures."""
    image = blank()
    draw_figures(image, (), [Gap((0.2, 0.2), (0.2, 0.8))], line=4)
    assert is_near(image[50, 20], ERROR_COLOR) or is_near(image[50, 19], ERROR_COLOR)


def test_joints_beyond_the_image_do_no_harm() -> None:
    """A figure that is partly outside is drawn as far as it is inside."""
    image = blank()
    joints = (Joint(-0.5, 0.5, (9, 9, 9)), Joint(1.5, 0.5, (9, 9, 9)))
    draw_figures(image, [Drawn(joints, ((0, 1),))], (), line=2)
    assert (image[50] != 255).any(1).all()


def test_wrong_joints_are_counted_and_marked() -> None:
    """A joint beyond the tolerance, or not found at all, is wrong; the caption names it."""
    found = (Keypoint("left_hand", 81, 70, VISIBLE, 0.9), Keypoint("head", 50, 40, VISIBLE, 0.5))
    panel = figure_view(blank(), found, NAMES, BONES, truth=TRUTH, tolerance=5)
    assert panel.caption == "1 of 3 annotated joints right; wrong: right_hand, head"
    (tile,) = panel.tiles
    assert tile.gaps == (Gap((0.5, 0.4), (0.5, 0.2)),)
    annotated, predicted = tile.figures
    assert annotated.dashed
    assert predicted.joints[1] is None
    hidden = annotated.joints[1]
    assert hidden is not None
    assert hidden.hollow
    assert {key.name for key in panel.legend} == {
        "left", "right", "middle", "predicted", "annotated", "too far"
    }  # fmt: skip
    assert render(panel, FULL).shape[1] == 700


def test_sides_have_colors() -> None:
    """Left, right and middle joints differ in color; without annotation the weakest is named."""
    found = tuple(each._replace(score=0.5 + 0.1 * k) for k, each in enumerate(TRUTH))
    panel = figure_view(blank(), found, NAMES, BONES)
    joints = panel.tiles[0].figures[0].joints
    assert [joint.color for joint in joints if joint] == [
        SIDE_COLORS[side] for side in ("left", "right", "")
    ]
    assert panel.caption == "predicted 3 joints; least certain: left_hand 50%"
    assert figure_view(blank(), (), NAMES, BONES).caption == "predicted no joint"


def test_a_draft_is_shown_with_its_skeleton() -> None:
    """A label of keypoints is drawn as a figure."""
    panel = label_view(blank(), Label(keypoints=TRUTH), NAMES, skeleton=BONES)
    assert panel.tiles[0].figures[0].bones == BONES
