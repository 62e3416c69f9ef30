"""experiments.drawing.masks: tints by class, borders, names, outlines and maps of a quantity."""

from __future__ import annotations

import numpy as np

from experiments.data.labels import NO_CLASS
from experiments.drawing.masks import (
    draw_classes,
    draw_outlines,
    heat_map,
    name_classes,
    tinted_classes,
)

COLORS = ((0, 114, 178), (230, 159, 0), (0, 158, 115))


def halves() -> np.ndarray:
    """Return a mask of class 0 on the left and class 1 on the right."""
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 10:] = 1
    return mask


def test_classes_tint_the_image_and_have_opaque_borders() -> None:
    """Inside a class the image shines through, and at its border the color is the class's own."""
    image = np.full((60, 60, 3), 100, np.uint8)
    draw_classes(image, halves(), COLORS, [True] * 3, line=2)
    assert image[30, 10].tolist() == [50, 107, 139]
    assert image[30, 28].tolist() == list(COLORS[0])
    assert image[30, 31].tolist() == list(COLORS[1])


def test_background_is_left_as_it_is() -> None:
    """Neither a class named background nor a black one is tinted or has a border."""
    assert tinted_classes(["background", "a", "ground"], [*COLORS[:2], (0, 0, 0)]) == [
        False, True, False,
    ]  # fmt: skip
    image = np.full((60, 60, 3), 100, np.uint8)
    draw_classes(image, halves(), COLORS, [False, True, True], line=1)
    assert (image[:, :30] == 100).all()


def test_pixels_without_a_class_are_hatched() -> None:
    """They are gray whatever the image shows, in stripes that no class has."""
    image = np.zeros((40, 40, 3), np.uint8)
    draw_classes(image, np.full((40, 40), NO_CLASS, np.uint8), COLORS, [True] * 3, line=1)
    assert len(np.unique(image)) == 2
    assert (image == image[..., :1]).all()
    assert image.min() > 60


def test_names_stand_on_areas_that_hold_them() -> None:
    """A wide area has its name on a plate of its color; one that is too narrow has none."""
    mask = halves()
    mask[:, 18:] = 2
    image = np.zeros((200, 200, 3), np.uint8)
    name_classes(image, mask, ["sky", "tree", "sign"], COLORS, [True] * 3, text=12)
    assert (image[:, :100] == COLORS[0]).all(2).sum() > 100
    assert (image[:, 100:180] == COLORS[1]).all(2).sum() > 100
    assert not image[:, 180:].any()


def test_outlines_follow_the_regions_at_any_size() -> None:
    """Borders of regions are light with a dark casing; far from them nothing is drawn."""
    regions = np.full((10, 10), -1, np.int32)
    regions[2:8, 2:8] = 5
    image = np.full((100, 100, 3), 128, np.uint8)
    draw_outlines(image, regions, line=1)
    assert image[50, 20].min() > 200
    assert image[50, 21].max() < 60
    assert (image[40:60, 40:60] == 128).all()


def test_two_regions_beside_each_other_are_told_apart() -> None:
    """There is a border between regions of different numbers, none within one number."""
    regions = np.full((10, 10), 3, np.int32)
    regions[:, 5:] = 4
    image = np.full((100, 100, 3), 128, np.uint8)
    draw_outlines(image, regions, line=1)
    assert image[50, 50].min() > 200
    assert (image[:, :40] == 128).all()


def test_heat_is_black_at_zero_and_bright_at_the_top() -> None:
    """Brightness grows with the value, and values beyond the top have the top's color."""
    values = np.array([[0.0, 0.5, 1.0, 2.0]], np.float32)
    image = heat_map(values, 1.0)
    assert image.shape == (1, 4, 3)
    assert image[0, 0].max() <= 4  # the map begins at (0, 0, 4)
    assert np.all(np.diff(image[0, :3].astype(int).sum(1)) > 100)
    assert (image[0, 3] == image[0, 2]).all()
