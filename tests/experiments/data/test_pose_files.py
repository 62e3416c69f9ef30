"""Keypoints of COCO, MPII, LSP and DeepLabCut: what is read, and what is refused."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from al_core.errors import InvalidSetting
from experiments.data.coco_keypoints import COCO_JOINTS, COCO_SIGMAS, coco_keypoints
from experiments.data.deeplabcut import deeplabcut, read_collected
from experiments.data.figure_files import CroppedPictures
from experiments.data.labels import HIDDEN, MISSING, VISIBLE, Problem, UnusableFile
from experiments.data.lsp import lsp
from experiments.data.mpii import mpii
from experiments.data.pose import PoseEstimation
from tests.experiments.data.pose_trees import (
    JOINTS,
    figure,
    person,
    write_coco,
    write_collected,
    write_image,
)

PATHS = {
    "train_annotations": "train.json", "train_images": "train",
    "test_annotations": "test.json", "test_images": "test",
}  # fmt: skip


def read_coco(root: Path, **more: Any) -> PoseEstimation:
    """Read what `write_coco` has written."""
    return coco_keypoints(root, **{**PATHS, **more})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two figures in one image and one in another to choose from, and one to test with."""
    write_coco(tmp_path, "train", [figure(0, 1), figure(0, 2, x=50), figure(1, 3, y=25)])
    write_coco(tmp_path, "test", [figure(0, 1)], num_images=1)
    return tmp_path


# ---- COCO


def test_a_sample_of_coco_is_a_figure(root: Path) -> None:
    """Each figure is cut out by its box with a margin, and its joints are where they were."""
    data = read_coco(root)
    assert data.class_names == JOINTS
    assert data.skeleton == ((0, 1), (0, 2))
    assert list(data.train.names) == ["0.jpg#0", "0.jpg#1", "1.jpg#0"]
    assert data.train.paths is None
    # x 20..40 and y 10..40, with an eighth of the sides around it.
    assert data.train.size(0) == (44 - 6, 43 - 17)
    first = data.train_figures[0]
    assert first.points.tolist() == [[30 - 17, 12 - 6], [38 - 17, 30 - 6], [22 - 17, 30 - 6]]
    assert first.visibility.tolist() == [VISIBLE, HIDDEN, VISIBLE]
    assert first.area == 400
    assert math.isnan(first.head)
    whole = data.train.pictures.picture(0)  # type: ignore[attr-defined]
    assert np.array_equal(data.train.picture(0), whole[6:44, 17:43])


