"""experiments.runs.tracker against the files that W&B itself writes and reads, offline."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from experiments.data.labels import Box
from experiments.drawing.views import box_view, mask_view
from experiments.engine.lockstep import Lockstep, current
from experiments.learning.observer import EpochEnd
from experiments.metrics.segmentation import SegmentationMetrics
from experiments.runs.tracker import EPOCHS_A_CYCLE, TABLE_ROWS, Shown, WandbTracker
from tests.experiments.tracked import (
    SUMMARY,
    manifests,
    record_and_row,
    start,
    step_of,
    warnings_of,
    write_cycle,
)
from tests.experiments.tracked import no_account as _no_account  # noqa: F401  # for all of these
from tests.experiments.wandb_log import read_runs


def test_a_run_carries_its_identity_and_every_number(tmp_path: Path) -> None:
    """Group, id, name, tags, config and each number of each row are in the file; None is not."""
    tracker = WandbTracker("my-project", "my-team", mode="offline")
    start(tracker, tmp_path)
    rows = []
    for cycle in range(3):
        record, row = write_cycle(tmp_path, cycle)
        tracker.log_cycle(record, row, run_folder=tmp_path)
        rows.append(row)
    tracker.finish(SUMMARY, failed=False)

    (log,) = read_runs(tmp_path)
    run = log.run
    assert (run.run_id, run.run_group, run.display_name) == (
        "abcd1234",
        "cifar10-digits",
        "margin-seed0",
    )
    assert (run.project, run.entity, list(run.tags)) == (
        "my-project",
        "my-team",
        ["cifar10", "margin"],
    )
    assert log.config["strategy"] == {"name": "margin"}
    assert log.steps == [step_of(cycle) for cycle in range(3)]
    for row, logged in zip(rows, log.history, strict=True):
        assert "loss_ranking_tau" not in logged
        expected = {key: value for key, value in row.items() if value is not None}
        assert {key: logged[key] for key in expected} == expected
    assert {key: log.summary[key] for key in SUMMARY} == SUMMARY
    assert log.exit_codes == [0]


def test_num_labeled_is_the_step_metric_of_everything(tmp_path: Path) -> None:
    """Every metric of a cycle is drawn against num_labeled."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    assert log.step_metrics["num_labeled"] == ""
    assert log.step_metrics["*"] == "num_labeled"


