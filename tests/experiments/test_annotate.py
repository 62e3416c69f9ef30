"""Export and import by hand, on a run that waits; nothing is trained."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import yaml

from experiments import annotate
from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Request
from experiments.annotation.run_view import open_run
from experiments.data.labels import Item
from experiments.engine.locks import hold

NAMES = tuple(f"{letter}.jpg" for letter in "abcdef")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that has asked for six images."""
    folder = tmp_path / "runs" / "seed0"
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        (tmp_path / "photos" / name).touch()
    folder.mkdir(parents=True)
    config = {
        "cycles": 2, "task": {"kind": "classification", "metric": "accuracy"},
        "data": {"root": str(tmp_path / "photos"), "class_names": ["cat", "dog"]},
        "oracle": {"name": "people", "returned": None, "image_url": "{name}", "partial": False},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ledger = Ledger(folder)
    ledger.add_images(NAMES)
    request = Request(0, NAMES)
    items = [Item(name, tmp_path / "photos" / name, (4, 4)) for name in NAMES]
    ledger.write_request(request, items)
    return folder


def write(file: Path, *rows: str) -> Path:
    """Write a CSV of labels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("name,label\n" + "".join(f"{row}\n" for row in rows), encoding="utf-8")
    return file


def imported(run: Path, *files: Path) -> list[str]:
    """Import files, which must count, and return what lies in the folder of returned files."""
    assert annotate.main(["import", str(run), *map(str, files)]) == 0
    returned = run / "returned"
    return sorted(p.relative_to(returned).as_posix() for p in returned.rglob("*") if p.is_file())


def test_files_of_one_name_are_all_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two annotators who call their files alike are both heard, in one import and in two."""
    anna = write(run.parent / "anna" / "labels.csv", "a.jpg,cat")
    bob = write(run.parent / "bob" / "labels.csv", "b.jpg,dog")
    assert imported(run, anna, bob) == ["import_1/labels.csv", "labels.csv"]
    assert "new: 2 annotations, 2 of the 6" in capsys.readouterr().out
    assert len(imported(run, write(anna, "c.jpg,cat"))) == 3


def test_a_second_folder_of_a_class_is_of_that_class(run: Path) -> None:
    """The name of the folder, which is the class, stays when it comes again."""
    for name in ("a.jpg", "b.jpg"):
        folder = run.parent / name / "cat"
        folder.mkdir(parents=True)
        (folder / name).touch()
        found = imported(run, folder)
    assert found == ["cat/a.jpg", "import_1/cat/b.jpg"]
    asked = open_run(run)
    assert asked.ledger is not None
    assert annotate.main(["import", str(run), str(run / "returned" / "cat"), "--check"]) == 0


def test_links_that_were_sorted_into_folders_stay_links(run: Path, tmp_path: Path) -> None:
    """They name their image for certain."""
    folder = tmp_path / "sorted" / "dog"
    folder.mkdir(parents=True)
    (folder / "renamed.jpg").symlink_to(tmp_path / "photos" / "a.jpg")
    assert imported(run, folder) == ["dog/renamed.jpg"]
    assert (run / "returned" / "dog" / "renamed.jpg").is_symlink()


@pytest.mark.parametrize("around", ["..", "../..", "."])
def test_a_folder_around_the_run_is_refused(
    run: Path, around: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped path does not copy a disk into the run."""
    monkeypatch.chdir(run)
    assert annotate.main(["import", str(run), around]) == 1
    assert f"{around} contains the run or its images" in capsys.readouterr().err
    assert not (run / "returned").exists()


def test_pipes_and_hidden_files_are_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line names the file, and nothing has been copied."""
    folder = tmp_path / "export"
    write(folder / "labels.csv", "a.jpg,cat")
    os.mkfifo(folder / "pipe.csv")
    for path, says in (
        (folder, "pipe.csv: it is no regular file"),
        (folder / "pipe.csv", "pipe.csv: it is no regular file"),
        (write(folder / ".labels.csv", "a.jpg,cat"), "is hidden"),
        (tmp_path / "nowhere.csv", "there is no"),
    ):
        assert annotate.main(["import", str(run), str(path)]) == 1
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert not (run / "returned").exists()


def test_a_full_disk_leaves_no_half_file(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated CSV would count as a whole one: files are moved in when they are complete."""
    first = write(run.parent / "a" / "labels.csv", "a.jpg,cat")
    second = write(run.parent / "b" / "more.csv", "b.jpg,cat")
    copied = []
    real = annotate.shutil.copystat

    def full(source: str, target: str) -> None:
        copied.append(target)
        if len(copied) == 4:  # two to look at them, then the second of two to hand in
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(annotate.shutil, "copystat", full)
    assert annotate.main(["import", str(run), str(first), str(second)]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert list((run / "returned").iterdir()) == []


def test_what_a_killed_import_has_left_goes_with_the_next(run: Path) -> None:
    """Its copies were never read; whatever else is in the folder stays."""
    left = run / "returned" / annotate.STAGED.format("0123") / "labels.csv"
    write(left, "a.jpg,cat")
    write(run / "returned" / ".mine.part", "b.jpg,cat")
    assert imported(run, write(run.parent / "labels.csv", "c.jpg,cat")) == [
        ".mine.part",
        "labels.csv",
    ]


def test_imports_take_turns(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two at once could choose the same place: the second is refused and can be repeated."""
    file = write(run.parent / "labels.csv", "a.jpg,cat")
    with hold(run / "annotations", otherwise=""):
        assert annotate.main(["import", str(run), str(file)]) == 1
        assert annotate.main(["import", str(run), str(file), "--check"]) == 0
    assert "in use by another process; repeat the import" in capsys.readouterr().err
    assert imported(run, file) == ["labels.csv"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_came_a_moment_ago_is_not_overwritten(
    run: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
) -> None:
    """A tool that writes the same name while an import copies keeps its file."""
    file = write(run.parent / "labels.csv", "a.jpg,cat")
    real = annotate.shutil.copystat

    def meanwhile(source: str, target: str) -> None:
        real(source, target)
        if annotate.STAGED.partition("{")[0] in str(target):
            write(run / "returned" / "labels.csv", "b.jpg,dog")

    monkeypatch.setattr(annotate.shutil, "copystat", meanwhile)
    if not has_links:
        monkeypatch.setattr(os, "link", _no_links)
    assert annotate.main(["import", str(run), str(file)]) == int(has_links)
    kept = (run / "returned" / "labels.csv").read_text(encoding="utf-8")
    assert ("b.jpg,dog" in kept) or not has_links


def _no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")
