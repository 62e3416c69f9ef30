"""experiments.drawing.boxes: boxes where they belong, plates that hide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.drawing.boxes import MAX_HIDDEN, Corners, Mark, draw_boxes, plates

BLUE = (0, 114, 178)
SIZE = (300, 400)


def drawn(*marks: Mark, line: int = 1, text: int = 12, max_plates: int = 60) -> np.ndarray:
    """Where a black image of 300 x 400 shows the color of the boxes."""
    image = np.zeros((*SIZE, 3), np.uint8)
    draw_boxes(image, marks, text=text, line=line, max_plates=max_plates)
    where: np.ndarray = (image == BLUE).all(2)
    return where


def plates_of(*boxes: Corners, text: str = "RBC 96%") -> list[Corners | None]:
    """Return the plates of boxes in an image of 300 x 400."""
    marks = [Mark((0.0, 0.0, 0.0, 0.0), BLUE, text)] * len(boxes)
    return plates(boxes, marks, SIZE, 12)


def shared(a: Corners, b: Corners) -> int:
    """Return the pixels that two boxes have in common."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(wide, 0) * max(high, 0)


@pytest.mark.parametrize("line", [1, 2])
def test_the_outermost_pixels_of_a_box_are_colored(line: int) -> None:
    """The outline lies inside the box and is as thick as asked; the inside stays as it is."""
    found = drawn(Mark((0.1, 0.2, 0.5, 0.9), BLUE), line=line)
    rows, columns = np.nonzero(found)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (40, 60, 200, 270)
    assert found[60 : 60 + line, 40:200].all()
    assert not found[60 + line : 270 - line, 40 + line : 200 - line].any()


@pytest.mark.parametrize("line", [1, 2])
def test_annotated_boxes_are_dashed(line: int) -> None:
    """A dashed line has gaps in which nothing is drawn, a solid one has none."""
    solid = drawn(Mark((0.1, 0.2, 0.9, 0.8), BLUE), line=line)[60]
    dashed = drawn(Mark((0.1, 0.2, 0.9, 0.8), BLUE, dashed=True), line=line)[60]
    assert solid[40:360].all()
    assert 0.4 < dashed[40:360].mean() < 0.8
    image = np.zeros((*SIZE, 3), np.uint8)
    draw_boxes(
        image, [Mark((0.1, 0.2, 0.9, 0.8), BLUE, dashed=True)], text=9, line=line, max_plates=0
    )
    assert (image[60, 50:350] == 0).all(1).any()


@pytest.mark.parametrize(
    "box", [(-0.5, -0.5, 2.0, 2.0), (0.99, 0.99, 1.5, 1.5), (0.5, 0.5, 0.5, 0.5)]
)
def test_boxes_may_leave_the_image(box: tuple[float, float, float, float]) -> None:
    """A box beyond the image, or without area, is drawn as far as it is inside."""
    drawn(Mark(box, BLUE, "RBC 96%"), line=2)


def test_a_plate_is_outside_its_box() -> None:
    """Above the box; below it where the image ends above; never on the object."""
    box, at_the_top = (100, 100, 200, 180), (100, 0, 200, 80)
    for each in (box, at_the_top, (0, 100, 60, 299), (340, 0, 400, 300)):
        (plate,) = plates_of(each)
        assert plate is not None
        assert shared(plate, each) == 0
        assert min(plate) >= 0
        assert plate[2] <= SIZE[1]
        assert plate[3] <= SIZE[0]
    (above,), (below,) = plates_of(box), plates_of(at_the_top)
    assert above is not None
    assert below is not None
    assert above[3] == box[1]
    assert below[1] == at_the_top[3]


def test_a_plate_is_inside_only_where_the_image_ends_all_around() -> None:
    """A box over the whole image has its plate in its upper left corner."""
    (plate,) = plates_of((0, 0, 400, 300))
    assert plate is not None
    assert plate[:2] == (0, 0)


def test_plates_hide_neither_objects_nor_one_another() -> None:
    """In a crowd every plate covers little of any box; a box without a good place has none."""
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 260, (30, 2))
    boxes = [(int(x), int(y), int(x) + 40, int(y) + 40) for x, y in corners]
    found = [plate for plate in plates_of(*boxes) if plate is not None]
    assert 0 < len(found) < len(boxes)
    for k, plate in enumerate(found):
        assert all(shared(plate, box) <= MAX_HIDDEN * 40 * 40 for box in boxes)
        assert all(shared(plate, other) == 0 for other in found[:k])


def test_tiny_and_many_boxes_have_no_plates() -> None:
    """A few small boxes have plates; of many, those that are smaller than a plate have none."""
    boxes = [(20 * k, 50 * j, 20 * k + 6, 50 * j + 6) for k in range(5) for j in range(1, 6)]
    assert any(plates_of(*boxes[:3]))
    assert not any(plates_of(*boxes))


def test_beyond_a_number_of_texts_nothing_is_written() -> None:
    """An overview with many boxes shows their colors alone."""
    marks = [Mark((0.2 * k, 0.3, 0.2 * k + 0.1, 0.5), BLUE, "RBC") for k in range(4)]
    bare = drawn(*[mark._replace(text="") for mark in marks])
    assert np.array_equal(drawn(*marks, max_plates=3), bare)
    assert drawn(*marks, max_plates=4).sum() > bare.sum()


def test_the_first_box_is_on_top() -> None:
    """Where lines cross, the box that comes first is seen whole."""
    image = np.zeros((*SIZE, 3), np.uint8)
    marks = [Mark((0.2, 0.2, 0.8, 0.8), BLUE), Mark((0.2, 0.2, 0.8, 0.8), (230, 159, 0))]
    draw_boxes(image, marks, text=12, line=2, max_plates=0)
    assert (image == BLUE).all(2).any()
    assert not (image == (230, 159, 0)).all(2).any()
