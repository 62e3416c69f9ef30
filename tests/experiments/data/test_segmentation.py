from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.cityscapes import CLASSES, cityscapes, read_train_ids
from experiments.data.decoding import UnreadableImage
from experiments.data.drn_list import drn_list
from experiments.data.palette import distinct_palette
from experiments.data.segmentation import (
    SemanticSegmentation,
    WholeSamples,
    digit_scenes,
    picture_statistics,
    read_mask,
)
from tests.experiments.segmentation_trees import (
    LABEL_IDS,
    small_data,
    write,
    write_cityscapes,
    write_drn_list,
)

# ---- masks


def test_class_numbers_are_read_from_every_kind_of_mask(tmp_path: Path) -> None:
    """Gray of 8 and 16 bits, palette and bilevel masks give their numbers, not their colors."""
    mask = np.array([[0, 1, 255], [1, 0, 1]], np.uint8)
    paletted = Image.fromarray(mask, "L").convert("P")
    paletted.putpalette([200, 10, 10] * 256)
    for name, image in (
        ("gray", Image.fromarray(mask)),
        ("palette", paletted),
        ("deep", Image.fromarray(mask.astype(np.uint16))),
    ):
        image.save(tmp_path / f"{name}.png")
        read = read_mask(tmp_path / f"{name}.png", (2, 3))
        assert read.dtype == np.uint8
        assert np.array_equal(read, mask), name
    Image.fromarray(mask == 1).save(tmp_path / "bilevel.png")
    assert np.array_equal(read_mask(tmp_path / "bilevel.png", (2, 3)), mask == 1)


