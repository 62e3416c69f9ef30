"""Masks in every code that tools have for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from experiments.data.labels import NO_CLASS, Patch, Rules, UnusableFile
from experiments.handoff import regions
from experiments.handoff.masks import read_labelmap, read_png
from experiments.handoff.regions import (
    from_brush,
    from_coco_string,
    from_column_runs,
    from_runs,
    runs_of,
    to_brush,
)
from tests.experiments.handoff.items import rules

REGIONS = arrays.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def on_image(patch: Patch, size: tuple[int, int]) -> np.ndarray:
    """Return a patch on its image."""
    region = np.zeros(size, bool)
    height, width = patch.covered.shape
    region[patch.top : patch.top + height, patch.left : patch.left + width] = patch.covered
    return region


def from_polygons(polygons: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """Return the region of polygons on its image."""
    patch = regions.from_polygons(polygons, size)
    assert patch.covered.size <= regions.polygons_area(polygons, size) or len(polygons) > 1
    return on_image(patch, size)


@given(REGIONS)
def test_regions_survive_their_codes(region: np.ndarray) -> None:
    """Run lengths and brush strokes give back every region."""
    assert np.array_equal(from_runs(runs_of(region.ravel()), region.size), region.ravel())
    assert np.array_equal(from_brush(to_brush(region), region.shape), region)
    columns = from_column_runs(runs_of(region.T.ravel()), region.shape)
    assert np.array_equal(on_image(columns, region.shape), region)


def test_long_runs_survive() -> None:
    """A run longer than the packing's longest is cut in several."""
    region = np.zeros((300, 400), bool)
    region[100:] = True
    assert np.array_equal(from_brush(to_brush(region), (300, 400)), region)


@given(REGIONS)
def test_coco_strings_are_those_of_pycocotools(region: np.ndarray) -> None:
    """The compressed run lengths of COCO's own library are read."""
    mask = pytest.importorskip("pycocotools.mask")
    packed = mask.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
    assert from_coco_string(packed) == runs_of(region.T.ravel())


def test_polygons_cover_the_pixels_whose_middles_are_inside() -> None:
    """Along the edges of pixels exactly; a slope and a hole by their middles; parts together."""
    square = np.zeros((6, 8), bool)
    square[1:4, 2:6] = True
    assert np.array_equal(from_polygons([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8)), square)
    parts = from_polygons([[2, 1, 6, 1, 6, 4, 2, 4], [-9, 5, 99, 5, 99, 9, -9, 9]], (6, 8))
    square[5] = True
    assert np.array_equal(parts, square)
    rng = np.random.default_rng(0)
    for _ in range(20):
        (ax, ay), (bx, by), (cx, cy) = corners = rng.uniform(-2, 12, (3, 2))
        inside = np.zeros((9, 11), bool)
        for y in range(9):
            for x in range(11):
                sides = [
                    (q[0] - p[0]) * (y + 0.5 - p[1]) - (q[1] - p[1]) * (x + 0.5 - p[0])
                    for p, q in (((ax, ay), (bx, by)), ((bx, by), (cx, cy)), ((cx, cy), (ax, ay)))
                ]
                inside[y, x] = min(sides) > 0 or max(sides) < 0
        assert np.array_equal(from_polygons([corners.ravel().tolist()], (9, 11)), inside)
    with pytest.raises(UnusableFile):
        from_polygons([[1, 2, 3, 4]], (9, 9))


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:3],
        lambda packed: packed[:-3],
        lambda packed: [],
        lambda packed: [0, 0, 0, 9, *packed[4:]],
    ],
)
def test_a_damaged_brush_stroke_is_refused(damage) -> None:
    """Cut short, empty, of text or of another size: one line, no wrong mask."""
    region = np.arange(35).reshape(5, 7) % 3 == 0
    with pytest.raises(UnusableFile):
        from_brush(damage(to_brush(region)), (5, 7))


def labelmap(colors: Mapping[str, tuple[int, int, int]]) -> str:
    """Lines as CVAT writes them."""
    lines = [f"{name}:{r},{g},{b}::" for name, (r, g, b) in colors.items()]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def test_masks_in_color_need_a_map(tmp_path: Path) -> None:
    """CVAT's colors are read through its labelmap.txt; a color that is not in it is refused."""
    from PIL import Image

    colors = {
        "background": (0, 0, 0),
        **{n: (9, 9, k) for k, n in enumerate(rules("x").class_names)},
    }
    path = tmp_path / "labelmap.txt"
    path.write_text(labelmap(colors), encoding="utf-8")
    picture = np.zeros((4, 5, 3), np.uint8)
    picture[1:3, 1:4] = (9, 9, 2)
    Image.fromarray(picture).save(tmp_path / "mask.png")
    data = (tmp_path / "mask.png").read_bytes()
    the_rules = Rules(
        "segmentation", rules("x").class_names, colors=read_labelmap(path.read_bytes())
    )
    mask = read_png(data, the_rules)
    assert (mask[1:3, 1:4] == 2).all()
    assert (mask == NO_CLASS).sum() == 20 - 6
    with pytest.raises(UnusableFile, match="labelmap"):
        read_png(data, rules("segmentation"))
    picture[0, 0] = (1, 2, 3)
    Image.fromarray(picture).save(tmp_path / "mask.png")
    with pytest.raises(UnusableFile, match=r"\(1, 2, 3\)"):
        read_png((tmp_path / "mask.png").read_bytes(), the_rules)
