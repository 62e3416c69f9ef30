"""Folders of labeled images as people have them, and test sets that are held out of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data import content
from experiments.data.classification import image_folder
from experiments.data.labeled_files import SplitFiles, find_labeled


def write_classes(folder: Path, counts: dict[str, int], *, seed: int = 0) -> Path:
    """Write files of random bytes in class folders: enough to be found and hashed."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (folder / name / f"{seed}_{i:04d}.jpg").write_bytes(rng.bytes(40))
    return folder


def in_test(files: SplitFiles) -> set[str]:
    """Return the names that are held out."""
    return set(files.test.names)


@pytest.mark.parametrize("part", ["test", "val", "valid", "validation", "Val"])
def test_test_images_are_found_under_the_usual_names(tmp_path: Path, part: str) -> None:
    """A folder for testing may have any of four names, in either case."""
    write_classes(tmp_path / "train", {"cat": 3, "dog": 2})
    write_classes(tmp_path / part, {"dog": 4})
    files = find_labeled(tmp_path, test_fraction=None)
    assert files.class_names == ("cat", "dog")
    assert files.train.targets.tolist() == [0, 0, 0, 1, 1]
    assert files.test.folder == tmp_path / part
    assert files.test.targets.tolist() == [1] * 4


def test_of_several_test_folders_the_first_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With test and val, val is ignored, and the log says so."""
    for part in ("train", "test", "val"):
        write_classes(tmp_path / part, {"cat": 2, "dog": 2})
    with caplog.at_level(logging.INFO):
        files = find_labeled(tmp_path, test_fraction=None)
    assert files.test.folder == tmp_path / "test"
    assert "test has the test set; ignored val" in caplog.text


@pytest.mark.parametrize("with_train", [False, True])
def test_a_share_of_every_class_is_held_out(tmp_path: Path, with_train: bool) -> None:
    """A folder of classes alone, or train alone, is divided, about evenly over the classes."""
    folder = write_classes(tmp_path / "train" if with_train else tmp_path, {"a": 400, "b": 100})
    files = find_labeled(tmp_path, test_fraction=0.2)
    assert files.train.folder == files.test.folder == folder
    assert not in_test(files) & set(files.train.names)
    assert len(files.train.names) + len(files.test.names) == 500
    tested = np.bincount(files.test.targets)
    assert abs(tested[0] - 80) < 5 * np.sqrt(400 * 0.2 * 0.8)
    assert abs(tested[1] - 20) < 5 * np.sqrt(100 * 0.2 * 0.8)


def test_what_is_held_out_stays_so(tmp_path: Path) -> None:
    """Adding and renaming images moves none of the others between pool and test set."""
    write_classes(tmp_path, {"a": 60, "b": 40})
    before = find_labeled(tmp_path, test_fraction=0.3)
    write_classes(tmp_path, {"a": 50, "b": 10, "c": 20}, seed=1)
    (tmp_path / "a" / "0_0000.jpg").rename(tmp_path / "a" / "renamed.jpg")
    after = find_labeled(tmp_path, test_fraction=0.3)
    known = {f"{name}/0_{i:04d}.jpg" for name, n in (("a", 60), ("b", 40)) for i in range(n)}
    known -= {"a/0_0000.jpg"}
    assert in_test(after) & known == in_test(before) & known
    assert ("a/renamed.jpg" in in_test(after)) == ("a/0_0000.jpg" in in_test(before))


def test_small_classes_are_in_both_parts(tmp_path: Path) -> None:
    """One of two images is held out, and none of a single one, for any hashes."""
    counts = {f"pair{i}": 2 for i in range(30)} | {"single": 1}
    files = find_labeled(write_classes(tmp_path, counts), test_fraction=0.02)
    assert np.bincount(files.test.targets).tolist() == [1] * 30
    assert np.bincount(files.train.targets).tolist() == [1] * 31


def test_copies_are_on_one_side(tmp_path: Path) -> None:
    """An image and its exact copy are both tested with, or both in the pool."""
    write_classes(tmp_path, {"a": 80, "b": 80})
    for path in sorted((tmp_path / "a").iterdir()):
        (tmp_path / "b" / f"copy_{path.name}").write_bytes(path.read_bytes())
    tested = in_test(find_labeled(tmp_path, test_fraction=0.5))
    for i in range(80):
        assert (f"a/0_{i:04d}.jpg" in tested) == (f"b/copy_0_{i:04d}.jpg" in tested)


def test_a_class_of_trains_is_a_class(tmp_path: Path) -> None:
    """A folder train that holds images, beside other classes, is no pool."""
    files = find_labeled(
        write_classes(tmp_path, {"car": 9, "plane": 9, "train": 9}), test_fraction=0.4
    )
    assert files.class_names == ("car", "plane", "train")


@pytest.mark.parametrize(
    ("folders", "fraction", "text"),
    [
        ([], None, "has no folders; needed are train/<class>/<images> with test, val, valid"),
        ([], 0.2, "has no folders; needed are train/<class>/<images>"),
        (["cat"], 0.2, "has the folder cat; needed are"),
        (["cat", "dog"], None, r"has the folders cat, dog; needed .* with data.test_fraction=0.2"),
        (list("abcdefgh"), None, r"has the folders a, b, c, d, e, f and 2 more"),
        (["test/cat", "test/dog"], None, "has the folder test; needed are"),
        (["train/a", "train/b"], None, "but none to test with: add one of test, val, valid"),
        (["train/a", "train/b", "val/a"], 0.2, r"data.test_fraction=0.2 .* is one: leave it out"),
        (["train/a", "test/a"], None, "train needs two class folders, the only one is a"),
        (["train/a", "train/b", "test/a", "test/c"], None, "train has not: c; train has a, b"),
        (["train/a", "train/b", "test"], None, r"no image in test/<class>/"),
    ],
)
def test_another_layout_is_refused_by_name(
    tmp_path: Path, folders: list[str], fraction: float | None, text: str
) -> None:
    """One line names what was found and what is allowed."""
    for name in folders:
        if name == "test":
            (tmp_path / name).mkdir()
        else:
            write_classes(tmp_path, {name: 1})
    with pytest.raises(InvalidSetting, match=text) as caught:
        find_labeled(tmp_path, test_fraction=fraction)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("wrong", [0, 1, 1.5, -0.1, "0.2", True, float("nan")])
def test_a_wrong_share_is_refused(tmp_path: Path, wrong: object) -> None:
    """The share must lie between 0 and 1."""
    with pytest.raises(InvalidSetting, match=r"data\.test_fraction must"):
        find_labeled(write_classes(tmp_path, {"a": 2, "b": 2}), test_fraction=wrong)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_read_now_stops_the_division(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its content an image would change sides, so the error of the disk ends the start."""
    write_classes(tmp_path, {"a": 2, "b": 2})

    def fail(path: Path) -> bytes:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(content, "read_bytes", fail)
    with pytest.raises(OSError, match=r"Input/output error: .*0000.jpg"):
        find_labeled(tmp_path, test_fraction=0.5)


def test_a_broken_link_is_never_held_out(tmp_path: Path) -> None:
    """A file that is missing has no content; it stays in the pool, as unreadable."""
    write_classes(tmp_path, {"a": 5, "b": 5})
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    assert "a/gone.jpg" in find_labeled(tmp_path, test_fraction=0.9).train.names


def test_images_are_read_from_a_divided_folder(tmp_path: Path) -> None:
    """The builder gives pool and test set of one folder their own images."""
    for name in ("cat", "dog"):
        for i in range(6):
            pixels = np.full((16, 16, 3), (20 * i, 5, 40 * (name == "dog")), np.uint8)
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    data = image_folder(tmp_path, image_size=16, test_fraction=0.4)
    names = [*data.train.names, *data.test.names]
    assert sorted(names) == sorted(f"{name}/{i}.png" for name in ("cat", "dog") for i in range(6))
    for samples in (data.train, data.test):
        for index, name in enumerate(samples.names):
            red = int(samples.images(np.array([index]))[0, 0, 8, 8])
            assert red == 20 * int(name[4])