def test_scores_and_tables_can_be_looked_at(tmp_path: Path) -> None:
    """A cycle has a histogram of all scores, and the top rows of both CSVs."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*write_cycle(tmp_path, 4, num_candidates=TABLE_ROWS + 7), run_folder=tmp_path)
    tracker.finish({}, failed=False)

    (log,) = read_runs(tmp_path)
    (row,) = log.history
    assert row["scores"]["_type"] == "histogram"
    assert sum(row["scores"]["values"]) == TABLE_ROWS + 7
    for key, second in {"entropies": 2.5, "entropies-upload": TABLE_ROWS + 6}.items():
        (path,) = log.media(row[f"{key}/top_{TABLE_ROWS}"])
        table = json.loads(path.read_text())
        assert table["columns"] == ["name", "entropy_value"]
        assert len(table["data"]) == TABLE_ROWS
        assert table["data"][0][1] == second


def test_boxes_and_masks_can_be_switched(tmp_path: Path) -> None:
    """Boxes are data beside the untouched picture, predicted and annotated apart, and so are masks;
    both have the names of their classes.
    """
    gray = np.full((30, 40, 3), 99, np.uint8)
    boxes = box_view(
        gray,
        [Box("cell", (4.0, 3.0, 20.0, 15.0), score=0.75)],
        ["cell", "plate"],
        truth=[Box("plate", (20.0, 15.0, 40.0, 30.0))],
    )
    mask = np.zeros((30, 40), np.uint8)
    mask[:, 20:] = 1
    masks = mask_view(gray, mask, ["road", "sky"], [(9, 9, 9), (200, 0, 0)], truth=1 - mask)
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    record, row = write_cycle(tmp_path, 0)
    panels = {"most": [("a.png", 0.5, boxes)], "least": [("b.png", None, masks)]}
    tracker.log_cycle(record, row, run_folder=tmp_path, shown=Shown(panels, None, (), None))
    tracker.finish({}, failed=False)

    (log,) = read_runs(tmp_path)
    (logged,) = log.history
    most, least = (logged[f"gallery/{end}_wanted"] for end in ("most", "least"))
    assert most["captions"] == [f"{boxes.caption}, score 0.5, a.png"]
    with Image.open(log.media(most)[0]) as image:
        assert np.array_equal(np.array(image.convert("RGB")), gray)
    (drawn,) = most["all_boxes"]
    found = {
        kind: json.loads(
            (tmp_path / "wandb" / log.path.parent / "files" / each["path"]).read_text()
        )
        for kind, each in drawn.items()
    }
    (predicted,), (annotated,) = (found[kind]["box_data"] for kind in ("predicted", "annotated"))
    assert predicted["position"] == {"minX": 0.1, "minY": 0.1, "maxX": 0.5, "maxY": 0.5}
    assert predicted["scores"] == {"score": 0.75}
    assert found["annotated"]["class_labels"][str(annotated["class_id"])] == "plate"
    (layers,) = least["all_masks"]
    assert set(layers) == {"prediction", "annotation"}
    with Image.open(log.path.parent / "files" / layers["prediction"]["path"]) as image:
        assert np.array_equal(np.array(image), mask)
    (table,) = log.media(logged["scores/images"])
    rows = json.loads(table.read_text())["data"]
    assert [(name, score) for _, name, score, *_ in rows] == [("a.png", 0.5), ("b.png", None)]
    (whole,) = (each for each in log.of("artifact") if "scoresimages" in each.name)
    assert sum(name.endswith(".png") for name in manifests(whole)) >= 2  # those of its first column


def test_results_by_class_are_charts_of_wandb(tmp_path: Path) -> None:
    """Confusion matrix and precision-recall curves are W&B's own charts over tables of counts, and
    the calibration error is a number.
    """
    metrics = SegmentationMetrics(("road", "sky"))
    log_probs = torch.tensor([[[[0.9, 0.8]], [[0.1, 0.2]]]]).log()
    metrics.update((log_probs, torch.empty(0)), torch.tensor([[[0, 1]]]))
    evaluation = metrics.evaluation(("road", "sky"))
    evaluation = replace(evaluation, precision=np.stack([np.ones(101), np.full(101, np.nan)]))
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    record, row = write_cycle(tmp_path, 0)
    tracker.log_cycle(record, row, run_folder=tmp_path, shown=Shown({}, evaluation, (), None))
    tracker.finish({}, failed=False)

    (log,) = read_runs(tmp_path)
    (logged,) = log.history
    assert logged["expected_calibration_error"] == pytest.approx(evaluation.calibration.ece)
    tables = {
        key: json.loads(log.media(value)[0].read_text())
        for key, value in logged.items()
        if isinstance(value, dict) and value.get("_type") == "table-file"
    }
    (confusion,) = (each for key, each in tables.items() if "confusion_matrix" in key)
    assert confusion["columns"] == ["Actual", "Predicted", "nPredictions"]
    assert ["sky", "road", 1] in confusion["data"]
    (curve,) = (each for key, each in tables.items() if "precision_recall" in key)
    assert curve["data"][-1] == ["road", 1.0, 1.0]
    assert len(curve["data"]) == 21
    assert tables["test/classes"]["data"][0] == ["road", pytest.approx(50), 1]
    layouts = json.dumps(log.config_records)
    assert "wandb/confusion_matrix/v1" in layouts
    assert "wandb/area-under-curve/v0" in layouts


def test_labels_model_and_query_are_a_lineage(tmp_path: Path) -> None:
    """Each cycle uses a version of the labels and makes one of the model and one of the query; the
    weights are in the last one, as a copy.
    """
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    (tmp_path / "queries").mkdir()
    weights = tmp_path / "cycle_01.pt"
    weights.write_bytes(b"weights")
    for cycle, checkpoint in enumerate((None, weights)):
        record, row = write_cycle(tmp_path, cycle)
        (tmp_path / "queries" / f"cycle_{cycle:02d}.csv").write_text("rank,name\n0,c.png\n")
        shown = Shown({}, None, ["a.png", "b.png"][: cycle + 1], checkpoint)
        tracker.log_cycle(record, row, run_folder=tmp_path, shown=shown)
    tracker.finish({}, failed=False)
    weights.unlink()

    (log,) = read_runs(tmp_path)
    kinds = ("labeled-set", "model", "query")
    ours = [each for each in log.of("artifact") if each.type in kinds]
    assert [each.type for each in ours] == [*kinds] * 2
    assert [each.use_after_commit for each in ours] == [True, False, False] * 2
    assert sorted(ours[4].aliases) == ["cycle_01", "latest"]
    assert json.loads(ours[4].metadata)["trained_on"] == "labels-abcd1234:cycle_01"
    assert json.loads(ours[5].metadata)["selected_by"] == "model-abcd1234:cycle_01"
    assert json.loads(ours[4].metadata)["accuracy"] == 51.0
    labels = Path(manifests(ours[3])["labeled.json"].local_path)
    assert json.loads(labels.read_text()) == ["a.png", "b.png"]
    assert set(manifests(ours[1])) == {"model.json"}
    assert Path(manifests(ours[4])["cycle_01.pt"].local_path).read_bytes() == b"weights"
    assert Path(manifests(ours[5])["cycle_01.csv"].local_path).is_file()


def test_training_has_an_axis_of_its_own(tmp_path: Path) -> None:
    """Losses within a cycle are over `optimizer_step`, which goes on over the cycles, and neither
    they nor the rows of the cycles change the steps of the other.
    """
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    for cycle in range(2):
        for epoch in range(3):
            end = EpochEnd(epoch, 3, 10 * (epoch + 1), 2.0 - epoch, 0.1, 500.0, None)
            tracker.log_epoch(cycle, end, steps_before=30 * cycle)
        tracker.log_cycle(*record_and_row(cycle), run_folder=tmp_path)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    rows = [row for row in log.history if "optimizer_step" in row]
    assert [row["optimizer_step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert rows[0]["training/loss"] == 2.0
    assert "training/ranking_accuracy" not in rows[0]
    assert log.step_metrics["training/loss"] == "optimizer_step"
    assert log.steps == sorted(log.steps)
    assert [row["accuracy"] for row in log.history if "accuracy" in row] == [50.0, 51.0]


def test_long_trainings_are_thinned_out(tmp_path: Path) -> None:
    """A training of many epochs has about EPOCHS_A_CYCLE rows, the last one among them."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    for epoch in range(1001):
        end = EpochEnd(epoch, 1001, epoch + 1, 1.0, 0.1, 500.0, 0.5)
        tracker.log_epoch(0, end, steps_before=0)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    assert EPOCHS_A_CYCLE / 2 < len(log.history) <= EPOCHS_A_CYCLE + 1
    assert log.history[-1]["optimizer_step"] == 1001