def test_cocos_own_joints_have_its_sigmas(tmp_path: Path) -> None:
    """Its seventeen joints are measured with the published spreads, others with one for all."""
    names = [{"id": 1, "name": "person", "keypoints": list(COCO_JOINTS)}]
    keypoints = [value for k in range(17) for value in (20 + k, 20 + k, 2)]
    for part in ("train", "test"):
        write_coco(tmp_path, part, [figure(0, 1, keypoints=keypoints)], categories=names)
    assert read_coco(tmp_path).sigmas == COCO_SIGMAS


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (figure(1, 9, keypoints=[1, 2, 2]), "keypoints must be x, y and 0, 1 or 2 for each of 3"),
        (figure(1, 9, keypoints=[1, 2, 3] * 3), "keypoints must be x, y and 0, 1 or 2"),
        (figure(1, 9, keypoints="none"), "keypoints must be"),
        (figure(1, 9, bbox=[1, 2, 3]), r"bbox must be \[x, y, width, height\]"),
        (figure(7, 9), "of images that the file does not list"),
    ],
)
def test_a_faulty_entry_of_coco_is_named_and_left_out(
    root: Path, faulty: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the file counts."""
    write_coco(root, "train", [figure(0, 1), faulty])
    with caplog.at_level(logging.WARNING):
        data = read_coco(root)
    assert list(data.train.names) == ["0.jpg#0"]
    assert "1 entry left out" in caplog.text
    assert re.search(message, caplog.text)


def test_figures_without_joints_and_crowds_are_left_out(root: Path) -> None:
    """There is nothing to learn or to measure in them."""
    crowd, none = figure(1, 8, iscrowd=1), figure(1, 9, keypoints=[0] * 9, num_keypoints=0)
    write_coco(root, "train", [figure(0, 1), crowd, none])
    assert list(read_coco(root).train.names) == ["0.jpg#0"]


def test_joints_outside_the_image_are_missing(root: Path) -> None:
    """A joint beyond the border cannot be learned; one beyond the box but in the image can."""
    far = figure(0, 1, keypoints=[30, 12, 2, 500, 20, 2, -3, 20, 1])
    write_coco(root, "train", [far])
    assert read_coco(root).train_figures[0].visibility.tolist() == [VISIBLE, MISSING, MISSING]


def test_unusable_images_of_figures_are_named(root: Path) -> None:
    """A missing file, one of another size, and a box outside take all their figures along."""
    os.remove(root / "train" / "0.jpg")
    write_coco(root, "test", [figure(0, 1), figure(1, 2, x=200)], num_images=2)
    data = read_coco(root)
    assert sorted(data.train.unreadable) == [0, 1]
    assert data.train.size(0) == (0, 0)
    assert data.test.unreadable == {1: "the box of its figure lies outside the image"}
    write_image(root / "train" / "1.jpg", width=33)
    with pytest.raises(InvalidSetting, match="3 of 3 images cannot be used"):
        read_coco(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_annotations": "none.json"}, r"data\.train_annotations: .* is not there"),
        ({"train_annotations": 3}, r"data\.train_annotations must be a path"),
        ({"test_annotations": "train.json", "test_images": "train"}, "both in the pool and in"),
        ({"category": "fish"}, r"data\.category must be one of bird, it is 'fish'"),
        ({"flip": 1}, r"data\.flip"),
    ],
)
def test_wrong_settings_of_coco_are_named(
    root: Path, changes: dict[str, Any], message: str
) -> None:
    """One line says which setting is wrong, and what there is."""
    with pytest.raises(InvalidSetting, match=message):
        read_coco(root, **changes)


def test_files_without_keypoints_are_refused(root: Path) -> None:
    """Neither a file of boxes, nor other joints to test with, nor broken JSON will do."""
    write_coco(root, "test", [figure(0, 1)], categories=[{"id": 1, "name": "bird"}])
    with pytest.raises(InvalidSetting, match=r"data\.test_annotations: .* no category has key"):
        read_coco(root)
    other = [{"id": 1, "name": "bird", "keypoints": ["a", "b", "c"]}]
    write_coco(root, "test", [figure(0, 1)], categories=other)
    with pytest.raises(InvalidSetting, match=r"joints of test\.json are a, b, c"):
        read_coco(root)
    (root / "test.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidSetting, match="not complete JSON"):
        read_coco(root)


def test_a_link_to_a_device_is_not_read(root: Path) -> None:
    """Files of annotations go through the one door for files from strangers."""
    os.remove(root / "train.json")
    os.symlink("/dev/zero", root / "train.json")
    with pytest.raises(InvalidSetting, match="no regular file"):
        read_coco(root)


# ---- MPII


def write_mpii(root: Path, entries: list[dict[str, Any]]) -> Path:
    """Write a file of MPII's layout with the images that it names."""
    for k, name in enumerate(sorted({each["img_paths"] for each in entries})):
        write_image(root / "images" / name, seed=k)
    (root / "mpii_annotations.json").write_text(json.dumps(entries), encoding="utf-8")
    return root


def test_mpii_is_read_in_its_own_coordinates(tmp_path: Path) -> None:
    """Joints of MATLAB's pixels, covered and missing ones, and the head from neck to top."""
    write_mpii(tmp_path, [person("a.jpg"), person("b.jpg", validation=True)])
    data = mpii(tmp_path)
    assert (len(data.train), len(data.test), len(data.class_names)) == (1, 1, 16)
    assert data.train.names[0] == "a.jpg#0"
    pictures = data.train
    assert isinstance(pictures, CroppedPictures)
    left, top, *_ = pictures.window(0)
    assert (left, top) == (30 - 25, 30 - 25)  # 0.2 x 200 pixels, and an eighth around it
    found = data.train_figures[0]
    assert found.points[3].tolist() == [23 - 0.5 - left, 16 - 0.5 - top]
    assert found.visibility[[0, 3, 6]].tolist() == [MISSING, VISIBLE, HIDDEN]
    assert found.head == pytest.approx(math.hypot(1, 2))


def test_a_faulty_person_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Persons of other sets are ignored; those that cannot be used are in the log."""
    entries = [
        person("a.jpg"), person("b.jpg", validation=True), person("c.jpg", dataset="LEEDS"),
        person("d.jpg", joint_self=[[1, 2, 1]]), person("e.jpg", scale_provided=-1.0),
        person("f.jpg", objpos=None),
    ]  # fmt: skip
    write_mpii(tmp_path, entries)
    with caplog.at_level(logging.WARNING):
        data = mpii(tmp_path)
    assert list(data.train.names) == ["a.jpg#0"]
    assert "3 entries left out" in caplog.text
    for reason in (
        "entry 3: joint_self must have 16",
        "entry 4: scale_provided",
        "entry 5: objpos",
    ):
        assert reason in caplog.text


def test_mpii_needs_both_parts_and_images_of_its_own(tmp_path: Path) -> None:
    """A file without a validation set, or with an image in both parts, is refused."""
    write_mpii(tmp_path, [person("a.jpg")])
    with pytest.raises(InvalidSetting, match="no person with isValidation=1"):
        mpii(tmp_path)
    write_mpii(tmp_path, [person("a.jpg"), person("a.jpg", validation=True)])
    with pytest.raises(InvalidSetting, match="both in the pool and in the test set"):
        mpii(tmp_path)
    (tmp_path / "mpii_annotations.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidSetting, match=r"data\.annotations: .*must be a valid list"):
        mpii(tmp_path)


# ---- LSP


def write_lsp(root: Path, joints: np.ndarray, *, digits: int = 4) -> Path:
    """Write `joints.mat`, and as many images as it is of."""
    for k in range(joints.shape[2]):
        write_image(root / "images" / f"im{k + 1:0{digits}d}.jpg", seed=k)
    savemat(root / "joints.mat", {"joints": joints})
    return root


def some_joints(num_images: int = 4) -> np.ndarray:
    """Return joints (3, 14, n) in the image, of which the second is flagged."""
    joints = np.random.default_rng(0).uniform(5, 55, (3, 14, num_images))
    joints[2] = 0
    joints[2, 1] = 1
    return joints


def test_lsp_is_read_half_by_half(tmp_path: Path) -> None:
    """The first images are the pool; a flagged joint is covered, and counts like others."""
    joints = some_joints()
    data = lsp(write_lsp(tmp_path, joints))
    assert list(data.train.names) == ["im0001.jpg", "im0002.jpg"]
    assert list(data.test.names) == ["im0003.jpg", "im0004.jpg"]
    found = data.test_figures[0]
    np.testing.assert_allclose(found.points, joints[:2, :, 2].T - 0.5, rtol=1e-6)
    assert found.visibility.tolist() == [VISIBLE, HIDDEN, *[VISIBLE] * 12]
    assert found.head == pytest.approx(np.linalg.norm(joints[:2, 12, 2] - joints[:2, 13, 2]))
    assert len(lsp(tmp_path, num_test=1).train) == 3


def test_the_extended_set_marks_missing_joints(tmp_path: Path) -> None:
    """There the array lies otherwise, and a joint with a flag of 0 is missing."""
    joints = some_joints().transpose(1, 0, 2)
    joints[:, 2] = 1
    joints[13, 2] = 0
    found = lsp(write_lsp(tmp_path, joints)).train_figures[0]
    assert found.visibility.tolist() == [VISIBLE] * 13 + [MISSING]
    assert math.isnan(found.head)


@pytest.mark.parametrize(
    "joints", [np.zeros((3, 13, 4)), np.zeros((3, 14)), np.array(["a"]), np.zeros((3, 14, 1))]
)
def test_other_joints_are_refused(tmp_path: Path, joints: np.ndarray) -> None:
    """An array of another form, or of one image, is named with the form that is needed."""
    savemat(tmp_path / "joints.mat", {"joints": joints})
    with pytest.raises(InvalidSetting, match="joints"):
        lsp(tmp_path)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0", b"\x00" * 200])
def test_a_file_that_is_not_matlabs_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever the decoder says of it, one line comes out."""
    (tmp_path / "joints.mat").write_bytes(content)
    with pytest.raises(InvalidSetting, match=r"joints\.mat"):
        lsp(tmp_path)


# ---- DeepLabCut

ROWS = [f"labeled-data/mouse1/img{k}.png,{10 + k},20,30.5,40" for k in range(5)]


def write_project(root: Path) -> Path:
    """Write a project of two videos, of 5 and 3 frames."""
    write_collected(root, "mouse1", ROWS)
    write_collected(root, "mouse2", [f"labeled-data,mouse2,f{k}.png,1,2,," for k in range(3)],
                    head=["scorer,,,me,me,me,me", "bodyparts,,,snout,snout,tail,tail",
                          "coords,,,x,y,x,y"])  # fmt: skip
    for video, names in (("mouse1", "img"), ("mouse2", "f")):
        for k in range(5):
            write_image(root / "labeled-data" / video / f"{names}{k}.png", seed=k)
    return root


def test_a_project_of_deeplabcut_is_read(tmp_path: Path) -> None:
    """Paths are in one column or three, empty cells are missing joints, a fifth is held out."""
    data = deeplabcut(write_project(tmp_path), test_fraction=0.2)
    assert data.class_names == ("snout", "tail")
    assert list(data.test.names) == ["labeled-data/mouse1/img4.png"]
    assert len(data.train) == 7
    first = data.train_figures[0]
    assert first.points.tolist() == [[10.5, 20.5], [31, 40.5]]
    assert data.train_figures[-1].visibility.tolist() == [VISIBLE, MISSING]
    assert not data.flip


def test_whole_videos_can_be_held_out(tmp_path: Path) -> None:
    """Frames of one video are alike, so a video is the better test set."""
    data = deeplabcut(write_project(tmp_path), test_videos=["mouse2"])
    assert {name.split("/")[1] for name in data.train.names} == {"mouse1"}
    assert len(data.test) == 3
    with pytest.raises(InvalidSetting, match=r"'mouse3' is no folder .* mouse1, mouse2"):
        deeplabcut(tmp_path, test_videos=["mouse3"])
    with pytest.raises(InvalidSetting, match="0 frames to choose from"):
        deeplabcut(tmp_path, test_videos=["mouse1", "mouse2"])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("labeled-data/m/a.png,1,2,3", "it has 4 cells, not 5"),
        ("labeled-data/m/a.png,1,2,x,4", "'x' is no number"),
        ("labeled-data/m/..,1,2,3,4", "it names no frame"),
        ("labeled-data/m/,1,2,3,4", "it names no frame"),
        ("labeled-data/m/img0.png,1,2,3,4", "has a row before"),
    ],
)
def test_a_faulty_row_is_named_and_left_out(row: str, reason: str) -> None:
    """The other rows of the file count."""
    head = "scorer,me,me,me,me\nbodyparts,a,a,b,b\ncoords,x,y,x,y\n"
    faults: list[Problem] = []
    text = f"{head}labeled-data/m/img0.png,1,2,3,4\n{row}\n"
    names, records = read_collected(text.encode(), "m", faults)
    assert names == ("a", "b")
    assert [record.name for record in records] == ["labeled-data/m/img0.png"]
    (fault,) = faults
    assert fault.where == "row 5"
    assert reason in fault.why


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "first rows"),
        ("scorer,me\nbodyparts,a\n", "first rows"),
        ("scorer,me,me\nindividuals,m,m\nbodyparts,a,a\ncoords,x,y\n", "several animals"),
        ("scorer,me,me\nbodyparts,a,a\ncoords,y,x\n", "coords must be x and y"),
        ("scorer,me,me\nbodyparts,a,b\ncoords,x,y\n", "coords must be x and y"),
        ("scorer,m,m,m,m\nbodyparts,a,a,a,a\ncoords,x,y,x,y\n", "distinct and printable"),
        ('scorer,"', "no CSV"),
    ],
)
def test_headings_of_another_layout_are_refused(text: str, reason: str) -> None:
    """One line says what is wrong with the file."""
    with pytest.raises(UnusableFile, match=reason):
        read_collected(text.encode(), "m", [])


def test_videos_of_other_body_parts_are_refused(tmp_path: Path) -> None:
    """All videos of a project have the same body parts, and a project has a video."""
    with pytest.raises(InvalidSetting, match="there is no labeled-data"):
        deeplabcut(tmp_path)
    write_project(tmp_path)
    write_collected(tmp_path, "other", [], head=["scorer,me,me", "bodyparts,ear,ear", "coords,x,y"])
    with pytest.raises(InvalidSetting, match=r"body parts of .* are ear, those of"):
        deeplabcut(tmp_path)
