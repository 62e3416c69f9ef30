"""The status of a run while nobody is asked: what it does, and since when."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import pytest

from experiments.learning.observer import CycleObserver
from experiments.runs.folder import RunFolder
from experiments.runs.log_file import logged_to
from experiments.status import main
from tests.experiments.small_tasks import cpu_engine

CONFIG = "cycles: 4\ntask: {kind: classification, metric: accuracy}\n"


def status(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that the command prints."""
    assert main([str(folder)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_running_run_tells_what_it_is_doing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """From its preparation on, the newest line of its log and the age of that line."""
    caplog.set_level(logging.INFO)
    run = tmp_path / "run"
    folder = RunFolder(run, {})
    with logged_to(run / "log.txt"):
        assert status(run, capsys) == [f"{run}: preparing"]
        observer = CycleObserver(cpu_engine())
        observer.start_cycle(0)
        observer.announce("epoch 3 of 9, loss 0.5, 12 images/s, 4 min left")
        an_hour_ago = time.time() - 3600
        os.utime(run / "log.txt", (an_hour_ago, an_hour_ago))
        now = "  now        cycle 0: epoch 3 of 9, loss 0.5, 12 images/s, 4 min left (60 min ago)"
        assert status(run, capsys) == [f"{run}: preparing", now]
        (run / "config.yaml").write_text(CONFIG)
        assert status(run, capsys) == [f"{run}: running cycle 0 of 4", now]
    folder.close()


def test_a_stopped_run_tells_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason why it stopped, without its traceback; long logs are read at their end."""
    run = tmp_path / "run"
    RunFolder(run, {}).close()
    (run / "config.yaml").write_text(CONFIG)
    (run / "log.txt").write_text("no line of a log\n" * 10_000)
    with pytest.raises(ZeroDivisionError), logged_to(run / "log.txt"):
        raise ZeroDivisionError("by zero")
    head, last, following = status(run, capsys)
    assert head == f"{run}: stopped in cycle 0 of 4, waits for nobody"
    assert last == "  last       stopped: by zero (0 s ago)"
    assert "goes on" in following
