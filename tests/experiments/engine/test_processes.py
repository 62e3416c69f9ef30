"""Processes end with the one that started them."""

from __future__ import annotations

import errno
import multiprocessing.synchronize
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from experiments.engine.processes import check_semaphores, run_command
from experiments.ranking.executors import score_in_processes

STARTER = """
import sys
from experiments.engine.processes import run_command
run_command([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""
STARTED = """
import os, sys, time
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(60)
"""


def test_a_command_returns_its_exit_status() -> None:
    """Whatever it is."""
    for status in (0, 3):
        assert run_command([sys.executable, "-c", f"raise SystemExit({status})"]) == status


@pytest.mark.skipif(sys.platform != "linux", reason="the signal is Linux's")
def test_a_command_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    """Kill -9 of the starter alone ends the command too."""
    file = tmp_path / "pid"
    starter = subprocess.Popen([sys.executable, "-c", STARTER, STARTED, str(file)])
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = int(file.read_text())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    while (
        Path(f"/proc/{started}").exists() and " Z " not in Path(f"/proc/{started}/stat").read_text()
    ):
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.02)


def test_a_machine_without_semaphores_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error of a read-only /dev/shm names no file, and looked like one of the run folder."""
    check_semaphores("executor=processes")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(multiprocessing.synchronize, "SemLock", refuse)
    monkeypatch.setattr(multiprocessing.synchronize, "Lock", refuse)
    text = (
        "needs shared memory, and /dev/shm cannot be used (Read-only file system): mount it "
        "writable, or use one process"
    )
    with pytest.raises(InvalidSetting, match=re.escape(f"executor=processes {text}")):
        check_semaphores("executor=processes")
    with pytest.raises(InvalidSetting, match=re.escape(f"engine.num_processes=2 {text}")):
        Engine(device="cpu", num_processes=2).launch(print)
    with pytest.raises(InvalidSetting, match=re.escape(f"executor=processes {text}")):
        next(score_in_processes(None, [], num_workers=2))  # type: ignore[arg-type]
