"""A run that is killed, or finds the disk full, at any of its writes: the next start goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from experiments.runs import gallery
from experiments.runs.session import Outcome
from tests.experiments.runs.fakes import Learner, People, Task
from tests.experiments.runs.sessions import Run

CYCLES = 2
NUM_MOVES = 25
"""Files that a run of two cycles moves into its folder."""


class Killed(BaseException):
    """Ends a start where a kill would, as far as files are concerned."""


class Disk:
    """Counts the files that are moved into their place, and raises an error before one of them.

    Attributes:
        moved: Their names, in order.
        broken: The number of the move that fails, from 0; None for no failure.
    """

    def __init__(self, patch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.moved: list[str] = []
        self.broken: int | None = None
        move = os.replace

        def replace(source: Any, target: Any) -> None:
            if len(self.moved) == self.broken:
                raise error
            move(source, target)
            self.moved.append(Path(target).name)

        patch.setattr(os, "replace", replace)


def unbroken(tmp_path: Path, patch: pytest.MonkeyPatch) -> Run:
    """Return a run that went through, with one thumbnail a cycle to keep it short."""
    patch.setattr(gallery, "NUM_SHOWN", 1)
    whole = Run(tmp_path / "whole", patch)
    whole.start(cycles=CYCLES)
    return whole


def test_all_writes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests below try each of them, and the last one is the state."""
    disk = Disk(monkeypatch, Killed())
    unbroken(tmp_path, monkeypatch)
    assert len(disk.moved) == NUM_MOVES
    assert disk.moved[:3] == ["config.yaml", "provenance.json", "state.json"]
    assert disk.moved[-3:] == ["cycle_01.pt", "cycles.csv", "state.json"]


@pytest.mark.parametrize("broken", range(NUM_MOVES))
def test_killed_before_any_write_a_run_ends_as_the_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """The next start repeats the cycle in progress, on the same labels, to the same files."""
    whole, one = unbroken(tmp_path, monkeypatch), Run(tmp_path / "run", monkeypatch)
    disk = Disk(monkeypatch, Killed())
    disk.broken = broken
    with pytest.raises(Killed):
        one.start(cycles=CYCLES)
    disk.broken = None
    learner = Learner(Task())
    assert one.start(learner, cycles=CYCLES) == Outcome(4.0)
    committed = max(0, disk.moved[:broken].count("state.json") - 1)  # the first one begins the run
    assert len(learner.fitted) == CYCLES - committed
    assert one.results() == whole.results()


@pytest.mark.parametrize("broken", range(NUM_MOVES))
def test_a_full_disk_at_any_write_is_the_error_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """No file is left half-written, and with room the run ends as the unbroken one."""
    whole, one = unbroken(tmp_path, monkeypatch), Run(tmp_path / "run", monkeypatch)
    disk = Disk(monkeypatch, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    disk.broken = broken
    with pytest.raises(OSError, match="No space left on device"):
        one.start(cycles=CYCLES)
    assert not list(tmp_path.rglob("*.part"))
    assert one.path.exists() == (broken > 1)  # until then nothing is worth keeping
    disk.broken = None
    assert one.start(cycles=CYCLES) == Outcome(4.0)
    assert one.results() == whole.results()


@pytest.mark.parametrize("broken", range(NUM_MOVES // 2))
def test_people_are_asked_again_if_their_request_was_not_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    """Killed at any write of a cycle, the next start asks for the same images."""
    monkeypatch.setattr(gallery, "NUM_SHOWN", 1)
    one = Run(tmp_path / "run", monkeypatch)
    disk = Disk(monkeypatch, Killed())
    disk.broken = broken
    with pytest.raises(Killed):
        one.start(people=People([[0, 1]]))
    disk.broken = None
    people = People([[0, 1]])
    assert one.start(people=people).waiting is not None
    assert people.asked == [(1, [9, 8])]
