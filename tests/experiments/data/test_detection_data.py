"""Images with objects: Pascal VOC's layout, COCO's, and the embedded scenes."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from al_core.errors import InvalidSetting
from experiments.data.coco import coco
from experiments.data.decoding import UnreadableImage
from experiments.data.detection import digit_scenes
from experiments.data.pictures import StretchedSamples
from experiments.data.voc import CLASS_NAMES, voc, voc_folder

CONF = Path(__file__).parents[3] / "conf" / "data"
Object = tuple[str, Sequence[Any], int]


def write_image(path: Path, width: int = 60, height: int = 40, seed: int = 0) -> None:
    """Write an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


def write_voc(root: Path, name: str, objects: Sequence[Object], **size: int) -> None:
    """Write an image and its annotation; corners are 1-based, as in the files."""
    write_image(root / "JPEGImages" / f"{name}.jpg", **size)
    parts = "".join(
        f"<object><name>{kind}</name><difficult>{difficult}</difficult><part><name>head</name>"
        f"<bndbox><xmin>1</xmin></bndbox></part><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox></object>"
        for kind, box, difficult in objects
    )
    file = root / "Annotations" / f"{name}.xml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation><size><width>0</width></size>{parts}</annotation>")


def write_split(root: Path, split: str, names: Sequence[str]) -> None:
    """Write a file of `ImageSets/Main`."""
    file = root / "ImageSets" / "Main" / f"{split}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A VOC tree of two classes with the usual errors."""
    write_voc(
        tmp_path,
        "a",
        [
            ("cat", (1, 1, 60, 40), 0),  # the whole image
            ("dog", (11, 21, 30, 35), 1),
            ("dog", (0, -3, 20, 50), 0),  # beyond the image: clipped
            ("dog", (30, 10, 20, 20), 0),  # the wrong way round
            ("cat", (7, 7, 7, 9), 0),  # a click
            ("cat", (61, 5, 90, 20), 0),  # outside
            ("cat", ("", "x", 9, 9), 0),  # no numbers
        ],
    )
    write_voc(tmp_path, "b", [])
    write_voc(tmp_path, "c", [("dog", (2, 3, 9, 10), 0), ("cow", (2, 3, 9, 10), 0)], width=30)
    write_voc(tmp_path, "d", [("cat", (2, 3, 9, 10), 0)])
    (tmp_path / "JPEGImages" / "d.jpg").write_bytes(b"no image")
    write_voc(tmp_path, "e", [("cat", (2, 3, 9, 10), 0)])
    (tmp_path / "Annotations" / "e.xml").write_text("<annotation>")
    write_voc(tmp_path, "f", [("cat", (2, 3, 9, 10), 0)])
    annotation = tmp_path / "Annotations" / "f.xml"
    size = "<size><width>120</width><height>80</height></size>"  # resized since
    annotation.write_text(annotation.read_text().replace("<size><width>0</width></size>", size))
    write_split(tmp_path, "trainval", ["a", "b", "d", "e", "missing", "f"])
    write_split(tmp_path, "test", ["c.jpg"])
    return tmp_path