def test_artifacts_hold_whole_csvs_by_cycle(tmp_path: Path) -> None:
    """Each entropy CSV is an artifact version of its cycle that points into the run folder."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    for cycle in range(2):
        tracker.log_cycle(*write_cycle(tmp_path, cycle), run_folder=tmp_path)
    tracker.finish({}, failed=False)

    (log,) = read_runs(tmp_path)
    ours = [artifact for artifact in log.of("artifact") if artifact.type != "run_table"]
    names = ["entropies-abcd1234", "entropies-upload-abcd1234"]
    assert [artifact.name for artifact in ours] == names * 2
    aliases = [sorted(artifact.aliases) for artifact in ours]
    assert aliases == [["cycle_00", "latest"]] * 2 + [["cycle_01", "latest"]] * 2
    assert json.loads(ours[0].metadata) == {"num_rows": 30, "num_rows_in_table": 30}
    ((file_name, entry),) = manifests(ours[-1]).items()
    assert file_name == "cycle_01_upload.csv"
    assert Path(entry.local_path) == tmp_path / "entropies" / "cycle_01_upload.csv"


def test_everything_is_kept_in_the_run_folder(tmp_path: Path) -> None:
    """Nothing that a later upload needs lies in the home folder, whose user is left in peace."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path / "run")
    tracker.log_cycle(*write_cycle(tmp_path / "run", 0), run_folder=tmp_path / "run")
    tracker.finish({}, failed=False)
    assert "WANDB_DATA_DIR" not in os.environ
    outside = [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    assert [path.suffix for path in outside if path.suffix != ".log"] == []


def test_a_strategy_without_scores_logs_its_numbers_alone(tmp_path: Path) -> None:
    """Random, which writes no CSV and has no scores, is logged without histogram or table."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*record_and_row(0), run_folder=tmp_path)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    (row,) = log.history
    assert row["accuracy"] == 50.0
    assert not [key for key, value in row.items() if isinstance(value, dict)]
    assert log.of("artifact") == []


def test_a_failed_run_is_marked_as_failed(tmp_path: Path) -> None:
    """failed=True gives exit code 1."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.finish({}, failed=True)
    (log,) = read_runs(tmp_path)
    assert log.exit_codes == [1]


def test_jobs_of_one_process_do_not_leak(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each job of a sweep logs into its own run, even after one that never finished."""
    folders = [tmp_path / f"seed{seed}" for seed in range(2)]
    for seed, folder in enumerate(folders):
        tracker = WandbTracker(mode="offline")
        start(tracker, folder, run_id=f"job{seed}", config={"seed": seed})
        tracker.log_cycle(*record_and_row(seed), run_folder=folder)
    tracker.finish(SUMMARY, failed=False)
    for seed, folder in enumerate(folders):
        (log,) = read_runs(folder)
        assert (log.run.run_id, log.config["seed"], log.steps) == (
            f"job{seed}",
            seed,
            [step_of(seed)],
        )
        assert [row["accuracy"] for row in log.history] == [50.0 + seed]
        assert log.exit_codes == [0]
    assert warnings_of(caplog) == []


def test_runs_side_by_side_are_open_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs that take turns in one process log into runs of their own, up to their own ends."""
    folders = [tmp_path / f"seed{seed}" for seed in range(2)]

    def job(seed: int) -> None:
        lockstep = current()
        assert lockstep is not None
        tracker = WandbTracker(mode="offline")
        start(tracker, folders[seed], run_id=f"job{seed}", config={"seed": seed})
        for cycle in range(2):
            lockstep.meet(cycle, None, lambda offers: offers)
            tracker.log_cycle(*record_and_row(cycle), run_folder=folders[seed])
        tracker.finish({"seed": seed}, failed=False)

    outcomes = Lockstep().run({f"seed {seed}": partial(job, seed) for seed in range(2)})
    assert list(outcomes.values()) == [None, None]
    for seed, folder in enumerate(folders):
        (log,) = read_runs(folder)
        assert (log.run.run_id, log.summary["seed"]) == (f"job{seed}", seed)
        assert log.steps == [step_of(0), step_of(1)]
        assert log.exit_codes == [0]
    assert warnings_of(caplog) == []
