"""W&B that dies, is out of reach, or is not there: the run goes on, and says so."""

from __future__ import annotations

import logging
import os
import pty
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import wandb
from omegaconf import OmegaConf

from al_core.errors import InvalidSetting
from experiments.runs.log_file import logged_to
from experiments.runs.tracker import NoTracker, Tracker, WandbTracker
from tests.experiments.tracked import (
    ROOT,
    SUMMARY,
    record_and_row,
    start,
    step_of,
    warnings_of,
    write_cycle,
)
from tests.experiments.tracked import no_account as _no_account  # noqa: F401  # for all of these
from tests.experiments.wandb_log import read_runs

CYCLE_IN_A_SUBPROCESS = """
import os, signal, sys, time
from pathlib import Path
from experiments.runs.tracker import WandbTracker
from tests.experiments.tracked import record_and_row, start

tracker = WandbTracker(mode="offline")
start(tracker, Path(sys.argv[1]))
print("cycle 0: training")
for cycle in range(2):
    tracker.log_cycle(*record_and_row(cycle), run_folder=Path(sys.argv[1]))
time.sleep(2)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_as_another_fragment(tmp_path: Path) -> None:
    """A kill loses at most the last second, also of what was printed and of the machine's use; the
    resumed run has the same id and later steps.
    """
    command = [sys.executable, "-c", CYCLE_IN_A_SUBPROCESS, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*record_and_row(2), run_folder=tmp_path)
    tracker.finish({}, failed=False)

    killed, resumed = read_runs(tmp_path)
    printed = "".join(record.line for record in killed.of("output_raw"))
    assert "cycle 0: training" in printed
    assert killed.of("stats")  # of the machine
    assert killed.run.run_id == resumed.run.run_id == "abcd1234"
    assert (killed.steps, killed.exit_codes) == ([step_of(0), step_of(1)], [])
    assert (resumed.steps, resumed.exit_codes) == ([step_of(2)], [0])


def test_a_full_disk_prints_no_traceback_for_a_line_of_the_log_of_wandb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines about W&B itself are lost silently: the tracker warns once of what that means."""
    monkeypatch.setattr(logging, "raiseExceptions", True)
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    full, log = logging.FileHandler("/dev/full"), logging.getLogger("wandb")
    log.addHandler(full)
    try:
        capfd.readouterr()
        with logged_to(tmp_path / "log.txt"):
            log.error("restore done")
    finally:
        log.removeHandler(full)
        with suppress(OSError):
            full.close()
    tracker.finish({}, failed=False)
    assert capfd.readouterr().err == ""


def test_a_disk_that_is_full_at_the_end_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """W&B's service does not report that it could not write its file."""
    tracker = WandbTracker(mode="offline")
    for free, said in ((0, ["the disk is full"]), (10**9, [])):
        usage = shutil.disk_usage(tmp_path)._replace(free=free)
        monkeypatch.setattr("experiments.runs.tracker.disk_usage", lambda path, is_=usage: is_)
        start(tracker, tmp_path)
        caplog.clear()
        tracker.finish({}, failed=False)
        assert [each[:16] for each in warnings_of(caplog)] == said


def _close_behind_its_back(run_folder: Path) -> None:
    wandb.finish()


def _kill_the_service(run_folder: Path) -> None:
    children = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    services = [pid for pid in pids if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)


def _break_a_table(run_folder: Path) -> None:
    (run_folder / "entropies" / "cycle_01.csv").write_bytes(b"no table")


@pytest.mark.parametrize("harm", [_close_behind_its_back, _kill_the_service, _break_a_table])
def test_a_failure_in_mid_run_is_one_warning(
    harm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When W&B fails, the run goes on, one line says so, and the next job is tracked."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path / "run")
    tracker.log_cycle(*write_cycle(tmp_path / "run", 0), run_folder=tmp_path / "run")
    cycles = [write_cycle(tmp_path / "run", cycle) for cycle in (1, 2)]
    harm(tmp_path / "run")
    for record, row in cycles:
        tracker.log_cycle(record, row, run_folder=tmp_path / "run")
    tracker.finish(SUMMARY, failed=False)
    (message,) = warnings_of(caplog)
    assert message.startswith("W&B failed (")
    assert "the run continues without it" in message
    assert f"wandb sync {tmp_path}/run/wandb/offline-run-" in message

    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path / "next", run_id="next")
    tracker.log_cycle(*record_and_row(0), run_folder=tmp_path / "next")
    tracker.finish({}, failed=False)
    assert [log.steps for log in read_runs(tmp_path / "next")] == [[step_of(0)]]
    assert len(warnings_of(caplog)) == 1


