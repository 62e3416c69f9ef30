"""experiments.drawing.rendering and views: sizes, tiles, headings, legends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from experiments.data.labels import NO_CLASS, Box, Label
from experiments.data.palette import distinct_palette
from experiments.drawing.panel import Key, Panel, Tile
from experiments.drawing.rendering import FULL, THUMBNAIL, Form, jpeg, render, scaled, webp
from experiments.drawing.views import box_view, class_view, label_view, mask_view

NAMES = ("sky", "road", "tree")
COLORS = distinct_palette(3)
RNG = np.random.default_rng(0)


def photo(height: int = 180, width: int = 240) -> np.ndarray:
    """Return a gray picture, which has none of the colors of classes."""
    gray = RNG.integers(60, 200, (height, width, 1), np.uint8)
    return np.repeat(gray, 3, axis=2)


def has(image: np.ndarray, color: tuple[int, int, int]) -> bool:
    """Return whether at least a few pixels have exactly this color."""
    return int((image == color).all(2).sum()) > 20


@pytest.mark.parametrize("form", [THUMBNAIL, FULL])
@pytest.mark.parametrize(
    "size", [(28, 28), (32, 32), (90, 110), (107, 80), (200, 300), (480, 640), (2000, 3000)]
)
def test_panels_are_large_enough_to_be_seen(form: Form, size: tuple[int, int]) -> None:
    """A thumbnail has 240 pixels or more, a full picture 640 to 1280, in the same proportions."""
    image = render(class_view(photo(*size), [("cat", 0.9)]), form)
    longer = max(image.shape[:2])
    low, high = (240, 360) if form is THUMBNAIL else (640, 1280)
    assert low <= longer <= high
    assert image.shape[0] / image.shape[1] == pytest.approx(size[0] / size[1], rel=0.02)


def test_small_images_are_magnified_sharply() -> None:
    """Each pixel of a 32-pixel image becomes a square of one color."""
    image = photo(32, 32)
    large = scaled(image, 240, 320)
    assert large.shape == (256, 256, 3)
    assert np.array_equal(large, image.repeat(8, 0).repeat(8, 1))


def test_boxes_have_class_colors_and_a_legend() -> None:
    """The legend has the color of every class present, and both kinds of lines with the truth."""
    predicted = [Box("RBC", (10, 40, 40, 70), score=0.9), Box("WBC", (60, 40, 90, 70), score=0.6)]
    names = ("Platelets", "RBC", "WBC")
    colors = distinct_palette(3)
    alone = box_view(photo(), predicted, names)
    assert [key.name for key in alone.legend] == ["RBC", "WBC", "predicted"]
    both = box_view(photo(), predicted, names, truth=[Box("Platelets", (100, 10, 110, 20))])
    assert [key.name for key in both.legend] == [*names, "predicted", "annotated"]
    assert [key.line for key in both.legend[3:]] == ["solid", "dashed"]
    assert [mark.dashed for mark in both.tiles[0].marks] == [True, False, False]
    assert both.tiles[0].marks[0].text == "Platelets missed"
    assert both.tiles[0].marks[1].text == "RBC 90% false"
    for form in (THUMBNAIL, FULL):
        image = render(both, form)
        strip = image[-(image.shape[0] - image.shape[1] * 3 // 4) :]
        assert len(strip) >= form.text
        assert all(has(strip, color) for color in colors)


def test_one_class_needs_no_name_at_every_box() -> None:
    """With a single class the plates have the scores alone, and the legend the name."""
    panel = box_view(photo(), [Box("nucleus", (10, 40, 40, 70), score=0.9)], ("nucleus",))
    assert panel.tiles[0].marks[0].text == "90%"
    assert panel.legend[0].name == "nucleus"


def test_matched_objects_have_one_plate() -> None:
    """An annotated object that was found has a dashed box and no text of its own."""
    panel = box_view(
        photo(),
        [Box("a", (10, 40, 40, 70), score=0.9)],
        ("a", "b"),
        truth=[Box("a", (10, 40, 40, 70))],
    )
    assert [mark.text for mark in panel.tiles[0].marks] == ["", "a 90%"]
    assert panel.caption == "annotated 1 a; none missed, none false"


def masks() -> tuple[np.ndarray, np.ndarray]:
    """Return a predicted and an annotated mask; a column of the latter has no class."""
    predicted = np.zeros((180, 240), np.uint8)
    predicted[90:] = 1
    true = predicted.copy()
    true[:, 0] = NO_CLASS
    return predicted, true


def test_tiles_are_named_and_the_map_has_a_scale() -> None:
    """Image, uncertainty, prediction, annotation; the scale ends at the largest entropy."""
    predicted, true = masks()
    entropy = np.full((180, 240), 0.5, np.float32)
    panel = mask_view(photo(), predicted, NAMES, COLORS, entropy=entropy, truth=true)
    named = [(tile.name, tile.scale) for tile in panel.tiles]
    assert named == [
        ("image", ""), ("uncertainty", "1.10 nats"), ("prediction", ""), ("annotation", ""),
    ]  # fmt: skip
    assert [key.name for key in panel.legend] == ["sky", "road", "no class"]
    full = render(panel, FULL)
    assert has(full, COLORS[0])
    assert has(full, COLORS[1])
    heading = full[: FULL.text + 8]
    ramp = heading[:, full.shape[1] // 2 :].reshape(-1, 3).astype(int)
    assert (ramp[:, 0] - ramp[:, 2] > 150).sum() > 20  # the orange of the color bar
    tile = 480
    assert full.shape[1] == 2 * tile + 2 * FULL.line
    assert render(panel, THUMBNAIL).shape[1] == 2 * 240 + 2


def test_an_image_without_annotation_shows_none() -> None:
    """There is no tile for a mask that nobody made; the legend has its place."""
    predicted, _ = masks()
    entropy = np.full((180, 240), 0.5, np.float32)
    panel = mask_view(photo(), predicted, NAMES, COLORS, entropy=entropy)
    assert [tile.name for tile in panel.tiles] == ["image", "uncertainty", "prediction"]
    image = render(panel, THUMBNAIL)
    tile_height = 180 + THUMBNAIL.text + 8
    assert image.shape[:2] == (2 * tile_height + 2, 2 * 240 + 2)
    corner = image[tile_height + 2 :, 242:]
    assert has(corner, COLORS[0])
    assert has(corner, COLORS[1])


@pytest.mark.parametrize(
    ("size", "form", "expected"),
    [
        ((180, 240), THUMBNAIL, (1, 2)),
        ((240, 180), THUMBNAIL, (2, 1)),
        ((180, 240), FULL, (2, 1)),
    ],
)
def test_two_tiles_are_laid_out_for_their_place(
    size: tuple[int, int], form: Form, expected: tuple[int, int]
) -> None:
    """Wide ones are stacked in a thumbnail, and side by side where there is a screen for them."""
    columns, rows = expected
    one = scaled(photo(*size), *form.several).shape
    panel = Panel((Tile("image", photo(*size)), Tile("prediction", photo(*size))), "")
    image = render(panel, form)
    assert image.shape[1] == columns * one[1] + (columns - 1) * 2 * form.line
    assert image.shape[0] >= rows * one[0]


def test_long_legends_wrap() -> None:
    """Every entry is drawn, in as many rows as are needed."""
    colors = distinct_palette(19)
    keys = tuple(Key(f"a class of number {k}", color) for k, color in enumerate(colors))
    image = render(Panel((Tile("image", photo()),), "", keys), THUMBNAIL)
    assert all(has(image, color) for color in colors)


def test_outlines_are_drawn_in_every_tile() -> None:
    """Chosen regions are seen on the image as well as on the prediction."""
    regions = np.full((180, 240), -1, np.int32)
    regions[40:80, 40:80] = 7
    tiles = (Tile("image", photo()), Tile("prediction", photo()))
    bare = render(Panel(tiles, ""), FULL)
    outlined = render(Panel(tiles, "", outlined=regions), FULL)
    changed = (bare != outlined).any(2)
    assert changed[:, :480].any()
    assert changed[:, 484:].any()


def test_drafts_of_every_kind_can_be_drawn() -> None:
    """A class, boxes and a mask each have a panel and a caption; without a draft it is empty."""
    predicted, _ = masks()
    for label, caption in (
        (None, ""),
        (Label(class_name="sky", score=0.7), "predicted sky 70%"),
        (Label(boxes=(Box("road", (1, 1, 50, 50), score=0.8),)), "predicted 1 road"),
        (Label(mask=predicted), "predicted sky 50%, road 50%"),
    ):
        panel = label_view(photo(), label, NAMES)
        assert panel.caption == caption
        assert max(render(panel, THUMBNAIL).shape) >= 240


def test_pictures_keep_their_colors() -> None:
    """A thin red line is still red in a JPEG; WebP is a valid picture of the same size."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[32] = (255, 0, 0)
    blue, green, red = cv2.imdecode(np.frombuffer(jpeg(image), np.uint8), 1)[32].mean(0)
    assert red > 225
    assert max(blue, green) < 40
    assert cv2.imdecode(np.frombuffer(webp(image), np.uint8), 1).shape == (64, 64, 3)
