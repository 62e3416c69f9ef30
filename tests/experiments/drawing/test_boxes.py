"""experiments.drawing.boxes: boxes where they belong, readable, never beyond the image."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.drawing.boxes import canvas, outline

RED = (255, 64, 32)


def drawn(box: tuple[float, float, float, float], *texts: str) -> np.ndarray:
    """Where a black image of 100 x 200 shows the color of a box."""
    image = np.zeros((100, 200, 3), np.uint8)
    outline(image, np.array([box], np.float32), RED, texts)
    where: np.ndarray = (image == RED).all(2)
    return where


def test_outline_is_the_box() -> None:
    """The outermost pixels of the box are colored, nothing else."""
    found = drawn((0.1, 0.2, 0.5, 0.9))
    rows, columns = np.nonzero(found)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 20, 100, 90)
    assert not found[21:89, 21:99].any()


@pytest.mark.parametrize(
    "box", [(0.1, 0.5, 0.4, 0.9), (0.0, 0.0, 0.3, 0.5), (0.95, 0.3, 1.0, 0.6), (-0.5, -0.5, 2, 2)]
)
def test_text_is_inside_the_image(box: tuple[float, float, float, float]) -> None:
    """Text stands on a patch of the box's color: above the box, inside it at the upper border."""
    more = drawn(box, "cat 93%").sum() - drawn(box).sum()
    assert more > 100


def test_the_first_box_is_on_top() -> None:
    """Where boxes cross, the one that comes first is seen whole."""
    image = np.zeros((100, 100, 3), np.uint8)
    boxes = np.array([[0.2, 0.2, 0.8, 0.8], [0.2, 0.2, 0.8, 0.8]], np.float32)
    outline(image, boxes, RED, ["a", "bbbbbbbb"])
    alone = np.zeros((100, 100, 3), np.uint8)
    outline(alone, boxes[:1], RED, ["a"])
    changed = (alone != 0).any(2)
    assert np.array_equal(image[changed], alone[changed])


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (240, 320)), ((64, 32), (320, 160)), ((2000, 3), (320, 1))]
)
def test_canvas_keeps_the_proportions(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    """The longer side is 320 pixels, and the picture itself is not drawn on."""
    picture = np.full((*shape, 3), 7, np.uint8)
    image = canvas(picture)
    assert image.shape == (*expected, 3)
    outline(image, np.array([[0, 0, 1, 1]], np.float32), RED)
    assert (picture == 7).all()