def test_untidy_annotations(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Boxes are clipped; those without area, outside or of unknown class are dropped."""
    with caplog.at_level(logging.INFO):
        data = voc_folder(tree)
    assert data.class_names == ("cat", "dog")
    first = data.train_objects[0]
    assert first.boxes.tolist() == [[0, 0, 60, 40], [10, 20, 30, 35], [0, 0, 20, 40]]
    assert first.labels.tolist() == [0, 1, 1]
    assert first.difficult.tolist() == [False, True, False]
    assert len(data.train_objects[1].boxes) == 0
    assert data.test_objects[0].boxes.tolist() == [[1, 2, 9, 10]]
    lines = [r.getMessage() for r in caplog.records if "objects of" in r.getMessage()]
    assert len(lines) == 2
    assert "3 objects of 2 classes (1 difficult); 1 boxes clipped" in lines[0]
    assert "4 dropped (3 without area, 1 outside the image)" in lines[0]
    assert "1 dropped (1 of the unknown class 'cow')" in lines[1]


def test_unusable_samples_are_quarantined(tree: Path) -> None:
    """Broken images, broken annotations, those for another size and missing files are named."""
    data = voc_folder(tree)
    assert set(data.train.unreadable) == {2, 3, 4, 5}
    assert data.train.unreadable[5] == "its annotation is for 120 x 80 pixels, it has 60 x 40"
    assert "not an image" in data.train.unreadable[2]
    assert "e.xml: it is not well-formed XML" in data.train.unreadable[3]
    assert "missing.xml" in data.train.unreadable[4]
    with pytest.raises(UnreadableImage, match=r"d\.jpg"):
        data.train.picture(2)
    with pytest.raises(UnreadableImage, match=r"d\.jpg"):
        StretchedSamples(data.train, 32).images(np.array([0, 2]))


def test_pictures_keep_their_size_and_samples_are_square(tree: Path) -> None:
    """Pictures come at full size; as samples they are stretched to a square."""
    data = voc_folder(tree)
    assert data.train.picture(0).shape == (40, 60, 3)
    assert data.train.size(0) == (40, 60)
    assert data.test.size(0) == (40, 30)
    assert StretchedSamples(data.train, 32).images(np.array([1, 0])).shape == (2, 3, 32, 32)


def test_own_classes(tree: Path) -> None:
    """Given class names are the only ones, in their order."""
    data = voc_folder(tree, class_names=["dog", "cow"])
    assert data.class_names == ("dog", "cow")
    assert data.train_objects[0].labels.tolist() == [0, 0]
    assert data.test_objects[0].labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_split": "train"}, "the splits are test, trainval"),
        ({"test_split": 3}, r"data\.test_split must be"),
        ({"test_split": "trainval"}, "both in the pool and in the test set"),
        ({"class_names": ["horse"]}, "has an object of the classes horse"),
        ({"class_names": "cat"}, "must be a list"),
        ({"flip": "no"}, r"data\.flip must be true or false"),
        ({"root": "nowhere"}, "it has no Annotations"),
    ],
)
def test_wrong_settings(tree: Path, change: dict[str, Any], message: str) -> None:
    """A wrong setting is one line that says what is permitted."""
    with pytest.raises(InvalidSetting, match=message) as caught:
        voc_folder(**{"root": tree, **change})
    assert "\n" not in str(caught.value)


def test_voc_layout(tmp_path: Path) -> None:
    """The pool is trainval of 2007, then of 2012; names carry the year; the test set is 2007's."""
    for year, names in ((2007, ["000005", "000007", "000001"]), (2012, ["2008_000002"])):
        base = tmp_path / "VOCdevkit" / f"VOC{year}"
        for name in names:
            write_voc(base, name, [("person", (1, 1, 20, 20), 0)])
        write_split(base, "trainval", [name for name in names if name != "000001"])
    write_split(tmp_path / "VOCdevkit" / "VOC2007", "test", ["000001"])
    data = voc(tmp_path)
    assert list(data.train.names) == ["VOC2007/000005.jpg", "VOC2007/000007.jpg",
                                      "VOC2012/2008_000002.jpg"]  # fmt: skip
    assert list(data.test.names) == ["VOC2007/000001.jpg"]
    assert data.class_names == CLASS_NAMES
    assert data.train_objects[0].labels.tolist() == [14]
    only = voc(tmp_path, years=[2007])
    assert len(only.train) == 2
    with pytest.raises(InvalidSetting, match=r"data\.years"):
        voc(tmp_path, years=[2011])


def test_voc_is_missing(tmp_path: Path) -> None:
    """Without VOC one line says what to download, where to put it, and what needs no download."""
    with pytest.raises(InvalidSetting) as caught:
        voc(tmp_path)
    text = str(caught.value)
    assert "\n" not in text
    for part in ("VOCtest_06-Nov-2007.tar", "VOCtrainval_11-May-2012.tar", str(tmp_path),
                 "data.download=true", "data=digits"):  # fmt: skip
        assert part in text


@pytest.fixture
def coco_tree(tmp_path: Path) -> Path:
    """Two small files in COCO's format, with ids that are no positions."""
    for part, images in (("train2017", {7: "b.jpg", 3: "a.jpg"}), ("val2017", {1: "c.jpg"})):
        for name in images.values():
            write_image(tmp_path / part / name)
        content = {
            "images": [{"id": k, "file_name": v} for k, v in images.items()],
            "categories": [{"id": 90, "name": "dog"}, {"id": 18, "name": "cat"}],
            "annotations": [
                {"image_id": max(images), "category_id": 90, "bbox": [1, 2, 10, 20], "iscrowd": 0},
                {"image_id": max(images), "category_id": 18, "bbox": [50, 2, 30, 20], "iscrowd": 1},
                {"image_id": max(images), "category_id": 18, "bbox": [5, 2, 0, 20]},
            ],
        }
        file = tmp_path / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return tmp_path


def test_coco(coco_tree: Path) -> None:
    """Images are by name, classes by id, boxes corners of edges, crowds difficult."""
    data = coco(coco_tree)
    assert list(data.train.names) == ["a.jpg", "b.jpg"]
    assert data.class_names == ("cat", "dog")
    assert len(data.train_objects[0].boxes) == 0
    objects = data.train_objects[1]
    assert objects.boxes.tolist() == [[1, 2, 11, 22], [50, 2, 60, 22]]
    assert objects.labels.tolist() == [1, 0]
    assert objects.difficult.tolist() == [False, True]


def test_untidy_coco(coco_tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Images of another size than stated, and entries with a fault, are left out and named."""
    file = coco_tree / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["images"][0] |= {"width": 60, "height": 40}
    content["images"][1] |= {"width": 600, "height": 400}
    content["annotations"] += [
        {"image_id": 99, "category_id": 90, "bbox": [1, 2, 10, 20]},
        {"image_id": 7, "category_id": 90, "bbox": []},
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20]},
    ]
    file.write_text(json.dumps(content))
    with caplog.at_level(logging.INFO):
        data = coco(coco_tree)
    assert data.train.unreadable == {0: "its annotation is for 600 x 400 pixels, it has 60 x 40"}
    assert len(data.train_objects[1].boxes) == 2
    assert "instances_train2017.json: 3 entries left out:\n" in caplog.text
    for line in (
        "  annotations: 1 of images that the file does not list, the first is annotation at "
        "position 3, of image 99",
        "  b.jpg: annotation at position 5: there is no category 1",
        "  b.jpg: annotation at position 4: bbox must be [x, y, width, height], it is []",
    ):
        assert line in caplog.text
    assert "1 dropped (1 without area)" in caplog.text


def test_coco_is_missing_or_of_another_format(coco_tree: Path) -> None:
    """A missing file or one of another format is one line that names it."""
    with pytest.raises(InvalidSetting, match=r"data\.test_images.*data=digits"):
        coco(coco_tree, test_images="nowhere")
    file = coco_tree / "annotations" / "instances_val2017.json"
    file.write_text('{"images": []}')
    with pytest.raises(
        InvalidSetting, match=r"instances_val2017\.json: it is not in COCO's format"
    ):
        coco(coco_tree)


def test_digit_scenes_and_every_choice_of_conf() -> None:
    """The embedded set serves detection; every detection node of conf names a real builder."""
    data = digit_scenes(num_scenes=6, num_test_scenes=3, scene_size=64)
    assert (len(data.train), len(data.test), len(data.class_names)) == (6, 3, 10)
    assert not data.flip
    assert data.train.picture(2).shape == (64, 64, 3)
    nodes = {path.stem: OmegaConf.load(path).get("detection") for path in CONF.glob("*.yaml")}
    there = {name for name, node in nodes.items() if node is not None}
    assert there >= {"digits", "voc", "voc_folder", "coco"}
    with pytest.raises(InvalidSetting, match=r"data\.num_scenes"):
        digit_scenes(num_scenes=0)
    config = OmegaConf.load(CONF / "digits.yaml")
    config.num_scenes, config.num_test_scenes, config.scene_size = 2, 1, 32
    assert len(instantiate(config.detection).train) == 2


def test_a_misspelled_class_is_told(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where classes are taken from the annotations, `Dog` beside `dog` is one warning."""
    write_voc(tree, "b", [("Dog", (2, 3, 9, 10), 0)])
    data = voc_folder(tree)
    assert data.class_names == ("Dog", "cat", "dog")
    assert (
        "class names of the pool that look alike; correct them, or set data.class_names:\n"
        "  'dog' (3) and 'Dog' (1) differ only in case or blanks" in caplog.text
    )


def test_a_misspelled_category_is_told(coco_tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The categories of COCO's file are looked at likewise."""
    file = coco_tree / "annotations" / "instances_train2017.json"
    content = json.loads(file.read_text())
    content["categories"].append({"id": 7, "name": "CAT"})
    file.write_text(json.dumps(content))
    coco(coco_tree)
    assert "'cat' (2) and 'CAT' (0) differ only in case or blanks" in caplog.text


def test_names_outside_of_the_images_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file of COCO from somebody else reads no other images of the disk."""
    for name in ("images/a.png", "images/deep/b.png", "secret.png", "test/c.png"):
        write_image(tmp_path / name)
    names = [
        "a.png",
        "deep/../deep/b.png",
        "../secret.png",
        str(tmp_path / "secret.png"),
        "a\0.png",
    ]
    for file, listed in (("train.json", names), ("test.json", ["c.png"])):
        images = [
            {"id": k, "file_name": name, "width": 60, "height": 40} for k, name in enumerate(listed)
        ]
        box = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 1, 9, 9]}
        categories = [{"id": 1, "name": "cell"}]
        content = {"images": images, "annotations": [box], "categories": categories}
        (tmp_path / file).write_text(json.dumps(content))
    data = coco(
        tmp_path, train_annotations="train.json", train_images="images",
        test_annotations="test.json", test_images="test",
    )  # fmt: skip
    assert list(data.train.names) == ["a.png", "deep/../deep/b.png"]
    assert "3 entries left out" in caplog.text
    assert "../secret.png: its path leads out of" in caplog.text


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd"])
def test_a_split_stays_in_its_tree(tmp_path: Path, name: str) -> None:
    """A list of Pascal VOC names images below JPEGImages only."""
    write_voc(tmp_path, "a", [("dog", (1, 1, 9, 9), 0)])
    write_split(tmp_path, "trainval", ["a", name])
    write_split(tmp_path, "test", ["a"])
    with pytest.raises(InvalidSetting, match=r"trainval\.txt names .*, which is not in"):
        voc_folder(tmp_path)
