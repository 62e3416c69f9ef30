"""The rules of people as the oracle, at `People` itself: nothing is trained."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core import files
from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.annotation.ledger import Ledger
from experiments.annotation.people import People, Waiting
from experiments.annotation.settings import LabelStudioSettings, PeopleSettings
from experiments.annotation.unlabeled import Collected
from experiments.data.labels import Rules
from tests.experiments.annotation.inboxes import write_labels

CLASSES = ("cat", "dog")
INITIAL, QUERY, TEST, CYCLES = 4, 2, 2, 2


@dataclass
class Photos:
    """Twelve images of a team, and the run that asks about them."""

    place: Path
    partial: bool = False
    is_live: bool = False
    files: int = 0

    def __post_init__(self) -> None:
        self.root, self.run = self.place / "photos", self.place / "run"
        self.root.mkdir()
        self.returned = self.run / "returned"
        for number in range(12):
            self.write(f"{number:02d}.png")

    def write(self, name: str) -> None:
        """Write an image."""
        assert cv2.imwrite(str(self.root / name), np.full((4, 4, 3), 90, np.uint8))

    def open(self, cycle: int = 0) -> Collected | str:
        """Start the run; return the answers, or the text of what it waits for."""
        kind = partial(LabelStudioSettings, url="http://host") if self.is_live else PeopleSettings
        settings = kind(test_size=TEST, partial=self.partial, images="none")
        self.people = People(
            settings, run_folder=self.run, root=self.root,
            rules=Rules("classification", CLASSES), has_test=False,
        )  # fmt: skip
        answer = self.people.open(
            cycle=cycle, cycles=CYCLES, initial_size=INITIAL, query_size=QUERY, seed=0
        )
        return answer.text if isinstance(answer, Waiting) else answer

    def answers(self, cycle: int = 0) -> Collected:
        """Start the run, which must have all that it needs."""
        collected = self.open(cycle)
        assert isinstance(collected, Collected), collected
        return collected

    def waits(self, cycle: int = 0) -> str:
        """Start the run, which must wait; return what it says."""
        text = self.open(cycle)
        assert isinstance(text, str)
        return text

    def ask(self, cycle: int, names: Sequence[str]) -> None:
        """Ask for images, as a cycle does at its end."""
        self.people.ask(cycle, names, [0.5] * len(names), {})

    def label(self, names: Sequence[str], label: str = "cat") -> None:
        """Return a CSV that is newer than all before it."""
        self.files += 1
        write_labels(self.returned / f"{self.files}.csv", names, label, newer=self.files)

    def ledger(self, cycle: int = 0) -> Ledger:
        """Return the record as it is on disk."""
        return Ledger.read(self.run, cycle=cycle)

    def request(self, cycle: int = 0) -> tuple[str, ...]:
        """Return the names of a request, those for the test set last."""
        return self.ledger(cycle).requests[cycle].names


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Images that nobody was asked about yet."""
    return Photos(tmp_path)


def named(collected: Collected, positions: Sequence[int]) -> set[str]:
    """Return the names at positions."""
    return {collected.names[position] for position in positions}


def test_a_complete_batch_is_what_is_trained_on(photos: Photos) -> None:
    """The run waits until the last image of the batch is back; the test set is held out."""
    assert "batch 0, 0 of 6 images are back (4 to train on, 2 to measure with)" in photos.waits()
    wanted = photos.request()
    photos.label(wanted[:-1])
    assert "5 of 6" in photos.waits()
    assert photos.request() == wanted  # asking again changes nothing
    photos.label(wanted[-1:], "dog")
    collected = photos.answers()
    assert [named(collected, batch) for batch in collected.batches] == [set(wanted[:INITIAL])]
    assert named(collected, collected.test) == set(wanted[INITIAL:])
    assert named(collected, sorted(collected.excluded)) == set(wanted[INITIAL:])
    labels = {collected.names[k]: kept.class_name for k, kept in collected.labels.items()}
    assert labels == {name: "dog" if name == wanted[-1] else "cat" for name in wanted}


