"""Keypoints in the formats of annotation tools: covered joints, skeletons, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.data.labels import HIDDEN, VISIBLE, Item, Keypoint, Label, Problem, Rules
from experiments.data.pose import of_keypoints
from experiments.data.untrusted import parse_xml
from experiments.handoff import coco, cvat, label_studio
from experiments.handoff.dataset import write_dataset
from experiments.handoff.export import export

JOINTS = ("nose", "left_hand", "right_hand")
RULES = Rules("pose", JOINTS)
DRAFT = Label(
    keypoints=(Keypoint("nose", 5.5, 6.25, HIDDEN), Keypoint("right_hand", 30, 40.75, VISIBLE))
)
ITEM = Item("a.jpg", Path("a.jpg"), (60, 80), draft=DRAFT)


def read_coco(*annotations: dict[str, Any], rules: Rules = RULES) -> Any:
    """Read a file of COCO with one image of 80 x 60 pixels."""
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 80, "height": 60}],
        "categories": [
            {"id": 1, "name": "bird", "keypoints": ["left_hand", "nose", "right_hand"]},
            {"id": 2, "name": "cannot_label"},
        ],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], **each}
            for k, each in enumerate(annotations)
        ],
    }
    return list(coco.read(content, rules))


def read_cvat(body: str, rules: Rules = RULES) -> Any:
    """Read a file of CVAT with one image."""
    text = f'<annotations><image name="a.jpg" width="80" height="60">{body}</image></annotations>'
    return list(cvat.read(parse_xml(text.encode()), rules))


@pytest.mark.parametrize("form", ["coco", "cvat"])
def test_covered_joints_stay_covered(form: str) -> None:
    """COCO and CVAT say which joints something covers; joints that are missing stay so."""
    if form == "coco":
        (found,) = coco.read(coco.write([ITEM], RULES), RULES)
    else:
        (found,) = cvat.read(parse_xml(cvat.write([ITEM], RULES)), RULES)
    assert not isinstance(found, Problem)
    label = found.label
    assert isinstance(label, Label)
    assert label.keypoints == DRAFT.keypoints
    assert found.size == (60, 80)


def test_coco_gets_what_its_tools_need() -> None:
    """Joints in the order of the category, zeros for missing ones, their number and their box."""
    content = coco.write([ITEM], RULES)
    (category,), (figure,) = content["categories"], content["annotations"]
    assert category["keypoints"] == list(JOINTS)
    assert figure["keypoints"] == [5.5, 6.25, 1, 0, 0, 0, 30, 40.75, 2]
    assert figure["num_keypoints"] == 2
    assert figure["bbox"] == [5.5, 6.25, 24.5, 34.5]


def test_joints_of_coco_are_found_by_name() -> None:
    """The order in the file is its category's, whatever ours is."""
    (found,) = read_coco({"keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]})
    assert found.label.keypoints == (Keypoint("nose", 3, 4, HIDDEN), Keypoint("left_hand", 1, 2))


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([{"keypoints": [1, 2, 2] * 3}, {"keypoints": [1, 2, 2] * 3}], "it has 2 figures"),
        ([{"keypoints": [1, 2, 2]}], "keypoints must be x, y and 0, 1 or 2 for each of 3 joints"),
        ([{}], "keypoints must be"),
    ],
)
def test_what_is_no_figure_is_a_problem(annotations: list[Any], reason: str) -> None:
    """One line says what is wrong with the image."""
    (found,) = read_coco(*annotations)
    assert isinstance(found, Problem)
    assert found.where == "a.jpg"
    assert reason in found.why


def test_joints_of_another_animal_are_a_problem() -> None:
    """A joint that the run does not know is named, with those there are."""
    other = Rules("pose", ("beak", "left_hand"))
    (found,) = read_coco({"keypoints": [1, 2, 2] * 3}, rules=other)
    assert isinstance(found, Problem)
    assert "there is no class 'nose'; there are beak, left_hand" in found.why


