"""People as the oracle for pose: requests with drafts, answers as keypoints, and training."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Kept, Request
from experiments.annotation.unlabeled import Collected, pose
from experiments.data.labels import HIDDEN, MISSING, VISIBLE, Item, Keypoint, Label, Rules
from experiments.data.stick_figures import JOINT_NAMES, FigureScene, figure_scenes
from experiments.runs.session import run
from tests.small_runs import compose, draw_little, read_rows

RULES = Rules("pose", JOINT_NAMES)


def write_scenes(folder: Path, num: int) -> Mapping[str, FigureScene]:
    """Write embedded scenes as files; return them by name."""
    folder.mkdir()
    scenes = {f"{k:03d}.png": each for k, each in enumerate(figure_scenes(num, size=64))}
    for name, scene in scenes.items():
        Image.fromarray(scene.image).save(folder / name)
    return scenes


def answer(file: Path, names: list[str], scenes: Mapping[str, FigureScene]) -> None:
    """Write the true joints of images as a tool does that exports COCO."""
    content = {
        "categories": [{"id": 1, "name": "figure", "keypoints": list(JOINT_NAMES)}],
        "images": [
            {"id": k, "file_name": name, "width": 64, "height": 64}
            for k, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": k, "image_id": k, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 64, 64],
                "keypoints": [
                    value
                    for (x, y), seen in zip(
                        scenes[name].points.tolist(), scenes[name].visibility.tolist(), strict=True
                    )
                    for value in (x, y, seen)
                ],
            }
            for k, name in enumerate(names)
        ],
    }  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")


def test_answers_and_drafts_of_joints_are_kept(tmp_path: Path) -> None:
    """The record gives back the joints as they were set, and the drafts of a request."""
    label = Label(keypoints=(Keypoint("neck", 1.5, 2, VISIBLE), Keypoint("head_top", 3, 4, HIDDEN)))
    ledger = Ledger.read(tmp_path, cycle=0)
    kept = ledger.keep(label, source="a.json", order=1)
    ledger.accept(
        {"a.png": kept, "b.png": ledger.keep(Label(keypoints=()), source="", order=1)}, {}
    )
    again = Ledger.read(tmp_path, cycle=0)
    assert again.label("a.png", RULES).keypoints == label.keypoints
    assert again.label("b.png", RULES).keypoints == ()
    draft = Label(keypoints=(Keypoint("neck", 1.5, 2, VISIBLE, 0.75),), score=0.75)
    request = Request(cycle=1, train=("a.png",))
    ledger.write_request(request, [Item("a.png", tmp_path / "a.png", (64, 64), 0.5, draft)])
    (item,) = ledger.items(request, tmp_path, RULES)
    assert item.draft is not None
    assert item.draft.keypoints == draft.keypoints


def test_answers_become_figures(tmp_path: Path) -> None:
    """Joints that were not set are missing; images without an answer have none."""
    write_scenes(tmp_path / "photos", 3)
    kept = Kept(keypoints=(("neck", 1.5, 2.0, 1), ("head_top", 3.0, 4.0, 2)))
    names = ("000.png", "001.png", "002.png")
    collected = Collected(
        tmp_path, names, {0: kept, 2: kept}, batches=((0,),), test=(2,), excluded=frozenset({2})
    )
    data = pose(tmp_path / "photos", class_names=JOINT_NAMES, collected=collected)
    assert data.class_names == JOINT_NAMES
    first = data.train_figures[0]
    assert first.visibility[[12, 13]].tolist() == [HIDDEN, VISIBLE]
    assert (np.delete(first.visibility, [12, 13]) == MISSING).all()
    assert not data.train_figures[1].visibility.any()
    assert np.array_equal(data.test_figures[0].points, first.points)


@pytest.mark.slow
def test_people_annotate_figures_batch_by_batch(tmp_path: Path) -> None:
    """The run asks, trains on what comes back, and asks again with drafts of joints."""
    draw_little()
    scenes = write_scenes(tmp_path / "photos", 40)
    joints = ",".join(JOINT_NAMES)
    config = (
        "task=pose", "oracle=people", "data=unlabeled", f"data.root={tmp_path / 'photos'}",
        f"data.class_names=[{joints}]", "backbone=light_pose", "backbone.image_size=64",
        "strategy=multi_peak_entropy", "cycles=2", "cycle.initial_size=8", "cycle.query_size=4",
        "oracle.test_size=6", "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4",
        "oracle.formats=[coco,label_studio,cvat]", "tracker=none", "engine.device=cpu",
        "engine.num_threads=1", f"out={tmp_path / 'out'}", "name=figures",
    )  # fmt: skip
    folder = tmp_path / "out" / "figures" / "multi_peak_entropy" / "seed0"
    for batch in range(2):
        waiting = run(compose(*config)).waiting
        assert waiting is not None
        request = folder / "requests" / f"batch_{batch:02d}"
        names = [row["name"] for row in read_rows(request / "images.csv")]
        assert len(names) == (14 if batch == 0 else 4)
        drafts = json.loads((request / "coco.json").read_text(encoding="utf-8"))
        assert drafts["categories"][0]["keypoints"] == list(JOINT_NAMES)
        answer(folder / "returned" / f"batch{batch}.json", names, scenes)
    assert run(compose(*config)).waiting is None
    rows = read_rows(folder / "cycles.csv")
    assert [row["num_labeled"] for row in rows] == ["8", "12"]
    assert all(float(row["pck"]) >= 0 for row in rows)