def test_a_partial_batch_suffices_if_that_was_said(photos: Photos) -> None:
    """At least two images to train on and one to measure with; the rest joins when it comes."""
    photos.partial = True
    photos.waits()
    wanted = photos.request()
    photos.label([wanted[0], wanted[-1]])
    assert "2 of 6" in photos.waits()
    photos.label([wanted[1]])
    collected = photos.answers()
    assert named(collected, collected.batches[0]) == set(wanted[:2])
    assert named(collected, sorted(collected.excluded)) == set(wanted[2:])  # not asked for again
    photos.label(wanted[2:4])
    assert named(photos.answers(), photos.answers().batches[0]) == set(wanted[:4])


def test_a_live_run_waits_for_its_share_after_every_start(photos: Photos) -> None:
    """A restart does not train before half of the newest batch is back."""
    photos.partial = photos.is_live = True
    photos.waits()
    wanted = photos.request()
    photos.label([*wanted[:2], wanted[-1]])
    photos.answers()
    one, other = sorted(set(photos.ledger().names) - set(wanted))[:2]
    photos.ask(1, [one, other])
    photos.label(wanted[2:4])
    assert "batch 1, 0 of 2" in photos.waits(1)
    photos.label([one])
    assert one in named(photos.answers(1), photos.answers(1).batches[1])


def test_a_refused_image_is_left_out_until_the_refusal_is_lifted(photos: Photos) -> None:
    """It counts as back, is neither trained on nor asked for, and returns with a label."""
    photos.waits()
    wanted = photos.request()
    photos.label(wanted)
    photos.label([wanted[0]], "cannot_label")
    collected = photos.answers()
    assert named(collected, collected.batches[0]) == set(wanted[1:INITIAL])
    assert wanted[0] in named(collected, sorted(collected.excluded))
    photos.label([wanted[0]], "dog")
    collected = photos.answers()
    assert named(collected, collected.batches[0]) == set(wanted[:INITIAL])
    assert photos.ledger().answers[wanted[0]].class_name == "dog"


def test_all_refused_is_one_line_and_a_way_on(photos: Photos) -> None:
    """Nothing can be learned from a batch of refusals; labels of other images suffice then."""
    photos.waits()
    photos.label(photos.request(), "cannot_label")
    with pytest.raises(InvalidSetting, match="batch 0 is back, but with 0 labeled images"):
        photos.open()
    photos.label(photos.request())
    photos.answers()


def test_a_changed_label_counts_and_the_old_one_stays_on_record(
    photos: Photos, caplog: pytest.LogCaptureFixture
) -> None:
    """The newest file wins, with a line in the log; no accepted file is written again."""
    caplog.set_level("INFO")
    photos.waits()
    name = photos.request()[0]
    photos.label(photos.request())
    photos.answers()
    accepted = photos.run / "annotations" / "accepted"
    before = {path.name: path.read_bytes() for path in accepted.iterdir()}
    photos.label([name], "dog")
    photos.answers()
    assert f"{name}: the annotation in 2.csv replaces that in 1.csv" in caplog.text
    assert photos.ledger().answers[name].class_name == "dog"
    assert {path: (accepted / path).read_bytes() for path in before} == before


def test_an_annotation_that_nobody_asked_for_joins_the_newest_batch(photos: Photos) -> None:
    """At the start it counts with batch 0 as if it had been asked for; later it joins the next."""
    photos.returned.mkdir(parents=True)
    photos.label(["00.png", "01.png"])
    assert f"batch 0, 2 of {INITIAL + TEST}" in photos.waits()
    photos.label(photos.request())
    first = photos.answers()
    assert len(first.batches[0]) == INITIAL
    free = sorted({*first.names} - {*photos.request()})
    photos.ask(1, free[:2])
    photos.label(free[2:3])
    assert "batch 1, 0 of 2" in photos.waits(1)
    photos.label(free[:2])
    second = photos.answers(1)
    assert named(second, second.batches[1]) == {*free[:3]}


