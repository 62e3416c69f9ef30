"""Runs that are killed and resumed, and the same command again: with real processes and networks.

tests/experiments/runs tries every write and every kind of damage without training.
"""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest

from tests.run_checks import check_refused, no_half_files
from tests.small_runs import (
    Program,
    contents,
    overrides,
    results,
    run_here,
    run_program,
)

# ---- interrupted


def test_killed_in_every_cycle_a_run_ends_as_the_unbroken_one(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """Killed before or after a file is moved in, once a cycle, it resumes to the same results."""
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'runs'}")
    folder = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    for kill_at in (
        ("cycles.csv", "after"),  # the table is ahead of the state
        ("entropies/cycle_01_upload.csv", "before"),
        ("cycle_02.pt", "after"),
    ):
        ended = run_program(arguments, tmp_path / "output", kill_at=kill_at)
        assert ended.status == -9, (kill_at, ended)
    assert json.loads((folder / "state.json").read_text())["cycle"] == 2
    assert run_program(arguments, tmp_path / "output").status == 0
    assert results(folder) == results(unbroken)
    assert no_half_files(folder)
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["cycle_02.pt"]


def kill_and_resume(images: Path, unbroken: Path, tmp_path: Path, *, times: int, seed: int) -> None:
    """Kill a run at a random moment and resume it, that many times, each a run of its own."""
    rng = random.Random(seed)
    run_program(["--version"], tmp_path / "output")  # the first one waits for imports
    start = time.monotonic()
    arguments = overrides(f"data.root={images}", f"out={tmp_path / 'whole'}")
    assert run_program(arguments, tmp_path / "output").status == 0
    seconds = time.monotonic() - start
    for attempt in range(times):
        out = tmp_path / f"runs{attempt}"
        arguments = overrides(f"data.root={images}", f"out={out}")
        program = Program(arguments, tmp_path / "output")
        # One moment in each stretch of the run, so that all of it is covered.
        time.sleep(seconds * (attempt + rng.random()) / times)
        program.kill()
        ended = run_program(arguments, tmp_path / "output")
        assert ended.status == 0, ended
        folder = out / "small" / "learning_loss" / "seed0"
        assert results(folder) == results(unbroken)
        assert no_half_files(folder)


def test_killed_at_random_moments(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """Kill -9 at two random moments: the same metrics and CSVs, byte for byte."""
    kill_and_resume(images, unbroken, tmp_path, times=2, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_at_twenty_random_moments(unbroken: Path, images: Path, tmp_path: Path) -> None:
    """Kill -9 at twenty random moments: the same metrics and CSVs, byte for byte."""
    kill_and_resume(images, unbroken, tmp_path, times=20, seed=2)


@pytest.mark.slow
def test_a_warm_start_resumes_from_the_weights_it_had(
    unbroken: Path, images: Path, tmp_path: Path
) -> None:
    """Mistake 7: with warm_start a resumed run takes over the last cycle's weights, not fresh."""
    warm = (f"data.root={images}", "cycle.warm_start=true")
    run_here(*warm, f"out={tmp_path / 'whole'}")
    arguments = overrides(*warm, f"out={tmp_path / 'killed'}")
    kill_at = ("entropies/cycle_01.csv", "before")
    assert run_program(arguments, tmp_path / "output", kill_at=kill_at).status == -9
    assert run_program(arguments, tmp_path / "output").status == 0
    part = Path("small") / "learning_loss" / "seed0"
    whole = results(tmp_path / "whole" / part)
    assert results(tmp_path / "killed" / part) == whole
    assert whole["cycles.csv"][0] == results(unbroken)["cycles.csv"][0]
    assert whole["cycles.csv"][1] != results(unbroken)["cycles.csv"][1]


# ---- the same command again


def test_a_finished_run_says_so_and_changes_nothing(
    place: Path, images: Path, tmp_path: Path
) -> None:
    """It exits 0 with one line that gives the result, and no file is touched."""
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), tmp_path / "output"
    )
    assert ended.status == 0, ended
    assert ended.stderr == ""
    assert "is finished: 3 cycles" in ended.stdout
    assert contents(place) == before


def test_another_configuration_is_refused_and_changes_nothing(
    place: Path, images: Path, tmp_path: Path
) -> None:
    """A folder that holds a run of other settings is named, with the difference, and left alone."""
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}", "cycle.epochs=2"),
        tmp_path / "output",
    )
    check_refused(ended, "cycle.epochs: 1 -> 2")
    assert str(place) in ended.stderr
    assert contents(place) == before


@pytest.mark.parametrize("file", ["state.json", "config.yaml"])
def test_a_damaged_folder_is_refused_and_left_alone(
    place: Path, images: Path, tmp_path: Path, file: str
) -> None:
    """An unreadable file is named; the folder is neither taken for a new run nor overwritten."""
    (place / file).write_text("{")
    before = contents(place)
    ended = run_program(
        overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), tmp_path / "output"
    )
    check_refused(ended, f"{file} cannot be read")
    assert contents(place) == before
