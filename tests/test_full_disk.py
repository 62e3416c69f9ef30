"""The disk is full at a write: one line, nothing half there, and the run goes on with room.

tests/experiments/runs tries every write of a run without training.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments import run
from tests.run_checks import no_half_files
from tests.small_runs import overrides, results

PART = Path("small") / "learning_loss" / "seed0"
OF_A_RUN = ("config.yaml", "queries/.cycle_00.csv", "checkpoints/.cycle_00.pt", "cycles.csv")
"""Kinds of files that a run writes, in that order."""


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[object, str]]]:
    """Run a command line in this process, with a disk that is full at a given file."""
    root, sync = logging.getLogger(), os.fsync
    handlers, level = list(root.handlers), root.level
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # what the command sets is taken back

    def command(arguments: list[str], *, full_at: str | None) -> tuple[object, str]:
        hits = 0

        def fsync(descriptor: int) -> None:
            nonlocal hits
            if full_at is not None and full_at in os.readlink(f"/proc/self/fd/{descriptor}"):
                hits += 1
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(sys, "argv", ["run", *arguments])
        capfd.readouterr()
        status: object = 0
        try:
            run.main()
        except SystemExit as stopped:
            status = stopped.code
        assert hits or full_at is None, f"{full_at} was not written"
        return status, capfd.readouterr().err

    yield command
    root.handlers[:] = handlers
    root.setLevel(level)


def test_full_at_a_write_a_run_ends_as_the_unbroken_one(
    command: Callable[..., tuple[object, str]], unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """One line each time, no file is half there, and with room the results are the same bits."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path}")
    for full_at in OF_A_RUN:
        status, err = command(arguments, full_at=full_at)
        assert status == 1, (full_at, err)
        assert err == (
            "error: No space left on device: while writing the run folder (all finished cycles "
            "are kept; the same command goes on from them)\n"
        ), full_at
        assert no_half_files(tmp_path), full_at
    assert command(arguments, full_at=None) == (0, "")
    assert results(tmp_path / PART) == results(unbroken)


@pytest.mark.slow
def test_a_sweep_without_room_ends_as_the_unbroken_one(
    command: Callable[..., tuple[object, str]], unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """A job that finds no room takes no other with it, and what failed is listed."""
    arguments = ["-m", *overrides(f"data.root={images}", f"out={tmp_path}", "seed=0,1")]
    status, err = command(arguments, full_at="seed0/queries")
    assert status == 1
    stopped, count, failed = err.splitlines()
    assert stopped.startswith("error: No space left on device")
    assert count == "1 of 2 runs failed:"
    assert failed.startswith("  seed=0: No space left on device: ")
    status, err = command(arguments, full_at="")  # no room for anything
    assert status == 1
    assert {each[:33] for each in err.splitlines()} == {"error: No space left on device: w"}
    status, err = command(arguments, full_at=".sweep/")
    assert (status, err) == (0, "")
    assert no_half_files(tmp_path)
    assert results(tmp_path / PART) == results(unbroken)