def test_an_image_may_vanish_and_return(photos: Photos, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for a vanished image; its annotation is kept and counts when it is back."""
    photos.waits()
    wanted = photos.request()
    photos.label(wanted[1:])
    for name in wanted[:2]:  # asked for and not answered, and labeled
        (photos.root / name).rename(photos.place / name)
    collected = photos.answers()
    assert named(collected, collected.batches[0]) == set(wanted[2:INITIAL])
    assert f"2 images gone, 1 of them labeled (the first is {min(wanted[:2])})" in caplog.text
    for name in wanted[:2]:
        (photos.place / name).rename(photos.root / name)
    assert "5 of 6" in photos.waits()
    photos.label(wanted[:1])
    collected = photos.answers()
    assert named(collected, collected.batches[0]) == set(wanted[:INITIAL])


def test_a_new_image_joins_at_the_end(photos: Photos) -> None:
    """Positions of known images never change."""
    photos.waits()
    before = photos.ledger().names
    photos.write("-1 is sorted first.png")
    photos.waits()
    assert photos.ledger().names == [*before, "-1 is sorted first.png"]


def test_an_image_that_vanishes_while_it_is_asked_for_is_one_line(photos: Photos) -> None:
    """The error is the project's own, so that the command prints it without a traceback."""
    photos.waits()
    photos.label(photos.request())
    free = sorted({*photos.answers().names} - {*photos.request()})
    (photos.root / free[0]).unlink()
    with pytest.raises(ActiveLearningError, match=f"the image {free[0]} cannot be read"):
        photos.ask(1, free[:2])


def test_a_request_beyond_the_recorded_cycle_never_happened(photos: Photos) -> None:
    """A process that was killed before its cycle was recorded asks again, for other images too."""
    photos.waits()
    photos.label(photos.request())
    free = sorted({*photos.answers().names} - {*photos.request()})
    photos.ask(1, free[:2])
    assert [request.cycle for request in photos.ledger(0).requests] == [0]
    photos.answers()
    photos.ask(1, free[2:4])
    assert photos.request(1) == tuple(free[2:4])


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        ("annotations/images.json", b"[1]", "images.json cannot be read"),
        ("annotations/images.json", b'["a', "images.json cannot be read"),
        ("annotations/seen.json", b'{"1.csv": 3}', "seen.json cannot be read"),
        ("annotations/accepted/000000.json", b"", "000000.json cannot be read"),
        ("annotations/accepted/000000.json", b'{"a": {"boxes": 1}}', "000000.json cannot be read"),
        ("requests/batch_00/request.json", b"{}", "request.json cannot be read"),
        ("requests/batch_00/request.json", b'{"cycle": 0, "train": 3}', "request.json cannot be"),
    ],
)
def test_a_damaged_record_is_one_line(photos: Photos, file: str, damage: bytes, says: str) -> None:
    """The file is named, and nothing is written over it."""
    photos.waits()
    photos.label(photos.request())
    photos.answers()
    (photos.run / file).write_bytes(damage)
    with pytest.raises(InvalidSetting, match=says) as refused:
        photos.open()
    assert "\n" not in str(refused.value)
    assert (photos.run / file).read_bytes() == damage


@pytest.mark.parametrize("write", range(1, 7))
def test_killed_at_any_write_the_next_start_ends_the_same(
    photos: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """After any number of completed writes, the same commands lead to the same answers."""

    def work() -> None:
        photos.open()
        if not photos.files:
            photos.label(photos.request())
        photos.answers()

    done = 0
    replace = os.replace

    def killed(source: str, target: str) -> None:
        nonlocal done
        done += 1
        if done == write:
            raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            work()
    work()
    (tmp_path / "other").mkdir()
    other = Photos(tmp_path / "other")
    other.waits()
    other.label(other.request())
    expected, found = other.answers(), photos.answers()
    assert (found.names, found.batches, found.test) == (
        expected.names, expected.batches, expected.test
    )  # fmt: skip
    assert {k: v.value for k, v in found.labels.items()} == {
        k: v.value for k, v in expected.labels.items()
    }
    assert not list(photos.run.rglob("*.part"))
