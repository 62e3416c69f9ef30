"""Detecting new and changed annotation files, without any training."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import pytest

from experiments.annotation import inbox as module
from experiments.annotation.inbox import read_returned
from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Kept
from experiments.data.labels import Rules
from tests.experiments.annotation.inboxes import write_rows

RULES = Rules("classification", ("cat", "dog"))


class Inbox:
    """A folder in which annotations come back, and the ledger that takes them over."""

    def __init__(self, place: Path) -> None:
        self.place, self.returned, self.written = place, place / "returned", 0
        self.returned.mkdir()
        Ledger(place).add_images([f"{letter}.jpg" for letter in "abcdef"])

    def put(self, file: str, *rows: tuple[str, str]) -> None:
        """Write a CSV that is newer than all before it."""
        self.written += 1
        write_rows(self.returned / file, rows, newer=self.written)

    def start(self) -> list[str]:
        """Read and accept what came back, as every start of a run does; return the problems."""
        ledger = self.ledger()
        found = read_returned(ledger, self.returned, RULES, self.place)
        ledger.accept({**found.answers, **found.confirmed}, found.seen)
        return found.problems

    def ledger(self) -> Ledger:
        """Return the record as the next process reads it."""
        return Ledger.read(self.place, cycle=0)

    def said(self, name: str = "a.jpg") -> str | None:
        """Return the class that counts for an image."""
        return self.ledger().answers.get(name, Kept()).class_name


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    """A folder without annotations."""
    return Inbox(tmp_path)


def test_an_older_file_that_is_read_again_never_replaces_a_newer_one(inbox: Inbox) -> None:
    """A confirmed answer is as new as the file that confirmed it, at every later start."""
    inbox.put("1.csv", ("a.jpg", "cat"))
    inbox.start()
    inbox.put("2.csv", ("a.jpg", "dog"), ("nowhere.jpg", "dog"))  # read at every start
    inbox.put("3.csv", ("a.jpg", "cat"))
    for _ in range(3):
        assert len(inbox.start()) == 1
        assert inbox.said() == "cat"


def test_a_file_whose_name_is_not_utf8_is_one_problem(inbox: Inbox) -> None:
    """It is reported with its name escaped until it is renamed; everything else counts."""
    inbox.put("1.csv", ("a.jpg", "cat"))
    odd = inbox.returned / os.fsdecode(b"\xff.csv")
    try:
        odd.write_text("name,label\nb.jpg,cat\n")
    except OSError:
        pytest.skip("this file system holds UTF-8 names only")
    for _ in range(2):
        assert inbox.start() == [r"\udcff.csv: its name is not UTF-8: rename it"]
    assert inbox.said() == "cat"
    odd.rename(inbox.returned / "2.csv")
    assert inbox.start() == []
    assert inbox.said("b.jpg") == "cat"


def test_what_a_file_contains_is_reported_in_one_printable_line(inbox: Inbox) -> None:
    """Line breaks, lone surrogates and endless words of a file never reach the log as they are."""
    task = {"data": {"name": "a.jpg\n\ud800"}, "annotations": [{"result": []}]}
    (inbox.returned / "1.json").write_text(json.dumps([task, {"data": {"name": "x" * 10_000}}]))
    for problem in inbox.start():
        assert problem.isprintable()
        assert len(problem) < 700


def test_a_changed_file_counts_as_the_newest(inbox: Inbox) -> None:
    """An old file that is edited overrides the files that came after it."""
    inbox.put("1.csv", ("a.jpg", "cat"))
    inbox.put("2.csv", ("a.jpg", "dog"))
    inbox.start()
    assert inbox.said() == "dog"
    inbox.put("1.csv", ("a.jpg", "cat"))
    inbox.start()
    assert inbox.said() == "cat"


def test_files_that_come_together_count_in_the_order_of_their_times(inbox: Inbox) -> None:
    """Names do not matter, the time of change does."""
    inbox.put("z.csv", ("a.jpg", "cat"))
    inbox.put("a.csv", ("a.jpg", "dog"))
    inbox.start()
    assert inbox.said() == "dog"


def test_a_file_without_problems_is_read_once(
    inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost of a start does not grow with everything that ever came back."""
    inbox.put("1.csv", ("a.jpg", "cat"))
    inbox.put("2.csv", ("b.jpg", "cow"))
    inbox.start()
    read = []
    real = module.read_file
    monkeypatch.setattr(module, "read_file", lambda *a: (read.append(a[1]), real(*a))[1])
    inbox.start()
    assert read == ["2.csv"]


