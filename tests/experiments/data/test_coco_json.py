"""COCO's JSON: a faulty entry is named and left out, and the rest counts."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.data.coco_json import read_coco
from experiments.data.labels import Found, Problem, Rules, UnusableFile
from experiments.handoff import coco


def content(*annotations: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """Return a file of two images and two categories."""
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 40, "width": 60} for k in (1, 2)]
    categories = [{"id": 5, "name": "cat"}, {"id": 3, "name": "dog"}]
    return {"images": images, "categories": categories, "annotations": [*annotations], **parts}


GOOD = {"id": 70, "image_id": 1, "category_id": 5, "bbox": [1, 2, 10, 20.5]}


def test_boxes_become_corners_and_classes_are_by_id() -> None:
    """Ids may be text; an image may have no size and no object."""
    images = [{"id": 1, "file_name": "a.jpg", "height": 0, "width": None}]
    images.append({"id": 9, "file_name": "b.jpg"})
    file = read_coco(content({**GOOD, "image_id": "1", "category_id": "5"}, images=images))
    assert list(file.class_names.items()) == [(3, "dog"), (5, "cat")]
    assert [image.name for image in file.images] == ["a.jpg", "b.jpg"]
    assert [image.size for image in file.images] == [None, None]
    (one,) = file.images[0].annotations
    assert (one.class_name, one.corners, one.is_crowd) == ("cat", (1, 2, 11, 22.5), False)
    assert file.problems == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"bbox": None}, "annotation 71: bbox must be [x, y, width, height], it is None"),
        ({"bbox": [1, 2, 3]}, "annotation 71: bbox must be"),
        ({"bbox": [1, 2, 3, "4"]}, "annotation 71: bbox must be"),
        ({"bbox": [1, 2, 3, 10**400]}, "annotation 71: bbox must be"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 71: bbox must be"),
        ({"category_id": 8}, "annotation 71: there is no category 8"),
        ({"category_id": None}, "annotation 71: category_id"),
        ({"iscrowd": "many"}, "annotation 71: iscrowd must be a valid boolean"),
    ],
)
def test_a_faulty_annotation_is_named_and_its_image_alone_is_not_used(
    change: dict[str, Any], says: str
) -> None:
    """As an answer of people an image without one of its objects would be wrong."""
    both = [{**GOOD, "id": 71, **change}, {**GOOD, "image_id": 2}]
    found = list(coco.read(content(*both), Rules("detection", ("cat", "dog"))))
    (problem,) = [one for one in found if isinstance(one, Problem)]
    assert problem.where == "1.jpg"
    assert problem.why.startswith(says)
    (label,) = [one for one in found if isinstance(one, Found)]
    assert label.names == ("2.jpg",)


def test_entries_of_no_image_are_counted_and_named() -> None:
    """Orphans, entries without an id, and a second image of an id."""
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 1, "file_name": "2.jpg"}, {"id": 4}]
    categories = [{"id": 5, "name": "cat"}, {"name": "dog"}, {"id": 5, "name": "cow"}]
    orphans: list[Any] = [{**GOOD, "image_id": 7}, {**GOOD, "image_id": 8}]
    file = read_coco(content(*orphans, 3, images=images, categories=categories))  # type: ignore[arg-type]
    assert [str(problem) for problem in file.problems] == [
        "category at position 1: id is missing",
        "category 5: its id is that of 'cat' too",
        "image 1: images 1.jpg and 2.jpg have the same id 1",
        "image 4: file_name is missing",
        "annotation at position 2: it must be an object",
        "annotations: 2 of images that the file does not list, the first is annotation 70, of "
        "image 7",
    ]
    assert file.images[0].faults == ["images 1.jpg and 2.jpg have the same id 1"]


def test_an_image_that_is_listed_twice_is_faulty() -> None:
    """Nobody knows which entry has all of its objects."""
    images = [{"id": k, "file_name": "a.jpg"} for k in (1, 2)]
    file = read_coco(content(images=images))
    assert [image.faults for image in file.images] == [["the file lists it 2 times"]] * 2


@pytest.mark.parametrize("wrong", [[], {}, {"images": []}, content(images={}), content(images=3)])
def test_another_format_is_one_line(wrong: object) -> None:
    """The text has the part that is missing or of another type."""
    with pytest.raises(UnusableFile, match="not in COCO's format"):
        read_coco(wrong)