def test_a_vanished_folder_does_not_stop_the_run(tmp_path: Path) -> None:
    """A wandb folder that is deleted, or becomes a file, in mid-run lets log_cycle return."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    (tmp_path / "wandb").rename(tmp_path / "gone")
    (tmp_path / "wandb").write_text("in the way")
    tracker.log_cycle(*write_cycle(tmp_path, 0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)


def test_a_run_that_cannot_be_opened_is_not_tracked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where W&B cannot write at all the run goes on without it, with one line."""
    (tmp_path / "wandb").write_text("in the way")
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*record_and_row(0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)
    (message,) = warnings_of(caplog)
    assert message.startswith("W&B failed (NotADirectoryError")


UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "No API key configured"),
        ({"WANDB_API_KEY": "too short"}, "API key"),
        (UNREACHABLE, "connection refused|deadline exceeded"),
    ],
    ids=["no key", "bad key", "no network"],
)
def test_online_falls_back_to_offline(
    environment: Mapping[str, str],
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without key or network a run is tracked offline within seconds; one line says how to sync."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    tracker = WandbTracker(mode="online", init_timeout_seconds=2.0)
    start(tracker, tmp_path)
    tracker.log_cycle(*write_cycle(tmp_path, 0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)
    assert time.monotonic() - began < 20

    (log,) = read_runs(tmp_path)
    assert (log.run.run_id, log.steps, log.exit_codes) == ("abcd1234", [step_of(0)], [0])
    (message,) = warnings_of(caplog)
    assert message.endswith(f"to upload it later: wandb sync {log.path.parent}")
    assert any(part in message for part in reason.split("|"))
    assert capfd.readouterr().err == ""


ONLINE_IN_A_SUBPROCESS = """
import sys
from pathlib import Path
from experiments.runs.tracker import WandbTracker
from tests.experiments.tracked import start

tracker = WandbTracker(mode="online")
start(tracker, Path(sys.argv[1]))
tracker.finish({}, failed=False)
"""


@pytest.mark.slow
def test_nobody_is_asked_for_a_key(tmp_path: Path) -> None:
    """At a terminal, too, a run without key goes on at once instead of waiting for an answer."""
    theirs, ours = pty.openpty()
    command = [sys.executable, "-c", ONLINE_IN_A_SUBPROCESS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stdin=ours, stdout=ours, stderr=ours, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert len(read_runs(tmp_path)) == 1


def test_without_wandb_the_error_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where wandb is missing a WandbTracker says what to install or set, before anything runs."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InvalidSetting, match=r"pip install wandb.*tracker=none") as raised:
        WandbTracker(mode="offline")
    assert "\n" not in str(raised.value)


def test_no_tracker_needs_no_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NoTracker works, and leaves no file, where wandb cannot be imported."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    module = runpy.run_path(str(ROOT / "experiments" / "runs" / "tracker.py"))
    tracker = module["NoTracker"]()
    tracker.start(run_folder=tmp_path, name="", group="", config={}, tags=[], run_id="")
    tracker.log_cycle(None, {}, run_folder=tmp_path)
    tracker.finish({}, failed=False)
    assert list(tmp_path.iterdir()) == []


def test_trackers_that_never_started_do_nothing(tmp_path: Path) -> None:
    """log_cycle and finish before start, and a second finish, are harmless."""
    trackers: list[Tracker] = [NoTracker(), WandbTracker(mode="offline")]
    for tracker in trackers:
        tracker.log_cycle(*record_and_row(0), run_folder=tmp_path)
        tracker.finish(SUMMARY, failed=True)
        tracker.finish(SUMMARY, failed=True)
    assert list(tmp_path.glob("wandb")) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"project": ""}, "tracker.project"),
        ({"project": None}, "tracker.project"),
        ({"project": "a/b"}, "tracker.project"),
        ({"entity": "a/b"}, "tracker.entity"),
        ({"mode": "disabled"}, "tracker.mode must be online or offline"),
        ({"mode": False}, "tracker.mode must be online or offline"),
        ({"init_timeout_seconds": 0}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": True}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": "8"}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": float("nan")}, "tracker.init_timeout_seconds"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, named: str) -> None:
    """A setting that is not permitted is named, with what is permitted."""
    with pytest.raises(InvalidSetting, match=named):
        WandbTracker(**settings)


@pytest.mark.parametrize(
    ("choice", "mode"), [("wandb", "online"), ("wandb_offline", "offline"), ("none", None)]
)
def test_each_choice_builds(choice: str, mode: str | None) -> None:
    """Every file of conf/tracker builds its tracker, and its mode is what its name says."""
    config = OmegaConf.load(ROOT / "conf" / "tracker" / f"{choice}.yaml")
    tracker = hydra.utils.instantiate(config)
    assert isinstance(tracker, NoTracker if mode is None else WandbTracker)
    assert OmegaConf.select(config, "mode") == mode
