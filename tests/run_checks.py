"""Checks of runs that several tests share."""

from __future__ import annotations

from pathlib import Path

from tests.small_runs import (
    Ended,
)


def check_refused(ended: Ended, says: str) -> None:
    """Check for one clear line on stderr and a failure."""
    assert ended.status == 1, ended
    assert ended.stderr.endswith("\n")
    lines = ended.stderr.splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    assert says in lines[0]


def no_half_files(folder: Path) -> bool:
    """Return whether no partly written file is left."""
    return not list(folder.rglob("*.part"))
