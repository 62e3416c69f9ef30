import os
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from al_core.errors import InvalidSetting
from experiments.data.folders import describe_ignored, find_images


def touch(folder: Path, *names: str) -> None:
    """Make empty files with their folders."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_images_are_found_at_any_depth_and_in_any_case(tmp_path: Path) -> None:
    """Names are relative, with "/", sorted; spaces and other scripts are kept."""
    touch(tmp_path, "b.JPG", "a/c/d.Png", "a/ü 写.webp", "a.b/x.TIFF", "a/two.tar.jpeg")
    found = find_images(tmp_path)
    assert found.names == ("a.b/x.TIFF", "a/c/d.Png", "a/two.tar.jpeg", "a/ü 写.webp", "b.JPG")
    assert not found.ignored


def test_other_files_are_counted_by_kind(tmp_path: Path) -> None:
    """Every ignored file is counted, phone formats that cannot be decoded included."""
    touch(
        tmp_path, "a.jpg", "a.txt", "b.txt", "c.HEIC", ".DS_Store", "._a.jpg", "jpg", ".git/x.png"
    )
    found = find_images(tmp_path)
    assert found.names == ("a.jpg",)
    assert found.ignored == Counter({".txt": 2, ".heic": 1, "hidden": 2, "no ending": 1})
    assert describe_ignored(found.ignored) == "6 files (1 .heic, 2 .txt, 2 hidden, 1 no ending)"


def test_order_does_not_depend_on_the_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names do not depend on the order in which the system lists a folder."""
    touch(tmp_path, *(f"{c}/{i}.png" for c in "cab" for i in (10, 9, 1)))
    expected = find_images(tmp_path).names
    scandir = os.scandir

    def reversed_scandir(path: Path) -> AbstractContextManager[list[os.DirEntry[str]]]:
        with scandir(path) as entries:
            return nullcontext(sorted(entries, key=lambda entry: entry.name, reverse=True))

    monkeypatch.setattr("os.scandir", reversed_scandir)
    assert find_images(tmp_path).names == expected
    assert list(expected) == sorted(expected)


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    """A linked folder is followed; a link to a folder above is not."""
    touch(tmp_path, "elsewhere/x.png", "set/a/y.png")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    names = find_images(tmp_path / "set").names
    assert names == ("a/y.png", "b/x.png")


def test_a_name_that_no_csv_could_hold_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A name that is not UTF-8 is reported and left out; all other images are used."""
    touch(tmp_path, "a.png")
    try:
        for name in (b"/\xff.png", b"/\xfe.txt", b"/\xff/b.png"):
            path = Path(os.fsdecode(os.fsencode(tmp_path) + name))
            touch(path.parent, path.name)
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    found = find_images(tmp_path)
    assert found.names == ("a.png",)
    assert found.ignored == Counter({"with a name that is not UTF-8": 2, ".txt": 1})
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "2 images left out, their names are not UTF-8; the first is '\\udcff.png'" in warning


def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing folder is a clear line that names it."""
    with pytest.raises(InvalidSetting, match="nowhere"):
        find_images(tmp_path / "nowhere")
