"""Comparing strategies a seed at a time: which run is next, when it stops, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from experiments import compare
from experiments.engine.locks import is_held
from experiments.runs import comparison
from experiments.runs.folder import RunFolder
from tests.experiments.synthetic_runs import write_run
from tests.small_runs import overrides, read_rows, write_image_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, float]], list[tuple[str, int]]]:
    """Have runs cost nothing: strategies differ by their gains, seeds by noise; which were run."""

    def begin(gains: dict[str, float]) -> list[tuple[str, int]]:
        done: list[tuple[str, int]] = []

        def run(self: comparison.Comparison, strategy: str, seed: int) -> bool:
            done.append((strategy, seed))
            if gains[strategy] is None:
                self.failed.add((strategy, seed))
                return False
            noise = np.random.default_rng([seed, *strategy.encode()]).normal(0, 0.3, 3)
            accuracy = np.array([50.0, 60.0, 70.0]) + gains[strategy] + noise
            write_run(tmp_path, strategy, seed, accuracy=accuracy.tolist(), name="c")
            return self._read(strategy, seed)

        monkeypatch.setattr(comparison.Comparison, "run", run)
        return done

    return begin


def command(tmp_path: Path, strategies: str, *more: str) -> list[str]:
    """A command line for runs in `tmp_path`."""
    return [f"strategies={strategies}", "data=digits", f"out={tmp_path}", "name=c", *more]


def test_it_stops_when_all_is_settled(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """A clear difference takes few seeds; what is left of the budget is not spent."""
    done = simulated({"random": 0.0, "margin": 6.0})
    assert compare.main(command(tmp_path, "random,margin", "budget=40")) == 0
    shown = capsys.readouterr().out
    assert "margin is better than random by " in shown
    assert "settled at 3 seeds" in shown
    assert "6 of 40 runs spent, 0 of 1 pairs open" in shown
    assert done == [(s, seed) for seed in range(3) for s in ("random", "margin")]


def test_the_next_seed_goes_to_the_most_open_pair(tmp_path: Path, simulated: Callable) -> None:
    """Once it is settled that entropy is worse, no seed is spent on it any more."""
    done = simulated({"random": 0.0, "margin": 0.25, "entropy": -9.0})
    assert compare.main(command(tmp_path, "random,margin,entropy", "budget=30")) == 0
    seeds = {s: sum(strategy == s for strategy, _ in done) for s in ("random", "margin", "entropy")}
    assert seeds["entropy"] < seeds["random"] == seeds["margin"]
    assert sum(seeds.values()) <= 30


def test_the_same_command_goes_on(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """Finished runs count and are not run again; the budget is of the comparison as a whole."""
    done = simulated({"random": 0.0, "margin": 0.05})
    assert compare.main(command(tmp_path, "random,margin", "budget=6")) == 0
    assert "open after 3 seeds" in capsys.readouterr().out
    assert compare.main(command(tmp_path, "random,margin", "budget=10")) == 0
    assert len(done) == len(set(done)) == 10
    assert "10 of 10 runs spent, 1 of 1 pairs open" in capsys.readouterr().out
    assert compare.main(command(tmp_path, "random,margin", "budget=10")) == 0
    assert len(done) == 10


def test_seeds_run_out(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the last planned look, what is not settled is not distinguishable."""
    simulated({"random": 0.0, "margin": 0.05})
    assert compare.main(command(tmp_path, "random,margin", "budget=99", "seeds=4")) == 0
    shown = capsys.readouterr().out
    assert "not distinguishable at 4 seeds" in shown
    assert "8 of 99 runs spent, 0 of 1 pairs open" in shown


def test_another_plan_is_refused(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """More looks than were planned would not be paid for."""
    simulated({"random": 0.0, "margin": 0.05})
    assert compare.main(command(tmp_path, "random,margin", "budget=4", "seeds=4")) == 0
    capsys.readouterr()
    assert compare.main(command(tmp_path, "random,margin", "budget=9", "seeds=9")) == 1
    assert "has the plan seeds=4, not 9" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["{", "[]", "{}", "[" * 100_000])
def test_a_damaged_plan_is_one_line(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """It names the file, and the runs stay."""
    simulated({"random": 0.0, "margin": 0.05})
    assert compare.main(command(tmp_path, "random,margin", "budget=4", "seeds=4")) == 0
    (plan,) = tmp_path.rglob("compare-*.json")
    plan.write_text(content)
    capsys.readouterr()
    assert compare.main(command(tmp_path, "random,margin", "budget=4", "seeds=4")) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{plan} cannot be read" in error


def test_a_strategy_that_fails_from_the_start_stops_it(
    tmp_path: Path, simulated: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where a strategy cannot run at all, it is listed and the budget is not burnt on it."""
    done = simulated({"random": 0.0, "margin": None})
    assert compare.main(command(tmp_path, "margin,random", "budget=40")) == 1
    assert "failed: margin seed 0; log: " in capsys.readouterr().err
    assert done == [("margin", 0), ("random", 0), ("margin", 1)]


@pytest.mark.slow
def test_real_runs_killed_and_gone_on_with(tmp_path: Path) -> None:
    """Kill -9 in the middle of the second run; the same command ends with every run finished."""
    images = write_image_folder(tmp_path / "images")
    settings = [
        each
        for each in overrides(f"data.root={images}", f"out={tmp_path / 'runs'}", "cycles=2")
        if not each.startswith("strategy=")  # compare chooses it
    ]
    line = [sys.executable, "-m", "experiments.compare", "strategies=random,margin", "budget=2",
            "seeds=3", *settings]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(line, cwd=ROOT, env=environment, start_new_session=True,
                             stdout=subprocess.DEVNULL)  # fmt: skip
    folder = tmp_path / "runs" / "small"
    deadline = time.monotonic() + 240
    while not (folder / "margin" / "seed0" / "log.txt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)  # the run ends with it, or it would be in use
    first.wait()
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True,
                          timeout=500, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "run 1 of 2" not in done.stdout
    assert "2 of 2 runs spent" in done.stdout
    for strategy in ("random", "margin"):
        state = json.loads((folder / strategy / "seed0" / "state.json").read_text())
        assert state["finished"]
        assert len(read_rows(folder / strategy / "seed0" / "cycles.csv")) == 2


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_run_that_is_held_has_not_failed(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process is at work on it: one line, and no seed is skipped for it."""
    folder = tmp_path / "c" / "random" / "seed0"
    begin = threading.Event()

    def run_command(command: list[str]) -> int:
        begin.set()
        return 1  # as a run does that finds its folder in use

    monkeypatch.setattr(comparison, "run_command", run_command)
    monkeypatch.setattr(
        comparison,
        "is_held",
        lambda path: path == folder and (when == "before" or begin.is_set()),
    )
    assert compare.main(command(tmp_path, "random,margin", "budget=6")) == 1
    says = capsys.readouterr()
    assert says.err == (
        f"error: {folder} is in use by another process: wait for it, then the same command goes "
        "on\n"
    )
    assert "failed" not in says.out


def test_the_lock_of_a_run_shows_that_it_is_held(tmp_path: Path) -> None:
    """A folder is in use as long as a process holds it, and not for having been."""
    folder = tmp_path / "seed0"
    assert not is_held(folder)
    held = RunFolder(folder, {})
    assert is_held(folder)
    held.close()
    assert not is_held(folder)
    assert not is_held(tmp_path / "other")
    assert not (tmp_path / "other").exists()
