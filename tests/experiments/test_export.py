"""`python -m experiments.export`: everything labeled so far, in each format, and the network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from experiments import export
from experiments.annotation.ledger import Ledger
from experiments.annotation.records import Request
from experiments.data.labels import Item, Label
from experiments.handoff.folder import replaced_folder
from tests.experiments.handoff.items import CLASSES, NAMES, check_same, items, rules
from tests.experiments.handoff.reading import read_all
from tests.experiments.ranking_models import (
    checkpoint_of,
    detection_data,
    fresh_learner,
    segmentation_data,
    write_images,
)
from tests.small_runs import run_here

TEST = NAMES[-2:]


def labeled_run(place: Path, kind: str) -> tuple[Path, list[Item]]:
    """Write a run whose images are all labeled, but for one that is refused."""
    photos, folder = place / "photos", place / "runs" / "seed0"
    made = items(photos, kind)
    folder.mkdir(parents=True)
    config = {
        "cycles": 2, "task": {"kind": kind, "metric": "accuracy"},
        "data": {"root": str(photos), "class_names": list(CLASSES)},
        "oracle": {"name": "people", "returned": None, "image_url": "{name}", "partial": False},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    ledger = Ledger(folder)
    ledger.add_images(NAMES)
    ledger.write_request(Request(0, NAMES[:-2], TEST), made)
    answers = {
        item.name: ledger.keep(item.draft or Label(), source="x", order=1) for item in made[1:]
    }
    answers[made[0].name] = ledger.keep(Label(refused=True), source="x", order=1)
    ledger.accept(answers, {})
    return folder, made[1:]


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("kind", ["classification", "detection", "segmentation"])
def test_labels_are_read_back_as_they_were_given(tmp_path: Path, kind: str) -> None:
    """The plain form is one that a run takes back; refused images are not among the labels."""
    run, made = labeled_run(tmp_path, kind)
    out = tmp_path / "out"
    assert export.main([str(run), "labels", "--out", str(out)]) == 0
    (out / "export.json").unlink()
    if kind != "classification":
        splits = {row["name"]: row["split"] for row in rows_of(out / "splits.csv")}
        (out / "splits.csv").unlink()
    else:
        splits = {row["name"]: row["split"] for row in rows_of(out / "labels.csv")}
    assert {name for name, split in splits.items() if split == "test"} == set(TEST)
    assert set(splits) == {item.name for item in made}
    the_rules = rules(kind, empty_is_answer=True)
    labels, problems = read_all(out, tmp_path / "photos", the_rules)
    assert problems == []
    check_same(labels, made)


@pytest.mark.parametrize("form", ["coco", "voc", "yolo"])
def test_boxes_keep_the_split_in_files_of_their_own(tmp_path: Path, form: str) -> None:
    """Each split lists its images; the labels together are all that were given."""
    run, made = labeled_run(tmp_path, "detection")
    assert export.main([str(run), form]) == 0
    out = run / "exports" / form
    if form == "coco":
        test = [each["file_name"] for each in json.loads((out / "test.json").read_text())["images"]]
    elif form == "yolo":
        test = [
            line.removeprefix("./images/")
            for line in (out / "test.txt").read_text("utf-8").splitlines()
        ]
        described = yaml.safe_load((out / "data.yaml").read_text("utf-8"))
        # Trainers take other paths from the folder of data.yaml only where it names no `path`.
        assert described.keys() == {"train", "val", "names"}
    else:
        listed = (out / "ImageSets" / "Main" / "test.txt").read_text("utf-8").splitlines()
        test = [f"{stem}.png" for stem in listed]
    assert sorted(test) == sorted(TEST)
    (out / "export.json").unlink()
    labels, problems = read_all(out, tmp_path / "photos", rules("detection", empty_is_answer=True))
    assert problems == []
    check_same(labels, made)


def test_tables_have_a_row_for_each_box_and_for_images_without_any(tmp_path: Path) -> None:
    """The columns are corners in pixels of the file, and the split."""
    run, made = labeled_run(tmp_path, "detection")
    assert export.main([str(run), "csv"]) == 0
    rows = rows_of(run / "exports" / "csv" / "labels.csv")
    assert {row["name"] for row in rows} == {item.name for item in made}
    assert sum(row["class"] == "" for row in rows) == sum(
        not item.draft.boxes for item in made if item.draft
    )
    first = next(row for row in rows if row["class"])
    (box, *_) = next(item.draft.boxes for item in made if item.name == first["name"])  # type: ignore[union-attr,misc]
    assert [float(first[key]) for key in ("x_min", "y_min", "x_max", "y_max")] == list(box.corners)


def test_other_files_are_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own files are replaced by newer ones; with another file beside them, nothing is."""
    run, _ = labeled_run(tmp_path, "classification")
    out = tmp_path / "out"
    command = [str(run), "csv", "--out", str(out), "--images", "link"]
    assert export.main(command) == export.main(command) == 0
    assert (out / "images" / NAMES[1]).is_symlink()
    (out / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert export.main(command) == 1
    assert "holds other files (notes.txt)" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    """Half a data set never takes the place of a whole one."""
    with replaced_folder(tmp_path / "out", {}) as place:
        (place / "a.txt").write_text("whole")

    def fail() -> None:
        with replaced_folder(tmp_path / "out", {}) as place:
            (place / "a.txt").write_text("half")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (tmp_path / "out" / "a.txt").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{run}", "voc"], "labels of classification go into labels, csv, not into voc"),
        (["{run}", "onnx"], "has no checkpoint"),
        (["nowhere", "csv"], "nowhere is no run folder"),
        (["nowhere", "onnx"], "nowhere is no run folder"),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bad input is named, and nothing is written."""
    pytest.importorskip("onnxruntime")
    run, _ = labeled_run(tmp_path, "classification")
    assert export.main([one.format(run=run) for one in arguments]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (run / "exports").exists() or not list((run / "exports").iterdir())


def _checkpoint(kind: str, place: Path) -> Path:
    if kind in ("classification", "frozen"):
        from tests.small_runs import write_image_folder

        images = write_image_folder(place / "images")
        own = (
            ()
            if kind == "classification"
            else ("backbone=efficientnet_lite0", "backbone.frozen=true")
        )
        run_here(f"data.root={images}", f"out={place}", "cycles=1", "strategy=learning_loss", *own)
        return place / "small" / "learning_loss" / "seed0"
    paths = write_images(place / "images", 3, size=(48, 64))
    if kind == "detection":
        data, arguments = detection_data(paths), ("task=ssd_voc", "backbone=light_ssd")
    else:
        data, arguments = segmentation_data(paths), ("task=drn_cityscapes", "backbone=drn_d_tiny")  # type: ignore[assignment]
    learner, config = fresh_learner(data, *arguments, "data=digits", "strategy=entropy")
    file = place / "cycle_00.pt"
    torch.save(checkpoint_of(learner, config), file)
    return file


OTHERS = ("detection", "segmentation", "frozen")


@pytest.mark.parametrize(
    "kind",
    ["classification", *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS)],
)
def test_onnx_runtime_agrees_with_the_network(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Probabilities sum to 1, for any number of images, and the difference is on record."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "out"
    assert export.main([str(_checkpoint(kind, tmp_path)), "onnx", "--out", str(out)]) == 0
    assert "outputs in ONNX Runtime differ by" in capsys.readouterr().out
    about = json.loads((out / "model.json").read_text())
    assert about["largest_difference"] <= about["tolerance"] == 1e-4
    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    height, width = about["image_size"] or (40, 56)
    pixels = np.full((5, 3, height, width), 99, np.float32)
    found = session.run(None, {"pixels": pixels})[-1]
    axis = -1 if kind == "detection" else 1
    np.testing.assert_allclose(found.sum(axis), 1, atol=1e-5)
    assert len(found) == 5
    assert found.shape[axis] == len(about["class_names"]) + (kind == "detection")


@pytest.mark.slow
def test_an_onnx_file_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A tolerance that is exceeded is an error with the figure."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from experiments.ranking import onnx_file

    monkeypatch.setattr(onnx_file, "TOLERANCE", -1.0)
    checkpoint = _checkpoint("segmentation", tmp_path)
    assert export.main([str(checkpoint), "onnx", "--out", str(tmp_path / "out")]) == 1
    assert "differ from the network's by" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
