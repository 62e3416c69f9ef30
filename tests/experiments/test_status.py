"""The status of a run while nobody is asked: what it does, and since when."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from experiments.learning.observer import CycleObserver
from experiments.runs.folder import RunFolder
from experiments.runs.log_file import logged_to
from experiments.settings.stop_settings import AGREEMENT
from experiments.status import main
from tests.experiments.small_tasks import cpu_engine
from tests.experiments.synthetic_runs import write_run

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


def records(folder: Path, *agreements: float | None, **stop: Any) -> Path:
    """Write a run with these agreements, one of each cycle, and an accuracy that rises."""
    RunFolder(folder, {}).close()
    (folder / "config.yaml").write_text(f"{CONFIG}stop: {json.dumps(stop)}\n")
    rows = [
        {"cycle": k, "num_labeled": 100 * (k + 1), "accuracy": 60 + 3 * k, AGREEMENT: agreement}
        for k, agreement in enumerate(agreements)
    ]
    state = {"format": 1, "cycle": len(rows), "finished": False, "records": rows}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def test_a_run_tells_whether_more_labels_pay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """How stable its predictions are, and what as many labels as the last cycle had would bring."""
    lines = status(records(tmp_path / "run", None, 0.9, 0.92, 0.94), capsys)
    stable = (
        "  stable     not yet: predictions agree with those of the cycle before to kappa 0.920 "
        "(mean of 3 cycles; stable from 0.99 on)"
    )
    assert stable in lines
    (more,) = [line for line in lines if line.startswith("  more")]
    said = (
        r"  more +100 more labels would bring about [\d.]+ points of accuracy \([\d.]+ to [\d.]+\)"
    )
    assert re.fullmatch(said, more)
    lines = status(records(tmp_path / "few", None, 0.99), capsys)
    assert not [line for line in lines if line.startswith(("  stable", "  more"))]
    lines = status(records(tmp_path / "low", None, 0.8, threshold=0.7, window=1), capsys)
    assert any(line.startswith("  stable     yes: ") for line in lines)


def test_a_run_that_a_rule_has_ended_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason for the early end is the rule, or that no image was left."""
    for rule, why in (("stabilizing", "predictions no longer change"), ("none", "no image")):
        folder = records(tmp_path / rule, None, 1.0, rule=rule, window=1)
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps({**state, "finished": True}))
        lines = status(folder, capsys)
        assert any(line.startswith(f"  ended      early: {why}") for line in lines)


def test_damaged_settings_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that this version does not know are an error with the key."""
    folder = records(tmp_path / "run", None, 1.0, patience=3)
    assert main([str(folder)]) == 1
    assert "stop has unknown keys" in capsys.readouterr().err


def test_several_runs_are_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row each, named below their folder; what is no run is an error and hides no other."""
    write_run(tmp_path / "runs", "margin", 0, accuracy=[50.0, 62.5], num_labeled=[500, 1000])
    stopped = tmp_path / "runs" / "random"
    RunFolder(stopped, {}).close()
    (stopped / "config.yaml").write_text(CONFIG)
    with pytest.raises(ZeroDivisionError), logged_to(stopped / "log.txt"):
        raise ZeroDivisionError("by zero")
    damaged = tmp_path / "entropy"
    damaged.mkdir()
    (damaged / "config.yaml").write_text("cycles: many")
    assert main([str(tmp_path / "runs"), str(damaged)]) == 1
    printed = capsys.readouterr()
    assert f"error: {damaged / 'config.yaml'} cannot be read" in printed.err
    header, _, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in printed.out.splitlines()
    )
    assert header == ["run", "state", "cycles", "labels", "result", "latest"]
    none = "\N{EN DASH}"
    assert rows == [
        ["cifar10-digits/margin/seed0", "finished", "2 of 2", "1 000", "accuracy 62.50", ""],
        ["random", "stopped", "0 of 4", none, none, "stopped: by zero (0 s ago)"],
    ]
