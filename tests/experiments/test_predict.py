"""`python -m experiments.predict` for all three tasks, from its settings to its files."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from experiments import predict
from experiments.data.labels import Rules
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import files_in, read_file, upright_size
from experiments.ranking.scorer import Scorer
from tests.experiments.ranking_models import (
    CLASS_NAMES,
    checkpoint_of,
    detection_data,
    fresh_learner,
    segmentation_data,
    write_images,
)
from tests.small_runs import run_here


@pytest.fixture(scope="module")
def run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a classifier; the folder of its last checkpoint."""
    out = tmp_path_factory.mktemp("runs")
    run_here(f"data.root={images}", f"out={out}", "cycles=2", "strategy=margin")
    return out / "small" / "margin" / "seed0"


def predicted(*arguments: object) -> int:
    """Predict on the CPU."""
    return predict.main([*map(str, arguments), "device=cpu"])


def rows_of(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV."""
    with open(file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_classes_come_with_their_probabilities(run: Path, images: Path, tmp_path: Path) -> None:
    """They sum to 1, the class is the most probable, and accuracy is that of the run."""
    out = tmp_path / "out"
    assert predicted(run, f"images={images / 'test'}", f"out={out}") == 0
    rows = rows_of(out / "predictions.csv")
    assert len(rows) == 30
    names = list(rows[0])[4:]
    for row in rows:
        values = [float(row[name]) for name in names]
        assert sum(values) == pytest.approx(1, abs=1e-6)
        assert row["class"] == names[int(np.argmax(values))]
        assert float(row["probability"]) == max(values)
    right = sum(row["class"] == row["name"].split("/")[0] for row in rows)
    with open(run / "cycles.csv", encoding="utf-8", newline="") as file:
        assert 100 * right / 30 == pytest.approx(float(list(csv.DictReader(file))[-1]["accuracy"]))


def test_unreadable_files_are_listed_and_the_rest_is_predicted(run: Path, tmp_path: Path) -> None:
    """A damaged image has a reason in quarantine.csv; mended, it is predicted as well."""
    paths = write_images(tmp_path / "images", 3)
    good = paths[1].read_bytes()
    paths[1].write_bytes(b"no image")
    command = (run, f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}")
    assert predicted(*command) == 0
    (bad,) = rows_of(tmp_path / "out" / "quarantine.csv")
    assert bad["name"] == paths[1].name
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 2
    paths[1].write_bytes(good)
    assert predicted(*command) == 0
    assert not (tmp_path / "out" / "quarantine.csv").exists()
    assert len(rows_of(tmp_path / "out" / "predictions.csv")) == 3


def test_an_interrupted_prediction_goes_on(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No committed image is predicted again, and the result is that of one go."""
    write_images(tmp_path / "images", 9)
    arguments = (run, f"images={tmp_path / 'images'}", "batch_size=1")
    assert predicted(*arguments, f"out={tmp_path / 'whole'}") == 0
    real, asked = Scorer.score_and, []

    def broken(self, loaded, describe):  # type: ignore[no-untyped-def]
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(len(loaded.paths))
        return real(self, loaded, describe)

    monkeypatch.setattr(Scorer, "score_and", broken)
    assert predicted(*arguments, f"out={tmp_path / 'out'}") == 130
    assert not (tmp_path / "out" / "predictions.csv").exists()

    def counting(self, loaded, describe):  # type: ignore[no-untyped-def]
        asked.append(len(loaded.paths))
        return real(self, loaded, describe)

    monkeypatch.setattr(Scorer, "score_and", counting)
    assert predicted(*arguments, f"out={tmp_path / 'out'}") == 0
    assert sum(asked) == 9
    table = "predictions.csv"
    assert (tmp_path / "out" / table).read_text() == (tmp_path / "whole" / table).read_text()
    assert predicted(*arguments, f"out={tmp_path / 'out'}") == 0
    assert sum(asked) == 9


def checkpoint(place: Path, kind: str, paths: list[Path]) -> Path:
    """Write the checkpoint of a model that is sure of its first class, where it finds boxes."""
    if kind == "detection":
        learner, config = fresh_learner(
            detection_data(paths), "task=ssd_voc", "backbone=light_ssd", "data=digits",
            "strategy=entropy",
        )  # fmt: skip
        with torch.no_grad():
            for conv in (m for m in learner.model.conf.modules() if isinstance(m, nn.Conv2d)):
                assert conv.bias is not None
                conv.bias.view(-1, len(CLASS_NAMES) + 1)[:, 1] += 5
    else:
        learner, config = fresh_learner(
            segmentation_data(paths), "task=drn_cityscapes", "backbone=drn_d_tiny", "data=digits",
            "strategy=entropy",
        )  # fmt: skip
    file = place / "cycle_00.pt"
    torch.save(checkpoint_of(learner, config), file)
    return file


def test_boxes_are_the_same_in_coco_and_yolo(tmp_path: Path) -> None:
    """Both files read back to equal boxes, in pixels of the files, with scores."""
    paths = write_images(tmp_path / "images", 3, size=(48, 64))
    out = tmp_path / "out"
    model = checkpoint(tmp_path, "detection", paths)
    assert predicted(model, f"images={tmp_path / 'images'}", f"out={out}") == 0
    rules = Rules("detection", CLASS_NAMES, empty_is_answer=True)
    names = ImageNames([path.name for path in paths])
    found: dict[str, list[object]] = {}
    for source in files_in(out):
        if source.startswith("labels/") or source == "predictions.json":
            for one in read_file(
                out, source, rules, names, lambda name: upright_size(tmp_path / "images" / name)
            ):
                found.setdefault(one.name, []).append(one.label.boxes)  # type: ignore[union-attr]
    assert len(found) == 3
    for first, second in found.values():  # type: ignore[misc]
        assert first
        np.testing.assert_allclose(
            [box.corners for box in first],  # type: ignore[attr-defined]
            [box.corners for box in second],  # type: ignore[attr-defined]
            atol=0.02,
        )
    content = json.loads((out / "predictions.json").read_text())
    assert all(0.3 <= one["score"] <= 1 for one in content["annotations"])


def test_masks_have_the_size_of_the_files_and_their_shares_add_up(tmp_path: Path) -> None:
    """A share is the fraction of the pixels that the mask has of a class."""
    paths = write_images(tmp_path / "images" / "a b", 2, size=(48, 64))
    out = tmp_path / "out"
    model = checkpoint(tmp_path, "segmentation", paths)
    assert predicted(model, f"images={tmp_path / 'images'}", f"out={out}") == 0
    for row in rows_of(out / "predictions.csv"):
        mask = cv2.imread(str(out / row["mask"]), cv2.IMREAD_UNCHANGED)
        assert mask is not None
        assert mask.shape == (48, 64)
        for number, name in enumerate(CLASS_NAMES):
            assert float(row[name]) == pytest.approx((mask == number).mean())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("{run}",), "images must be given"),
        (("images={tmp}",), "one run folder is needed, there are 0"),
        (("{run}", "images={tmp}", "imags=x"), "unknown key imags"),
        (("{run}", "images={tmp}", "batch_size=0"), "batch_size must be a whole number above 0"),
        (("{run}", "images={tmp}/nowhere"), "there is no such folder"),
        (("{tmp}", "images={tmp}"), "is no run folder"),
        (("{run}", "images={tmp}/empty"), "there is no image"),
        (("{run}", "images={tmp}/full", "out={tmp}/full"), "holds other files"),
    ],
)
def test_a_wrong_command_is_one_line(
    run: Path, tmp_path: Path, arguments: tuple[str, ...], says: str,
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Each names what is wrong."""
    caplog.set_level(logging.ERROR)  # progress is not looked at here
    (tmp_path / "empty").mkdir()
    write_images(tmp_path / "full", 1)
    given = [one.format(run=run, tmp=tmp_path) for one in arguments]
    assert predict.main(given) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_images_that_differ_in_their_endings_only_are_refused_for_masks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One mask would overwrite the other."""
    paths = write_images(tmp_path / "images", 2, size=(48, 64))
    paths[0].with_suffix(".bmp").write_bytes(paths[1].read_bytes())
    model = checkpoint(tmp_path, "segmentation", paths)
    assert predicted(model, f"images={tmp_path / 'images'}", f"out={tmp_path / 'out'}") == 1
    assert "would share one file" in capsys.readouterr().err