def test_refusals_and_images_that_nobody_opened() -> None:
    """The category of refusal refuses; an image without a figure answers only if that was said."""
    (found,) = read_coco({"category_id": 2})
    assert found.label.refused
    assert read_coco() == []
    assert read_cvat("") == []
    (empty,) = read_coco(rules=Rules("pose", JOINTS, empty_is_answer=True))
    assert empty.label.keypoints == ()


def test_a_skeleton_of_cvat_is_a_figure() -> None:
    """Its points are joints; those outside are missing, and occluded ones covered."""
    (found,) = read_cvat(
        '<skeleton label="bird"><points label="nose" outside="0" occluded="1" points="3.5,4"/>'
        '<points label="left_hand" outside="1" occluded="0" points="9,9"/></skeleton>'
    )
    assert found.label.keypoints == (Keypoint("nose", 3.5, 4, HIDDEN),)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('<points label="nose" points="1,2;3,4"/>', "a joint needs one point x,y"),
        ('<points label="nose" points="1,x"/>', "points must be a number"),
        ('<points label="nose" points="1,2"/>' * 2, "nose is there twice"),
        ('<skeleton label="a"/><skeleton label="b"/>', "it has 2 figures"),
        ('<skeleton label="a"/><points label="nose" points="1,2"/>', "both a skeleton and points"),
        ('<points label="ear" points="1,2"/>', "there is no class 'ear'"),
    ],
)
def test_points_of_cvat_that_are_no_figure_are_a_problem(body: str, reason: str) -> None:
    """One line says what is wrong with the image."""
    (found,) = read_cvat(body)
    assert isinstance(found, Problem)
    assert reason in found.why


def test_label_studio_has_a_control_for_keypoints() -> None:
    """The interface has a label a joint, and drafts are percent of the image's sides."""
    assert label_studio.interface(RULES).count("<Label value=") == 3
    assert "<KeyPointLabels" in label_studio.interface(RULES)
    (task,) = label_studio.write([ITEM], RULES, image_url="http://x/{name}")
    first, second = task["predictions"][0]["result"]
    assert first["type"] == "keypointlabels"
    assert (first["value"]["x"], first["value"]["y"]) == (100 * 5.5 / 80, 100 * 6.25 / 60)
    assert second["value"]["keypointlabels"] == ["right_hand"]


def test_a_task_without_joints_is_an_answer_in_label_studio() -> None:
    """An annotation that was submitted empty says that no joint is seen; a skipped one refuses."""
    tasks = [
        {"data": {"name": "a.jpg"}, "annotations": [{"result": []}]},
        {"data": {"name": "b.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]},
    ]
    empty, skipped = label_studio.read(tasks, RULES)
    assert not isinstance(empty, Problem)
    assert not isinstance(skipped, Problem)
    assert isinstance(empty.label, Label)
    assert isinstance(skipped.label, Label)
    assert empty.label.keypoints == ()
    assert skipped.label.refused


def test_labels_of_figures_become_a_data_set(tmp_path: Path) -> None:
    """As COCO a part, or as the folder that a run takes back."""
    write_dataset({"train": [ITEM], "test": []}, RULES, "coco", tmp_path)
    content = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    assert content["annotations"][0]["num_keypoints"] == 2
    (tmp_path / "labels").mkdir()
    write_dataset({"train": [ITEM], "test": []}, RULES, "labels", tmp_path / "labels")
    assert (tmp_path / "labels" / "coco.json").exists()
    assert (tmp_path / "labels" / "splits.csv").exists()


def test_formats_that_hold_no_keypoints_are_refused(tmp_path: Path) -> None:
    """VOC, masks and YOLO are of other tasks, and the message lists those that fit."""
    for form in ("voc", "masks", "yolo"):
        with pytest.raises(Exception, match="for pose there are superannotate, label_studio, cvat"):
            export([ITEM], RULES, form, tmp_path, image_url="http://x/{name}")


def test_a_label_becomes_a_figure() -> None:
    """Joints take their places, and those that were not set are missing."""
    figure = of_keypoints(DRAFT.keypoints or (), JOINTS)
    assert figure.visibility.tolist() == [HIDDEN, 0, VISIBLE]
    assert figure.points[[0, 2]].tolist() == [[5.5, 6.25], [30, 40.75]]
