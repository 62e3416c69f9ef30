"""experiments.runs.folder: rows and files of a cycle, as documented."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from al_core import CycleRecord, Pool, Query, Ranking
from experiments.drawing.panel import Panel, Tile
from experiments.runs.folder import RunFolder, row_of
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


# ---- rows


def test_rows_have_the_documented_columns_in_order() -> None:
    """Cycle and labels first, metrics as they come, then the columns that every task has."""
    row = row_of(
        record(test_loss=1.5, loss_ranking_tau=0.25), query_memory_mb=3.21, peak_memory_mb=12.345
    )
    assert list(row) == [
        "cycle", "num_labeled", "accuracy", "test_loss", "loss_ranking_tau", "optimizer_steps",
        "train_loss", "train_ranking_accuracy", "prediction_agreement", "seconds_fit",
        "seconds_evaluate", "seconds_score", "seconds_query", "query_memory_mb", "peak_memory_mb",
    ]  # fmt: skip
    assert row["seconds_fit"] == 1.2346
    assert row["query_memory_mb"] == 3.2
    assert row["peak_memory_mb"] == 12.3
    assert row["loss_ranking_tau"] == 0.25
    assert row["train_ranking_accuracy"] is None


def test_counts_of_labels_stand_beside_the_number_of_images() -> None:
    """Further counts of the labels come before the metrics."""
    counted = replace(record(), metrics={"num_labeled_boxes": 31, **record().metrics})
    row = row_of(counted, query_memory_mb=0.0, peak_memory_mb=1.0)
    assert list(row)[:4] == ["cycle", "num_labeled", "num_labeled_boxes", "accuracy"]
    assert row["num_labeled_boxes"] == 31


def test_a_quantity_that_does_not_exist_is_an_empty_cell(tmp_path: Path) -> None:
    """Tau of constant losses is undefined: the cell is empty, and the state is valid JSON."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    row = row_of(record(loss_ranking_tau=float("nan")), query_memory_mb=0.0, peak_memory_mb=1.0)
    folder.commit(row, pool=Pool(4).state_dict(), checkpoint="cycle_00.pt", finished=False)
    with open(folder.path / "cycles.csv", encoding="utf-8", newline="") as file:
        written = next(csv.DictReader(file))
    assert written["loss_ranking_tau"] == written["train_ranking_accuracy"] == ""
    json.loads((folder.path / "state.json").read_text(), parse_constant=pytest.fail)
    folder.close()


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
        ((28, 28), (252, 252)),
        ((100, 250), (100, 250)),
        ((256, 512), (160, 320)),
        ((1000, 3), (320, 1)),
    ],
)
def test_thumbnails_fit_and_keep_their_colors(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    """The longer side is 240 to 320 pixels, the proportions stay, red stays red."""
    image = np.zeros((*size, 3), dtype=np.uint8)
    image[:, :, 0] = 255
    folder = RunFolder(tmp_path / "run", CONFIG)
    panels: Any = {
        "most": [("a.png", 0.5, Panel((Tile("image", image),), "predicted red"))],
        "least": [],
    }
    folder.write_gallery(2, panels)
    written = cv2.imread(str(folder.path / "gallery" / "cycle_02" / "most_01.jpg"))
    assert written.shape[:2] == expected
    blue, green, red = written.reshape(-1, 3).mean(0)
    assert red > 240
    assert max(blue, green) < 15
    full = cv2.imread(str(folder.path / "gallery" / "cycle_02" / "full" / "most_01.jpg"))
    assert max(full.shape) >= 640
    index = (folder.path / "gallery" / "cycle_02" / "index.csv").read_text()
    assert index == "file,name,score,caption\nmost_01.jpg,a.png,0.5,predicted red\n"
    folder.close()


def test_quarantine_lists_images_with_reasons(tmp_path: Path) -> None:
    """The file lists the set, the name as in every other table, and the reason."""
    folder = RunFolder(tmp_path / "run", CONFIG)
    folder.write_quarantine(
        [("train", "b.png", "cut short"), ("test", "a.png", "the file is empty")]
    )
    assert (folder.path / "quarantine.csv").read_text() == (
        "set,name,reason\ntrain,b.png,cut short\ntest,a.png,the file is empty\n"
    )
    folder.close()
