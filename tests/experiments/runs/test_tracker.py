"""experiments.runs.tracker against the files that W&B itself writes and reads, offline."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from experiments.runs.tracker import TABLE_ROWS, WandbTracker
from tests.experiments.tracked import (
    SUMMARY,
    manifests,
    record_and_row,
    start,
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
    assert log.steps == [0, 1, 2]
    for row, logged in zip(rows, log.history, strict=True):
        assert "loss_ranking_tau" not in logged
        expected = {key: value for key, value in row.items() if value is not None}
        assert {key: logged[key] for key in expected} == expected
    assert {key: log.summary[key] for key in SUMMARY} == SUMMARY
    assert log.exit_codes == [0]


def test_num_labeled_is_the_step_metric_of_everything(tmp_path: Path) -> None:
    """Every metric is drawn against num_labeled."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    assert log.step_metrics == {"num_labeled": "", "*": "num_labeled"}


def test_scores_tables_and_images_can_be_looked_at(tmp_path: Path) -> None:
    """A cycle has a histogram of all scores, the top rows of both CSVs, and captioned panels."""
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
    for end in ("most", "least"):
        panel = row[f"gallery/{end}_wanted"]
        assert [path.is_file() for path in log.media(panel)] == [True, True]
        assert panel["captions"][0].startswith("true 7, predicted 1, score 2.497, digits/00001.png")


def test_images_are_logged_at_full_size_where_there_are_such(tmp_path: Path) -> None:
    """A picture in the folder `full` of a gallery goes to W&B in place of its thumbnail."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    record, row = write_cycle(tmp_path, 0)
    full = tmp_path / "gallery" / "cycle_00" / "full" / "most_01.jpg"
    full.parent.mkdir()
    Image.new("RGB", (640, 480)).save(full)
    tracker.log_cycle(record, row, run_folder=tmp_path)
    tracker.finish({}, failed=False)
    (log,) = read_runs(tmp_path)
    sizes = []
    for path in log.media(log.history[0]["gallery/most_wanted"]):
        with Image.open(path) as image:
            sizes.append(image.size)
    assert sizes == [(640, 480), (8, 8)]


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
        assert (log.run.run_id, log.config["seed"], log.steps) == (f"job{seed}", seed, [seed])
        assert [row["accuracy"] for row in log.history] == [50.0 + seed]
        assert log.exit_codes == [0]
    assert warnings_of(caplog) == []
