"""Processes end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments.engine.processes import run_command

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