def test_unusable_masks_have_reasons(tmp_path: Path) -> None:
    """Color, numbers above 255, damaged, empty and missing files are refused with their fault."""
    write(tmp_path / "color.png", np.zeros((4, 4, 3), np.uint8))
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "deep.png")
    whole = write(tmp_path / "whole.png", np.arange(4096, dtype=np.uint16).astype(np.uint8)[None])
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    for name, reason in (
        ("color", "one channel"),
        ("deep", "there is 300"),
        ("cut", "."),
        ("empty", "known format"),
        ("missing", "No such file"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            read_mask(tmp_path / f"{name}.png", (1, 4096) if name == "cut" else (4, 4))


def test_a_mask_of_another_size_takes_no_memory(tmp_path: Path) -> None:
    """Its header is compared with the image first: a small file may stand for many pixels."""
    file = tmp_path / "a.png"
    Image.new("L", (12_000, 12_000)).save(file)
    tracemalloc.start()
    with pytest.raises(UnreadableImage, match="it has 12000x12000 pixels, its image 4x5"):
        read_mask(file, (4, 5))
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_files_that_change_their_size_in_a_run_are_named(tmp_path: Path) -> None:
    """A mask or an image of another size would be trained on in another place."""
    root = write_drn_list(tmp_path)
    data = drn_list(root)
    mask = root / (root / "train_labels.txt").read_text().splitlines()[1]
    write(mask, np.zeros((9, 7), np.uint8))
    with pytest.raises(UnreadableImage, match=r"was readable .* and is not now: it has 9x7 pixels"):
        data.train_masks.mask(1)
    write(data.train.paths[2], np.zeros((9, 7, 3), np.uint8))  # type: ignore[index]
    with pytest.raises(UnreadableImage, match="when the run started, and has 9x7 now"):
        data.train.picture(2)


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png"])
def test_a_list_stays_in_its_folder(tmp_path: Path, kind: str, name: str) -> None:
    """A list of somebody else reads no other files of the disk."""
    root = write_drn_list(tmp_path)
    file = root / f"train_{kind}.txt"
    file.write_text("\n".join([name, *file.read_text().splitlines()[1:]]))
    with pytest.raises(InvalidSetting, match=r"a list of train names .*, which is not in"):
        drn_list(root)


def test_label_ids_become_train_ids(tmp_path: Path) -> None:
    """The 19 classes get their trainIds; everything else, -1 (stored as 255) too, gets 255."""
    ids = np.array([[*range(34), 255]], np.uint8)
    found = read_train_ids(write(tmp_path / "a_gtFine_labelIds.png", ids), ids.shape)[0]
    for label_id, train_id in zip(ids[0].tolist(), found.tolist(), strict=True):
        expected = LABEL_IDS.tolist().index(label_id) if label_id in LABEL_IDS else 255
        assert train_id == expected, label_id
    # The published table, at its ends and in the middle.
    assert {7: 0, 13: 4, 23: 10, 26: 13, 33: 18}.items() <= dict(
        zip(ids[0].tolist(), found.tolist(), strict=True)
    ).items()
    with pytest.raises(UnreadableImage, match="unknown labelId 34"):
        read_train_ids(write(tmp_path / "b_gtFine_labelIds.png", ids + 1), ids.shape)


# ---- Cityscapes


def test_cityscapes_is_read_as_published(tmp_path: Path) -> None:
    """Pool and test set are train and val; both kinds of annotation give the same classes."""
    data = cityscapes(write_cityscapes(tmp_path, num_train=12, num_val=4))
    assert (len(data.train), len(data.test)) == (12, 4)
    assert data.train.names[0] == "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    assert data.class_names == tuple(CLASSES)
    assert not data.train.unreadable
    for index in range(12):
        image, mask = data.train.picture(index), data.train_masks.mask(index)
        assert mask.shape == image.shape[:2] == (48, 64)
        # As the trees are made: brightness tells the class.
        labeled = mask != 255
        assert (
            np.array_equal(mask[labeled], (image.min(2) // 10)[labeled])
            or (abs(image[labeled].mean(1) / 10 - mask[labeled] - 2) < 3).all()
        )
        assert (~labeled).sum() == 5


def test_cityscapes_without_annotation_or_with_damage_is_left_out(tmp_path: Path) -> None:
    """Images whose file or mask cannot be used are named with the reason; the rest is read."""
    root = write_cityscapes(tmp_path)
    (root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelTrainIds.png").unlink()
    write(
        root / "gtFine/train/aachen/aachen_000004_000019_gtFine_labelTrainIds.png",
        np.full((48, 64), 19, np.uint8),
    )
    write(
        root / "gtFine/train/bremen/bremen_000001_000019_gtFine_labelTrainIds.png",
        np.zeros((48, 60), np.uint8),
    )
    (root / "leftImg8bit/train/bremen/bremen_000003_000019_leftImg8bit.png").write_bytes(b"x")
    data = cityscapes(root)
    found = {
        data.train.names[i].split("/")[-1][:13]: why for i, why in data.train.unreadable.items()
    }
    assert set(found) == {"aachen_000000", "aachen_000004", "bremen_000001", "bremen_000003"}
    assert "its mask aachen_000000_000019_gtFine_labelIds.png: No such" in found["aachen_000000"]
    assert "has class 19; there are 0 .. 18" in found["aachen_000004"]
    assert "it has 48x60 pixels, its image 48x64" in found["bremen_000001"]


def test_missing_cityscapes_says_what_to_do(tmp_path: Path) -> None:
    """One line says what to fetch, where it goes, and what needs no download."""
    with pytest.raises(InvalidSetting) as raised:
        cityscapes(tmp_path)
    text = str(raised.value)
    assert "\n" not in text
    for word in (str(tmp_path), "leftImg8bit_trainvaltest.zip", "data=digits"):
        assert word in text
    shutil.rmtree(write_cityscapes(tmp_path) / "gtFine" / "val")
    with pytest.raises(InvalidSetting, match="there is no gtFine/val"):
        cityscapes(tmp_path)


# ---- lists


def test_lists_are_read_line_by_line(tmp_path: Path) -> None:
    """Images and masks keep the order of the lists, and info.json gives mean, std and names."""
    info = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "class_names": list("abcd")}
    data = drn_list(write_drn_list(tmp_path, info=info))
    assert (len(data.train), len(data.test)) == (16, 6)
    assert data.train.names[3] == "images/train/003.jpg"
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert data.class_names == ("a", "b", "c", "d")
    mask = cv2.imread(str(tmp_path / "labels/train/003.png"), cv2.IMREAD_GRAYSCALE)
    assert np.array_equal(data.train_masks.mask(3), mask)
    other = drn_list(tmp_path, train_split="val", test_split="train", flip=False)
    assert (len(other.train), other.flip) == (6, False)


def test_classes_and_statistics_are_found_out_where_not_given(tmp_path: Path) -> None:
    """Without info.json the masks give the number of classes, the pixels mean and deviation."""
    data = drn_list(write_drn_list(tmp_path, info={}))
    assert data.class_names == ("class_0", "class_1", "class_2", "class_3")
    pixels = np.stack([data.train.picture(i) for i in range(16)]) / 255
    np.testing.assert_allclose(data.mean, pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(data.std, pixels.std((0, 1, 2)), rtol=1e-9)
    (tmp_path / "info.json").unlink()
    assert drn_list(tmp_path).mean == data.mean


def test_damaged_files_of_a_list_are_left_out(tmp_path: Path) -> None:
    """A broken image, a missing mask, and a mask with a class that is not named are left out."""
    root = write_drn_list(tmp_path, num_classes=3)
    (root / "images/train/002.jpg").write_bytes(b"\xff\xd8")
    (root / "labels/train/005.png").unlink()
    write(root / "labels/train/007.png", np.full((48, 64), 3, np.uint8))
    assert list(drn_list(root).train.unreadable) == [2, 5]
    named = drn_list(root, class_names=["a", "b", "c"])
    assert list(named.train.unreadable) == [2, 5, 7]
    assert "has class 3; there are 0 .. 2" in named.train.unreadable[7]


def drop_line(root: Path) -> None:
    """Make the lists of a split differ."""
    (root / "val_labels.txt").write_text("labels/val/000.png\n", encoding="utf-8")


def share_image(root: Path) -> None:
    """Put a test image into the pool."""
    lines = (root / "train_images.txt").read_text(encoding="utf-8").splitlines()
    lines[0] = "images/val/000.jpg"
    (root / "train_images.txt").write_text("\n".join(lines), encoding="utf-8")


def spoil_all(root: Path) -> None:
    """Leave no mask that can be read."""
    shutil.rmtree(root / "labels" / "train")


@pytest.mark.parametrize(
    ("change", "arguments", "text"),
    [
        (lambda root: (root / "val_images.txt").unlink(), {}, "val_images.txt is not there"),
        (drop_line, {}, "6 lines and val_labels.txt 1"),
        (share_image, {}, "both in the pool and in the test set"),
        (spoil_all, {}, "16 of 16 images cannot be used"),
        (lambda root: (root / "info.json").write_text("["), {}, "info.json cannot be read"),
        (
            lambda root: (root / "info.json").write_text(json.dumps({"mean": 3})),
            {},
            "three numbers",
        ),
        (None, {"class_names": ["a", "a"]}, "distinct names"),
        (None, {"train_split": 3}, "name of a split"),
        (None, {"flip": "no"}, "true or false"),
    ],
)
def test_a_list_that_is_wrong_is_one_clear_line(
    tmp_path: Path, change: Any, arguments: dict[str, Any], text: str
) -> None:
    """Every error of a user's own set is one line."""
    root = write_drn_list(tmp_path)
    if change is not None:
        change(root)
    with pytest.raises(InvalidSetting, match=text) as raised:
        drn_list(root, **arguments)
    assert "\n" not in str(raised.value)


def test_images_of_one_size_are_batched_and_others_come_alone(tmp_path: Path) -> None:
    """A set knows whether its images share a size; each is given at its own."""
    mixed = WholeSamples(drn_list(write_drn_list(tmp_path, sizes=((32, 48), (40, 32)))).train)
    assert mixed.common_size() is None
    assert mixed.images(np.array([1])).shape == (1, 3, 40, 32)
    same = WholeSamples(small_data().train)
    assert same.common_size() == (48, 64)
    batch = same.images(np.array([3, 1]))
    assert np.array_equal(batch[0].permute(1, 2, 0).numpy(), same.pictures.picture(3))


# ---- scenes and the rest


def test_embedded_scenes_have_a_class_for_every_pixel() -> None:
    """Ten digits and ground, a mask of the size of the image, nothing ignored, never mirrored."""
    data = digit_scenes(num_scenes=12, num_test_scenes=5, scene_size=64)
    assert (len(data.train), len(data.test), len(data.class_names)) == (12, 5, 11)
    masks = np.stack([data.train_masks.mask(i) for i in range(12)])
    assert masks.shape == (12, 64, 64)
    assert set(np.unique(masks)) <= set(range(11))
    assert (masks == 0).any()
    assert (masks > 0).any()
    assert not data.flip
    assert picture_statistics(data.train) == (data.mean, data.std)


def test_colors_are_distinct() -> None:
    """No two classes of a set get the same color, up to as many as a mask can have."""
    assert len(set(distinct_palette(255))) == 255
    assert len({color for _, color in CLASSES.values()}) == 19


@pytest.mark.parametrize(
    "change",
    [{"class_names": ("a", "a", "b", "c")}, {"palette": ((0, 0, 0),)}, {"train_masks": []}],
)
def test_a_set_that_contradicts_itself_is_refused(change: dict[str, Any]) -> None:
    """Class names are distinct, each has a color, and each image a mask."""
    with pytest.raises(ValueError, match=r"class|mask"):
        SemanticSegmentation(**{**vars(small_data()), **change})
