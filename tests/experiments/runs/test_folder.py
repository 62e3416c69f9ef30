"""experiments.runs.folder: whole files, a state to be trusted, refusals that change nothing."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from al_core import CycleRecord, Pool, Query, Ranking
from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.runs.folder import RunFolder, RunState, row_of
from experiments.tasks.base import Panel
from experiments.units.unit import WholeImages

WHOLE = WholeImages(SimpleNamespace(train=[], targets=None))  # type: ignore[arg-type]
CONFIG = {"seed": 0, "cycle": {"epochs": 2}, "out": "runs", "tracker": {"mode": "offline"}}
SECONDS = {"fit": 1.23456789, "evaluate": 0.5, "score": 0.25, "query": 0.125}


def record(cycle: int = 0, *, ranked: bool = True, **metrics: float) -> CycleRecord:
    """Return a record of a cycle with 10 labels and a query of 2."""
    ranking = Ranking(np.array([3, 1, 0, 2]), np.array([0.9, 0.9, 0.1, -2.5e-7]))
    query = Query(ranking.indices[:2], ranking.scores[:2], ranking)
    if not ranked:
        query = Query(np.array([2, 0]))
    measured = {"accuracy": 50.0, "train_loss": 2.0, "optimizer_steps": 7, **metrics}
    return CycleRecord(cycle, 10, measured, query, SECONDS)


def pool_state() -> dict[str, Any]:
    """Return the state of a pool with an initial set."""
    pool = Pool(4)
    pool.label([1])
    return pool.state_dict()


def commit(folder: RunFolder, cycle: int = 0, *, finished: bool = False, **metrics: float) -> None:
    """Write and commit a cycle."""
    contents = {"model": {"weight": torch.full((2,), float(cycle))}, "class_names": ["a"]}
    checkpoint = folder.write_checkpoint(cycle, contents)
    row = row_of(record(cycle, **metrics), query_memory_mb=3.21, peak_memory_mb=12.345)
    folder.commit(row, pool=pool_state(), checkpoint=checkpoint, finished=finished)


def reopened(folder: RunFolder, config: dict[str, Any] | None = None) -> RunFolder:
    """Close and open again."""
    folder.close()
    return RunFolder(folder.path, config or CONFIG)


# ---- rows


def test_rows_have_the_documented_columns_in_order() -> None:
    """Cycle and labels first, metrics as they come, then the columns that every task has."""
    row = row_of(
        record(test_loss=1.5, loss_ranking_tau=0.25), query_memory_mb=3.21, peak_memory_mb=12.345
    )
    assert list(row) == [
        "cycle", "num_labeled", "accuracy", "test_loss", "loss_ranking_tau", "optimizer_steps",
        "train_loss", "train_ranking_accuracy", "seconds_fit", "seconds_evaluate", "seconds_score",
        "seconds_query", "query_memory_mb", "peak_memory_mb",
    ]  # fmt: skip
    assert row["seconds_fit"] == 1.2346
    assert row["query_memory_mb"] == 3.2
    assert row["peak_memory_mb"] == 12.3
    assert row["loss_ranking_tau"] == 0.25
    assert row["train_ranking_accuracy"] is None


def test_counts_of_labels_stand_beside_the_number_of_images() -> None:
    """What else the labels are counted in comes before the metrics."""
    counted = replace(record(), metrics={"num_labeled_boxes": 31, **record().metrics})
    row = row_of(counted, query_memory_mb=0.0, peak_memory_mb=1.0)
    assert list(row)[:4] == ["cycle", "num_labeled", "num_labeled_boxes", "accuracy"]
    assert row["num_labeled_boxes"] == 31


def test_a_quantity_that_does_not_exist_is_an_empty_cell(tmp_path: Path) -> None:
    """A tau of constant losses is no number: the cell is empty, and the state is proper JSON."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    commit(folder, loss_ranking_tau=float("nan"))
    with open(folder.path / "cycles.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert row["loss_ranking_tau"] == row["train_ranking_accuracy"] == ""
    json.loads((folder.path / "state.json").read_text(), parse_constant=pytest.fail)
    folder.close()


# ---- state


def test_state_survives_a_new_process(tmp_path: Path) -> None:
    """Mistake 7: pool, records, checkpoint and tracker's id come back, not weights alone."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    assert folder.state == RunState()
    folder.write_config(CONFIG)
    folder.state.wandb_id = "abc"
    commit(folder, 0)
    commit(folder, 1, finished=True)
    kept = folder.state
    again = reopened(folder)
    assert again.state == kept
    assert (again.state.cycle, again.state.finished, again.state.wandb_id) == (2, True, "abc")
    assert [row["cycle"] for row in again.state.records] == [0, 1]
    assert Pool.from_state_dict(again.state.pool or {}).labeled.tolist() == [1]
    again.close()


def test_only_the_last_checkpoint_is_kept_and_it_is_the_states(tmp_path: Path) -> None:
    """The previous weights go once the next are committed, not before."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    assert folder.read_checkpoint() is None
    commit(folder, 0)
    folder.write_checkpoint(1, {"model": {}})
    assert len(list((folder.path / "checkpoints").iterdir())) == 2
    contents = folder.read_checkpoint()
    assert contents is not None
    assert contents["model"]["weight"].tolist() == [0, 0]
    commit(folder, 1)
    assert [path.name for path in (folder.path / "checkpoints").iterdir()] == ["cycle_01.pt"]
    folder.close()


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    """Weights that cannot be read are one clear error."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    commit(folder)
    file = folder.path / "checkpoints" / "cycle_00.pt"
    for damaged in (file.read_bytes()[:300], b"", b"not weights"):
        file.write_bytes(damaged)
        with pytest.raises(InvalidSetting, match=r"cycle_00\.pt cannot be read"):
            folder.read_checkpoint()
    folder.close()


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path: Path) -> None:
    """Temporary files of a process that is gone do not stay for ever."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    commit(folder)
    leftover = folder.path / "queries" / ".cycle_01.csv.123.part"
    leftover.parent.mkdir()
    leftover.write_text("rank,na")
    again = reopened(folder)
    assert not leftover.exists()
    again.close()


# ---- refusals


def test_one_process_at_a_time(tmp_path: Path) -> None:
    """A folder is held until it is closed."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    with pytest.raises(ActiveLearningError, match="in use by another process"):
        RunFolder(tmp_path / "run", CONFIG)
    reopened(folder).close()


def test_another_configuration_is_refused_once_a_cycle_is_done(tmp_path: Path) -> None:
    """The difference is named, the folder is free again; before a cycle is done it may change."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.write_config(CONFIG)
    changed = {**CONFIG, "cycle": {"epochs": 3}}
    folder = reopened(folder, changed)
    folder.write_config(CONFIG)
    commit(folder)
    with pytest.raises(InvalidSetting, match=r"cycle\.epochs: 2 -> 3"):
        reopened(folder, changed)
    RunFolder(folder.path, CONFIG).close()


def test_what_changes_no_result_may_change(tmp_path: Path) -> None:
    """A run goes on with another tracker, or from another place."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.write_config(CONFIG)
    commit(folder)
    reopened(folder, {**CONFIG, "out": "elsewhere", "tracker": {"mode": "online"}}).close()


def test_a_run_from_before_a_key_existed_goes_on(tmp_path: Path) -> None:
    """It counts as having the key's default; another value, or another build, is a difference."""
    task = {"name": "t", "build": {"size": 1}, "protocols": {"quick": {"epochs": 30}}}
    before = {**CONFIG, "task": task, "loss_prediction": {"enabled": True}}
    folder = RunFolder(tmp_path / "run", before)
    folder.write_config(before)
    commit(folder)
    since = {
        **CONFIG,
        "task": {**task, "protocols": {"quick": {"epochs": 60, "detach_at": 0.0}}},
        "cycle": {"epochs": 2, "merge_remainder": False},
        "loss_prediction": {"enabled": True, "output_tap": False},
    }
    reopened(folder, since).close()
    for group, value, says in (
        ("loss_prediction", {"enabled": True, "output_tap": True}, "output_tap: False -> True"),
        ("task", {**task, "build": {"size": 2}}, "task.build.size: 1 -> 2"),
    ):
        with pytest.raises(InvalidSetting, match=says):
            RunFolder(folder.path, {**since, group: value})


# ---- files


def test_queries_and_rankings_are_written_as_documented(tmp_path: Path) -> None:
    """queries: rank,name,index,score; entropies: CRLF, raw values at full precision, in order."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    names = ["a/0.png", "a/1.png", "b/2.png", 'b/3, "x".png']
    folder.write_query(record(3), names, WHOLE)
    query = (folder.path / "queries" / "cycle_03.csv").read_bytes()
    assert query == b'rank,name,index,score\n0,"b/3, ""x"".png",3,0.9\n1,a/1.png,1,0.9\n'
    raw = (folder.path / "entropies" / "cycle_03.csv").read_bytes()
    assert raw == (
        b'name,entropy_value\r\n"b/3, ""x"".png",0.9\r\na/1.png,0.9\r\na/0.png,0.1\r\n'
        b"b/2.png,-2.5e-07\r\n"
    )
    upload = (folder.path / "entropies" / "cycle_03_upload.csv").read_bytes()
    assert upload == (
        b'name,entropy_value\r\n"3, ""x"".png",2\r\n1.png,2\r\n0.png,1\r\n2.png,0\r\n'
    )
    folder.write_query(record(4, ranked=False), names, WHOLE)
    assert (folder.path / "queries" / "cycle_04.csv").read_bytes() == (
        b"rank,name,index,score\n0,b/2.png,2,\n1,a/0.png,0,\n"
    )
    assert not (folder.path / "entropies" / "cycle_04.csv").exists()
    folder.close()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((28, 28), (128, 128)),
        ((100, 200), (100, 200)),
        ((256, 512), (160, 320)),
        ((1000, 3), (320, 1)),
    ],
)
def test_thumbnails_fit_and_keep_their_colors(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The longer side is 128 to 320 pixels, the proportions stay, red stays red."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[:, :, 0] = 255
    folder = RunFolder(tmp_path / "run", CONFIG)
    panels: Any = {"most": [("a.png", 0.5, Panel(image, "predicted red"))], "least": []}
    folder.write_gallery(2, panels)
    written = cv2.imread(str(folder.path / "gallery" / "cycle_02" / "most_01.jpg"))
    assert written.shape[:2] == expected
    blue, green, red = written.reshape(-1, 3).mean(0)
    assert red > 240
    assert max(blue, green) < 15
    index = (folder.path / "gallery" / "cycle_02" / "index.csv").read_text()
    assert index == "file,name,score,caption\nmost_01.jpg,a.png,0.5,predicted red\n"
    folder.close()


def test_quarantine_lists_images_with_reasons(tmp_path: Path) -> None:
    """The set it is of, its name as in every other table, and why."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.write_quarantine(
        [("train", "b.png", "cut short"), ("test", "a.png", "the file is empty")]
    )
    assert (folder.path / "quarantine.csv").read_text() == (
        "set,name,reason\ntrain,b.png,cut short\ntest,a.png,the file is empty\n"
    )
    folder.close()


def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a file cannot be moved in, the record stays that of the last cycle, whole."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    commit(folder, 0)
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}

    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        commit(folder, 1)
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in folder.path.rglob("*") if p.is_file()} == before
    again = reopened(folder)
    assert again.state.cycle == 1
    again.close()
