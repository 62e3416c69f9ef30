"""Pictures for Weights & Biases: what has no layer there is drawn."""

from __future__ import annotations

import numpy as np

from experiments.data.labels import Keypoint
from experiments.drawing.views import figure_view
from experiments.runs.wandb_content import LEAST_PIXELS, picture

JOINTS = ("left_hand", "right_hand")


def test_figures_are_part_of_the_picture() -> None:
    """The line between two joints is on the image that is logged, which is large enough for it."""
    white = np.full((40, 80, 3), 255, np.uint8)
    found = (Keypoint("left_hand", 10, 20), Keypoint("right_hand", 70, 20))
    panel = figure_view(white, found, JOINTS, ((0, 1),))
    logged = np.asarray(picture(panel, panel.caption).image.convert("RGB"))
    height, width = logged.shape[:2]
    assert width >= LEAST_PIXELS
    middle = logged[height // 2 - 3 : height // 2 + 3, width // 4 : 3 * width // 4]
    assert (middle < 128).any(2).any(0).all()
    assert (logged[: height // 4] == 255).all()
    assert (white == 255).all()
