"""Runs of every kind, killed -9 and gone on with: `tests.killed_runs`, small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.killed_runs import KINDS, differences, kill_a_kind


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_twice_a_run_ends_as_if_nothing_had_been(kind: str, tmp_path: Path) -> None:
    """At two random moments: the same CSVs, thumbnails, requests and weights, byte for byte."""
    killed = kill_a_kind(kind, tmp_path, kills=2, seed=3)
    assert killed.kills == 2
    assert killed.different == []


def test_a_difference_would_be_seen() -> None:
    """A row that changed, a file too many and one too few are each named."""
    theirs = {"a.csv": b"1", "b.csv": [{"x": "1"}], "c.csv": b""}
    ours = {"a.csv": b"2", "b.csv": [{"x": "1"}], "d.csv": b""}
    assert differences(ours, theirs) == ["a.csv", "c.csv", "d.csv"]