def test_a_file_that_is_taken_away_keeps_its_answers(inbox: Inbox) -> None:
    """Accepted answers stay on record; the problems of the file end with it."""
    inbox.put("1.csv", ("a.jpg", "cat"), ("b.jpg", "cow"))
    assert len(inbox.start()) == 1
    (inbox.returned / "1.csv").unlink()
    assert inbox.start() == []
    assert inbox.said() == "cat"


def test_looking_changes_nothing(inbox: Inbox) -> None:
    """`status` reads as a run does and leaves no trace, in memory or on disk."""
    inbox.put("1.csv", ("a.jpg", "cat"))
    ledger = inbox.ledger()
    before = set(inbox.place.rglob("*"))
    for _ in range(2):
        found = read_returned(ledger, inbox.returned, RULES, inbox.place, write=False)
        assert list(found.answers) == ["a.jpg"]
    assert (ledger.answers, ledger.seen) == ({}, {})
    assert set(inbox.place.rglob("*")) == before


def test_an_image_in_two_class_folders_is_in_neither(inbox: Inbox) -> None:
    """Both files are problems, and are read again until one is taken away."""
    for label in ("cat", "dog"):
        (inbox.returned / label).mkdir()
        (inbox.returned / label / "a.jpg").touch()
    for _ in range(2):
        assert sorted(inbox.start()) == [
            "cat/a.jpg: a.jpg lies in dog/a.jpg too: keep one of them",
            "dog/a.jpg: a.jpg lies in cat/a.jpg too: keep one of them",
        ]
    assert inbox.said() is None
    (inbox.returned / "cat" / "a.jpg").unlink()
    assert inbox.start() == []
    assert inbox.said() == "dog"


def test_an_archive_is_one_file_with_answers_of_its_own(inbox: Inbox) -> None:
    """It is read once, its answers name the file inside, and a newer file counts before it."""
    archive = inbox.returned / "export.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("cat/a.jpg", "")
        opened.writestr("dog/b.jpg", "")
        opened.writestr("cat/b.jpg", "")
    os.utime(archive, (1, 1))
    inbox.written = 1
    problems = inbox.start()
    assert len(problems) == 2
    assert all(line.startswith("export.zip/") and "too: keep one" in line for line in problems)
    assert inbox.said("a.jpg") == "cat"
    assert inbox.said("b.jpg") is None
    assert inbox.ledger().answers["a.jpg"].source == "export.zip/cat/a.jpg"
    inbox.put("2.csv", ("a.jpg", "dog"), ("b.jpg", "dog"))
    inbox.start()
    inbox.start()
    assert inbox.said("a.jpg") == inbox.said("b.jpg") == "dog"


def test_a_class_in_other_letters_is_taken_with_a_note(inbox: Inbox) -> None:
    """Case and surrounding blanks do not matter, and the note says what was taken for what."""
    inbox.put("1.csv", ("a.jpg", " Cat "), ("b.jpg", "CAT"), ("c.jpg", "cat"))
    found = read_returned(inbox.ledger(), inbox.returned, RULES, inbox.place)
    assert found.problems == []
    assert {kept.class_name for kept in found.answers.values()} == {"cat"}
    assert found.notes == (
        "'Cat' was taken for the class cat", "'CAT' was taken for the class cat"
    )  # fmt: skip
