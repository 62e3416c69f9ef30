"""Runs of several seeds that train side by side in one process."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from experiments.runs.side_by_side import group_of, run_group
from experiments.settings.run_config import RunConfig
from tests.run_checks import no_half_files
from tests.small_runs import TIMED, compose, overrides, read_rows, run_here, run_program

SEEDS = (0, 1)


def folder_of(out: Path, seed: int) -> Path:
    """Return the folder of a small run."""
    return out / "small" / "learning_loss" / f"seed{seed}"


def files_of(folder: Path) -> list[str]:
    """Return the files of a run folder but its lock."""
    return sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    )


def check_alike(ours: Path, alone: Path) -> None:
    """Check that two run folders have the same files, queries, and, up to rounding, numbers."""
    assert files_of(ours) == files_of(alone)
    for path in sorted((alone / "queries").iterdir()):
        asked = [
            [row["name"] for row in read_rows(f / "queries" / path.name)] for f in (ours, alone)
        ]
        assert asked[0] == asked[1]
    for row, other in zip(*(read_rows(f / "cycles.csv") for f in (ours, alone)), strict=True):
        for key in set(row) - set(TIMED):
            a, b = (float(each[key] or "nan") for each in (row, other))
            assert a == pytest.approx(b, rel=1e-3, abs=2e-3, nan_ok=True), key


@pytest.fixture(scope="module")
def alone(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the runs of the seeds, one after the other."""
    out = tmp_path_factory.mktemp("alone")
    for seed in SEEDS:
        run_here(f"data.root={images}", f"out={out}", f"seed={seed}")
    return out


@pytest.mark.parametrize(
    ("seed", "beside"),
    [(5, [3, 8]), (3, [8]), (8, []), (1, [9]), (9, []), (4, [])],
)
def test_seeds_form_groups_in_their_order(seed: int, beside: list[int]) -> None:
    """A job runs the seeds that follow it in its group, the last of which may be smaller."""
    assert group_of(seed, [5, 3, 8, 5, 1, 9], size=3) == beside


def test_without_a_group_a_seed_is_by_itself() -> None:
    """One seed a process means no company."""
    assert group_of(1, [1, 2, 3], size=1) == []


def test_runs_side_by_side_are_those_by_themselves(
    images: Path, alone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Folders, queries and numbers are alike, and each log is of its own run."""
    caplog.set_level(logging.INFO)
    settings = overrides(f"data.root={images}", f"out={tmp_path}", "engine.seeds_per_process=2")
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    start = time.perf_counter()
    outcome = run_group(compose(*settings, "seed=0"), [0, 1, 2])
    wall_seconds = time.perf_counter() - start
    assert [handler.formatter for handler in logging.getLogger().handlers] == formatters
    for seed in SEEDS:
        check_alike(folder_of(tmp_path, seed), folder_of(alone, seed))
        log = (folder_of(tmp_path, seed) / "log.txt").read_text(encoding="utf-8")
        assert f"seed{seed}: 3 cycles" in log
        assert f"seed{1 - seed}" not in log
        assert log.count("cycle 1: 18 labeled") == 1
    rows = [row for seed in SEEDS for row in read_rows(folder_of(tmp_path, seed) / "cycles.csv")]
    spent = [float(row[key]) for row in rows for key in TIMED if key.startswith("seconds_")]
    assert min(spent) >= 0
    assert sum(spent) <= wall_seconds  # waiting for the other run does not count
    rows = read_rows(folder_of(tmp_path, 0) / "cycles.csv")
    assert outcome.metric == float(rows[-1]["accuracy"])
    assert not folder_of(tmp_path, 2).exists()
    caplog.clear()
    run_group(compose(*settings, "seed=1"), [0, 1, 2])
    assert "nothing to do" in caplog.text


def test_the_failure_of_one_run_is_not_that_of_the_others(images: Path, tmp_path: Path) -> None:
    """A job fails by its own run alone; one that failed beside it fails again in its own job."""
    where = (f"data.root={images}", f"out={tmp_path}")
    run_here(*where, "cycles=1", "seed=1", "cycle.query_size=5")  # and more is asked for
    settings = overrides(*where, "engine.seeds_per_process=2", "cycles=2")
    assert run_group(compose(*settings, "seed=0"), SEEDS).metric > 0
    assert len(read_rows(folder_of(tmp_path, 0) / "cycles.csv")) == 2
    with pytest.raises(InvalidSetting, match="holds a run of another configuration"):
        run_group(compose(*settings, "seed=1"), SEEDS)


@pytest.mark.slow
def test_a_killed_sweep_resumes_with_any_number_of_seeds(
    images: Path, alone: Path, tmp_path: Path
) -> None:
    """Killed while one run is a cycle ahead, it ends as runs by themselves, side by side or not."""
    arguments = ["-m", *overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), "seed=0,1"]
    beside = [*arguments, "engine.seeds_per_process=2"]
    kill_at = ("seed1/entropies/cycle_00.csv", "before")
    ended = run_program(beside, tmp_path / "output", kill_at=kill_at)
    assert ended.status == -9, ended
    kill_at = ("seed0/entropies/cycle_02.csv", "before")
    ended = run_program(beside, tmp_path / "output", kill_at=kill_at)
    assert ended.status == -9, ended
    ended = run_program(arguments, tmp_path / "output")
    assert ended.status == 0, ended
    for seed in SEEDS:
        folder = folder_of(tmp_path / "runs", seed)
        assert no_half_files(folder)
        check_alike(folder, folder_of(alone, seed))


def test_processes_of_their_own_cannot_be_shared(images: Path, tmp_path: Path) -> None:
    """A launcher that starts a process for each job is refused in one line."""
    arguments = ["-m", *overrides(f"data.root={images}", f"out={tmp_path / 'runs'}"), "seed=0,1"]
    ended = run_program(
        [*arguments, "engine.seeds_per_process=2", "hydra/launcher=joblib"], tmp_path / "output"
    )
    assert ended.status == 1
    assert ended.stderr == (
        "error: engine.seeds_per_process runs several seeds in the one process of "
        "hydra/launcher=basic: leave one of the two out\n"
    )


@pytest.mark.parametrize(
    "settings",
    [
        ["task=ssd_voc", "data=digits"],
        ["oracle=people", "data=unlabeled", "data.root=/data", "data.class_names=[a,b]"],
    ],
)
def test_only_simulated_classification_goes_side_by_side(settings: list[str]) -> None:
    """Boxes and people are refused in one line."""
    with pytest.raises(InvalidSetting, match="=5 serves classification without people: set 1"):
        RunConfig.of(compose(*settings, "engine.seeds_per_process=5"))


def test_what_needs_a_process_is_refused() -> None:
    """Several processes, compiled networks and recorded steps do not go with it."""
    for other in ({"num_processes": 2}, {"compile": True}, {"cuda_graphs": True}):
        with pytest.raises(InvalidSetting, match="=2 stacks networks in one process: leave"):
            Engine(device="cpu", seeds_per_process=2, **other)
