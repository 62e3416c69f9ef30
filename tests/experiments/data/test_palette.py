"""experiments.data.palette: classes have colors that every color vision tells apart."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.data.palette import deuteranopia, distinct_palette, lab


def smallest_distance(colors: np.ndarray) -> float:
    """Return the smallest distance between two of the colors in CIELAB."""
    places = lab(colors)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    return float(distances[~np.eye(len(places), dtype=bool)].min())


@pytest.mark.parametrize(("num_classes", "least"), [(2, 100), (3, 50), (7, 15), (19, 15)])
def test_colors_differ_for_everybody(num_classes: int, least: float) -> None:
    """With normal vision and with deuteranopia any two differ clearly; 2.3 is just noticeable."""
    colors = np.array(distinct_palette(num_classes))
    assert smallest_distance(colors) >= least
    assert smallest_distance(deuteranopia(colors)) >= least


def test_red_and_green_are_confused_with_deuteranopia() -> None:
    """The simulation does what it is for: a red and a green of equal brightness become alike."""
    pair = np.array([[200, 60, 40], [128, 118, 40]])
    assert smallest_distance(deuteranopia(pair)) < 0.4 * smallest_distance(pair)


def test_grays_stay_as_they_are() -> None:
    """Deuteranopia changes no gray, and lightness runs from 0 to 100."""
    grays = np.array([[0, 0, 0], [128, 128, 128], [255, 255, 255]])
    assert np.allclose(deuteranopia(grays), grays, atol=1)
    assert lab(grays)[:, 0] == pytest.approx([0, 53.6, 100], abs=0.1)


def test_there_are_colors_for_as_many_classes_as_a_mask_holds() -> None:
    """255 distinct colors, and those of a smaller set are the first of a larger one."""
    assert len(set(distinct_palette(255))) == 255
    assert distinct_palette(255)[:9] == distinct_palette(9)
