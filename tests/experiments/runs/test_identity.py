"""Images keep their positions while the images on disk change."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification, image_folder
from experiments.data.decoding import UnreadableImage
from experiments.runs import identity
from experiments.runs.identity import IS_GONE, RunImages, settled
from experiments.runs.known_images import Record, read_record, write_record


def write_image(path: Path, level: int) -> None:
    """Write an image of one gray level."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five images of class a and five of b to choose from, two of each to test with."""
    for name, first in (("a", 0), ("b", 100)):
        for i in range(5):
            write_image(tmp_path / "train" / name / f"{i}.png", first + i)
        for i in range(2):
            write_image(tmp_path / "test" / name / f"{i}.png", first + 50 + i)
    return tmp_path


def started(root: Path, record: Record | None = None) -> tuple[ImageClassification, RunImages]:
    """Build the set and give its images the positions of the record."""
    return settled(image_folder(root, image_size=8), record, fixed=False)


def levels(data: ImageClassification) -> list[int | None]:
    """Return the gray level of each image of the pool, None of one that cannot be used."""
    found: list[int | None] = []
    for index in range(len(data.train)):
        if index in data.train.unreadable:
            with pytest.raises(UnreadableImage, match="cannot be used"):
                data.train.images(np.array([index]))
            found.append(None)
        else:
            found.append(int(data.train.images(np.array([index]))[0, 0, 0, 0]))
    return found


PLAIN = [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]


