"""Looking at a run from outside."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from experiments.annotation.run_view import AskingRun
from experiments.data.labels import Rules
from experiments.runs.folder import RunFolder


def test_looking_at_a_run_never_keeps_one_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a run is in progress is found out without taking its lock."""
    run = AskingRun(tmp_path / "run", {}, {}, None, Rules("classification", ()))
    assert not run.is_running
    folder = RunFolder(run.folder, {})
    assert run.is_running
    folder.close()
    taken = []
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *arguments: taken.append(arguments))
        assert not run.is_running
    assert taken == []
