"""Cycles as the loop leaves them, for tests of the tracker, and W&B without an account."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb

from al_core.contracts import Query, Ranking
from al_core.entropies import write_ranking_csv, write_upload_csv
from al_core.loop import CycleRecord
from experiments.runs.tracker import STEPS_A_CYCLE, Tracker

ROOT = Path(__file__).parents[2]
SUMMARY = {"area_under_budget_curve": 61.5, "final_accuracy": 70.25}


def step_of(cycle: int) -> int:
    """W&B's step of a cycle's row."""
    return (cycle + 1) * STEPS_A_CYCLE - 1


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no settings, no proxy of whoever runs the tests; a home folder of its own."""
    wandb.teardown()  # it keeps the settings of its first use
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wandb.teardown()


def write_cycle(
    run_folder: Path, cycle: int, *, num_candidates: int = 30
) -> tuple[CycleRecord, dict[str, float | int | None]]:
    """The files of a cycle as the loop leaves them; its record and its row of cycles.csv."""
    names = [f"digits/{index:05d}.png" for index in range(num_candidates)]
    scores = np.linspace(2.5, -1.0, num_candidates)
    folder = run_folder / "entropies"
    write_ranking_csv(folder / f"cycle_{cycle:02d}.csv", names, scores.tolist())
    write_upload_csv(folder / f"cycle_{cycle:02d}_upload.csv", names, scores)
    return record_and_row(cycle, Ranking(np.arange(num_candidates), scores))


def record_and_row(
    cycle: int, ranking: Ranking | None = None
) -> tuple[CycleRecord, dict[str, float | int | None]]:
    """A record and a row whose numbers tell cycles apart."""
    metrics = {"accuracy": 50.0 + cycle, "test_loss": 1.0 / (cycle + 1)}
    seconds = {"fit": 1.5, "evaluate": 0.5, "score": 0.25, "query": 0.125}
    query = Query(np.arange(3), None, ranking)
    record = CycleRecord(cycle, 100 * (cycle + 1), metrics, query, seconds)
    row: dict[str, float | int | None] = {"cycle": cycle, "num_labeled": record.num_labeled}
    row |= metrics | {f"seconds_{key}": value for key, value in seconds.items()}
    return record, row | {"loss_ranking_tau": None, "optimizer_steps": 40}


def start(tracker: Tracker, run_folder: Path, **changes: Any) -> None:
    """Start with ordinary arguments."""
    run_folder.mkdir(parents=True, exist_ok=True)
    arguments: dict[str, Any] = {
        "run_folder": run_folder,
        "name": "margin-seed0",
        "group": "cifar10-digits",
        "config": {"seed": 0, "strategy": {"name": "margin"}, "cycle": {"initial_size": None}},
        "tags": ["cifar10", "margin"],
        "run_id": "abcd1234",
    }
    tracker.start(**(arguments | changes))


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings of the tracker."""
    mine = [record for record in caplog.records if record.name == "experiments.runs.tracker"]
    return [record.getMessage() for record in mine if record.levelno >= logging.WARNING]


def manifests(artifact: Any) -> dict[str, Any]:
    """The files of an artifact, by name, with where they lie on this machine."""
    return {entry.path: entry for entry in artifact.manifest.contents}
