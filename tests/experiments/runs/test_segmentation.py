"""Segmentation from files to the run folder, on a tree in each layout."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import pytest

from al_core.errors import InvalidSetting
from experiments.runs.session import run
from tests.experiments.segmentation_trees import write_cityscapes, write_drn_list
from tests.small_runs import compose

SMALL = (
    "task=drn_cityscapes", "backbone=drn_d_tiny", "cycle=quick", "cycles=2",
    "cycle.initial_size=4", "cycle.query_size=3", "cycle.candidates=null", "cycle.epochs=1",
    "cycle.min_steps=2", "cycle.batch_size=4", "task.build.crop_size=32",
    "loss_prediction.pool_size=2", "loss_prediction.width=4", "tracker=none", "engine.device=cpu",
    "engine.num_threads=1", "name=small",
)  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("layout", "strategy"),
    [("cityscapes", "learning_loss"), ("drn_list", "bald"), ("drn_list", "random")],
)
def test_a_tree_trains_to_csv(tmp_path: Path, layout: str, strategy: str) -> None:
    """From image files to learning curve, ranking, gallery and quarantine, in either layout."""
    root = tmp_path / "data"
    if layout == "cityscapes":
        write_cityscapes(root)
        broken = "leftImg8bit/train/bremen/bremen_000001_000019_leftImg8bit.png"
    else:
        write_drn_list(root, sizes=((48, 64), (40, 50)))
        broken = "images/train/005.jpg"
    (root / broken).write_bytes(b"no image")
    arguments = [f"data={layout}", f"data.root={root}", f"strategy={strategy}"]
    run(compose(*SMALL, *arguments, f"out={tmp_path / 'runs'}"))
    folder = tmp_path / "runs" / "small" / strategy / "seed0"
    curve = rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in curve] == ["4", "7"]
    for row in curve:
        assert 0 <= float(row["miou"]) <= 100
        assert 0 < float(row["pixel_accuracy"]) <= 100
    assert ("iou_traffic_light" if layout == "cityscapes" else "iou_class_3") in curve[0]
    assert rows(folder / "quarantine.csv")[0]["name"] == broken
    queried = [row["name"] for row in rows(folder / "queries" / "cycle_00.csv")]
    assert len(queried) == 3
    if strategy != "random":
        scored = rows(folder / "entropies" / "cycle_00.csv")
        assert [row["name"] for row in scored[:3]] == queried
        assert len(scored) == (12 if layout == "cityscapes" else 16) - 5
        assert broken not in {row["name"] for row in scored}
    thumbnail = cv2.imread(str(folder / "gallery" / "cycle_00" / "most_01.jpg"))
    assert thumbnail.shape[1] == 2 * 256 + 2  # tiles of 64 pixels, magnified four times
    full = cv2.imread(str(folder / "gallery" / "cycle_00" / "full" / "most_01.jpg"))
    assert full.shape[1] == 2 * 512 + 4
    assert "predicted" in rows(folder / "gallery" / "cycle_00" / "index.csv")[0]["caption"]


def test_a_missing_data_set_is_one_clear_line(tmp_path: Path) -> None:
    """Without Cityscapes the run says what to fetch and where to put it, before anything else."""
    with pytest.raises(InvalidSetting, match=r"Cityscapes is not in .*data=digits"):
        run(compose(*SMALL, "data=cityscapes", f"data.root={tmp_path}", f"out={tmp_path / 'r'}"))