def test_an_unchanged_set_stays_as_it_was(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said, nothing is in the way, and the record is the same."""
    data, images = started(root)
    assert levels(data) == PLAIN
    assert not images.recorded
    again, same = started(root, images.record)
    assert type(again.train) is type(data.train)
    assert same.record == images.record
    assert same.recorded
    assert (same.came_back, same.lost, same.changed) == ((), (), ())
    assert caplog.text == ""


def test_added_and_removed_images_shift_nobody(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """New images come after all others, one that is gone keeps its place, labels go along."""
    _, images = started(root)
    (root / "train" / "a" / "1.png").unlink()
    write_image(root / "train" / "a" / "00.png", 77)
    write_image(root / "train" / "c" / "x.png", 78)
    write_image(root / "train" / "b" / "9.png", 79)
    data, now = started(root, images.record)
    assert levels(data) == [0, None, 2, 3, 4, 100, 101, 102, 103, 104, 77, 79, 78]
    assert data.train_targets.tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 1, 2]
    assert list(data.train.names)[-3:] == ["a/00.png", "b/9.png", "c/x.png"]
    assert data.train.unreadable == {1: IS_GONE}
    assert (now.lost, now.came_back) == ((1,), ())
    text = caplog.text
    assert "3 images (a/00.png, b/9.png, c/x.png) added to the pool since the last start" in text
    assert "1 image (a/1.png) gone from the pool since the last start: left out until back" in text
    caplog.clear()
    same, _ = started(root, now.record)
    assert levels(same) == levels(data)
    assert "since the" not in caplog.text


def test_an_image_that_is_back_has_its_place_again(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An image that is back is offered again at the next start, under its position."""
    _, images = started(root)
    (root / "train" / "a" / "1.png").rename(root / "kept.png")
    _, without = started(root, images.record)
    (root / "kept.png").rename(root / "train" / "a" / "1.png")
    data, now = started(root, without.record)
    assert levels(data) == PLAIN
    assert now.came_back == (1,)
    assert "1 image (a/1.png) back in the pool" in caplog.text


@pytest.mark.parametrize("hashed", [True, False])
def test_a_renamed_image_keeps_its_place(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, hashed: bool
) -> None:
    """It is known by its content, or in large sets by its size and time, in another class too."""
    monkeypatch.setattr(identity, "HASHED_BYTES", 10**9 if hashed else 0)
    for index, path in enumerate(sorted(root.rglob("*.png"))):
        os.utime(path, ns=(0, 10**18 + index))
    _, images = started(root)
    assert all(bool(one.content) is hashed for one in images.record["train"])
    (root / "train" / "a" / "1.png").rename(root / "train" / "b" / "00.png")
    (root / "train" / "b" / "4.png").unlink()
    data, now = started(root, images.record)
    assert levels(data) == [0, 1, 2, 3, 4, 100, 101, 102, 103, None]
    assert data.train.names[1] == "b/00.png"
    assert data.train_targets[1] == 1
    assert now.lost == (9,)
    assert "1 image (a/1.png -> b/00.png) renamed in the pool" in caplog.text


def test_copies_are_told_apart_when_renamed(root: Path) -> None:
    """Two images of the same content that are renamed get two different names."""
    write_image(root / "train" / "a" / "copy.png", 1)
    _, images = started(root)
    (root / "train" / "a" / "1.png").rename(root / "train" / "a" / "x.png")
    (root / "train" / "a" / "copy.png").rename(root / "train" / "a" / "y.png")
    data, _ = started(root, images.record)
    assert sorted(data.train.names[i] for i in (1, 5)) == ["a/x.png", "a/y.png"]
    assert len(data.train) == 11


def test_a_changed_image_is_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another content under the old name is said, even with the old size and time."""
    _, images = started(root)
    path = root / "train" / "a" / "1.png"
    before = path.stat()
    for level in range(2, 100):
        write_image(path, level)
        if path.stat().st_size == before.st_size:
            break
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    _, now = started(root, images.record)
    assert now.changed == (1,)
    assert "1 image (a/1.png) changed in the pool" in caplog.text


def test_a_touched_image_is_the_same(
    root: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new time alone is nothing where contents are known, and a doubt where they are not."""
    _, images = started(root)
    os.utime(root / "train" / "a" / "1.png", ns=(0, 0))
    _, now = started(root, images.record)
    assert now.changed == ()
    assert caplog.text == ""
    monkeypatch.setattr(identity, "HASHED_BYTES", 0)
    record = {
        part: [one._replace(content="") for one in entries] for part, entries in now.record.items()
    }
    os.utime(root / "train" / "a" / "2.png", ns=(0, 0))
    started(root, record)
    assert "1 image (a/2.png) written again in the pool since the last start" in caplog.text


def test_many_changes_are_one_line(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line has the count and the first names."""
    _, images = started(root)
    for i in range(5):
        (root / "train" / "a" / f"{i}.png").unlink()
    write_image(root / "train" / "a" / "other.png", 200)
    started(root, images.record)
    assert "5 images (a/0.png, a/1.png, a/2.png, ...) gone from the pool" in caplog.text


# ---- test sets


def test_new_test_images_are_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A run goes on with the test set that it began with, also if its images are renamed."""
    data, images = started(root)
    write_image(root / "test" / "a" / "00.png", 200)
    (root / "test" / "b" / "0.png").rename(root / "test" / "b" / "z.png")
    after, now = started(root, images.record)
    assert list(after.test.names) == ["a/0.png", "a/1.png", "b/z.png", "b/1.png"]
    every = np.arange(4)
    assert (after.test.images(every) == data.test.images(every)).all()
    assert after.test_targets.tolist() == data.test_targets.tolist()
    assert (
        "1 image (a/00.png) added to the test set since the run began: they are left" in caplog.text
    )
    assert len(now.record["test"]) == 4


def remove(path: Path) -> None:
    """Remove a file."""
    path.unlink()


def change(path: Path) -> None:
    """Replace an image by another one."""
    write_image(path, 255)


def damage(path: Path) -> None:
    """Replace an image by what is none."""
    path.write_bytes(b"no image")


@pytest.mark.parametrize(
    ("happens", "says"), [(remove, "gone"), (change, "changed"), (damage, "changed")]
)
def test_a_test_set_that_lacks_something_is_refused(
    root: Path, happens: Callable[[Path], None], says: str
) -> None:
    """Metrics of different test sets are not put into one curve; the line names the image."""
    _, images = started(root)
    happens(root / "test" / "b" / "0.png")
    with pytest.raises(InvalidSetting, match=rf"1 image \(b/0.png\) {says}; put the test"):
        started(root, images.record)


def test_a_broken_test_image_stays_left_out(root: Path) -> None:
    """An image that was not measured with is not measured with later, and may do as it likes."""
    damage(root / "test" / "b" / "0.png")
    _, images = started(root)
    assert images.record["test"][2].left_out.startswith("not an image")
    change(root / "test" / "b" / "0.png")
    data, now = started(root, images.record)
    assert list(data.test.unreadable) == [2]
    remove(root / "test" / "b" / "0.png")
    data, _ = started(root, now.record)
    assert list(data.test.unreadable) == [2]


# ---- images that are broken for a while


def test_an_image_that_is_repaired_is_offered_again(root: Path) -> None:
    """An image that was broken when the run began joins the pool when it can be read."""
    path = root / "train" / "a" / "1.png"
    damage(path)
    data, images = started(root)
    assert list(data.train.unreadable) == [1]
    write_image(path, 1)
    data, now = started(root, images.record)
    assert levels(data) == PLAIN
    assert now.came_back == (1,)


def test_an_image_that_breaks_is_left_out(root: Path) -> None:
    """An image that was readable when the run began and is broken now keeps its position."""
    _, images = started(root)
    damage(root / "train" / "a" / "1.png")
    data, now = started(root, images.record)
    assert levels(data) == [0, None, *PLAIN[2:]]
    assert now.lost == (1,)


def test_regions_go_on_without_what_they_began_without(root: Path) -> None:
    """Where numbers depend on it, an image that was left out stays so, and no run is refused."""
    path = root / "train" / "a" / "1.png"
    damage(path)
    _, images = started(root)
    write_image(path, 1)
    data, now = settled(
        image_folder(root, image_size=8), images.record, fixed=False, of_regions=True
    )
    assert list(data.train.unreadable) == [1]
    assert now.came_back == ()


# ---- people, and other sets


def test_an_order_that_is_kept_elsewhere_is_only_watched(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With people as the oracle changes are said, and the set stays as it was built."""
    data = image_folder(root, image_size=8)
    _, images = settled(data, None, fixed=True)
    change(root / "train" / "a" / "1.png")
    remove(root / "test" / "a" / "1.png")
    data = image_folder(root, image_size=8)
    same, now = settled(data, images.record, fixed=True)
    assert same is data
    assert now.recorded
    assert "1 image (a/1.png) changed in the pool" in caplog.text
    assert "1 image (a/1.png) gone from the test set" in caplog.text


def test_sets_of_no_files_have_no_record(tmp_path: Path) -> None:
    """Images that come from an archive or a package are not written down."""
    from tests.experiments.small_tasks import small_data

    data = small_data()
    same, images = settled(data, None, fixed=False)
    assert same is data
    assert images.record == {}
    write_record(tmp_path, images.record)
    assert list(tmp_path.iterdir()) == []


# ---- the file


def test_the_record_survives_its_file(root: Path) -> None:
    """Any name and reason comes back as it was."""
    write_image(root / "train" / "a" / 'é "quoted", \n line.png', 9)
    _, images = started(root)
    assert read_record(root) is None
    write_record(root, images.record)
    assert read_record(root) == images.record


@pytest.mark.parametrize(
    "text",
    [
        "",
        "set,position,name\n",
        "set,position,name,size,modified_ns,content,left_out\ntrain,1,a.png,1,1,,\n",
        "set,position,name,size,modified_ns,content,left_out\nother,0,a.png,1,1,,\n",
        "set,position,name,size,modified_ns,content,left_out\ntrain,0,a.png\n",
        "set,position,name,size,modified_ns,content,left_out\ntrain,0,a.png,x,1,,\n",
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    """Positions are not guessed: the line names the file."""
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(InvalidSetting, match=r"images.csv cannot be read"):
        read_record(tmp_path)


@pytest.fixture(autouse=True)
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
