"""experiments.tracking against the files that W&B itself writes and reads, offline."""

from __future__ import annotations

import csv
import json
import logging
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import wandb
from omegaconf import OmegaConf
from PIL import Image

from al_core.contracts import Query, Ranking
from al_core.entropies import write_ranking_csv, write_upload_csv
from al_core.errors import InvalidSetting
from al_core.loop import CycleRecord
from experiments.tracking import TABLE_ROWS, NoTracker, Tracker, WandbTracker
from tests.experiments.wandb_log import read_runs

ROOT = Path(__file__).parents[2]
SUMMARY = {"area_under_budget_curve": 61.5, "final_accuracy": 70.25}


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no settings, no proxy of whoever runs the tests; a home folder of its own."""
    wandb.teardown()  # it keeps the settings of its first use
    for name in [name for name in os.environ if name.startswith(("WANDB_", "XDG_", "NETRC"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    yield
    wandb.teardown()


def write_cycle(
    run_folder: Path, cycle: int, *, num_candidates: int = 30, num_images: int = 2
) -> tuple[CycleRecord, dict[str, float | int | None]]:
    """The files of a cycle as the loop leaves them; its record and its row of cycles.csv."""
    names = [f"digits/{index:05d}.png" for index in range(num_candidates)]
    scores = np.linspace(2.5, -1.0, num_candidates)
    folder = run_folder / "entropies"
    write_ranking_csv(folder / f"cycle_{cycle:02d}.csv", names, scores.tolist())
    write_upload_csv(folder / f"cycle_{cycle:02d}_upload.csv", names, scores)
    gallery = run_folder / "gallery" / f"cycle_{cycle:02d}"
    gallery.mkdir(parents=True)
    with open(gallery / "index.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "name", "score", "caption"])
        for end in ("most", "least"):
            for number in range(1, num_images + 1):
                shade = (40 * number + 10 * cycle, 0, 255 if end == "most" else 0)
                file_name = f"{end}_{number:02d}.jpg"
                Image.new("RGB", (8, 8), shade).save(gallery / file_name)
                writer.writerow([file_name, names[number], scores[number], "true 7, predicted 1"])
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
    """What the tracker warned of."""
    mine = [record for record in caplog.records if record.name == "experiments.tracking"]
    return [record.getMessage() for record in mine if record.levelno >= logging.WARNING]


def manifests(artifact: Any) -> dict[str, Any]:
    """The files of an artifact, by name, with where they lie on this machine."""
    return {entry.path: entry for entry in artifact.manifest.contents}


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


CYCLE_IN_A_SUBPROCESS = """
import os, signal, sys, time
from pathlib import Path
from experiments.tracking import WandbTracker
from tests.experiments.test_tracking import record_and_row, start

tracker = WandbTracker(mode="offline")
start(tracker, Path(sys.argv[1]))
for cycle in range(2):
    tracker.log_cycle(*record_and_row(cycle), run_folder=Path(sys.argv[1]))
time.sleep(2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_as_another_fragment(tmp_path: Path) -> None:
    """A kill loses at most the last second; the resumed run has the same id and later steps."""
    command = [sys.executable, "-c", CYCLE_IN_A_SUBPROCESS, str(tmp_path)]
    assert subprocess.run(command, cwd=ROOT, timeout=60).returncode == -signal.SIGKILL
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*record_and_row(2), run_folder=tmp_path)
    tracker.finish({}, failed=False)

    killed, resumed = read_runs(tmp_path)
    assert killed.run.run_id == resumed.run.run_id == "abcd1234"
    assert (killed.steps, killed.exit_codes) == ([0, 1], [])
    assert (resumed.steps, resumed.exit_codes) == ([2], [0])


def _close_behind_its_back(run_folder: Path) -> None:
    wandb.finish()


def _kill_the_service(run_folder: Path) -> None:
    children = Path("/proc/self/task").glob("*/children")
    pids = [int(pid) for path in children for pid in path.read_text().split()]
    services = [pid for pid in pids if b"wandb-core" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert services
    for pid in services:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)


def _break_an_image(run_folder: Path) -> None:
    (run_folder / "gallery" / "cycle_01" / "most_01.jpg").write_bytes(b"not an image")


@pytest.mark.parametrize("harm", [_close_behind_its_back, _kill_the_service, _break_an_image])
def test_a_failure_in_mid_run_is_one_warning(
    harm: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When W&B fails, the run goes on, one line says so, and the next job is tracked."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path / "run")
    tracker.log_cycle(*write_cycle(tmp_path / "run", 0), run_folder=tmp_path / "run")
    cycles = [write_cycle(tmp_path / "run", cycle) for cycle in (1, 2)]
    harm(tmp_path / "run")
    for record, row in cycles:
        tracker.log_cycle(record, row, run_folder=tmp_path / "run")
    tracker.finish(SUMMARY, failed=False)
    (message,) = warnings_of(caplog)
    assert message.startswith("W&B failed (")
    assert "the run goes on without it" in message
    assert f"wandb sync {tmp_path}/run/wandb/offline-run-" in message

    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path / "next", run_id="next")
    tracker.log_cycle(*record_and_row(0), run_folder=tmp_path / "next")
    tracker.finish({}, failed=False)
    assert [log.steps for log in read_runs(tmp_path / "next")] == [[0]]
    assert len(warnings_of(caplog)) == 1


def test_a_vanished_folder_does_not_stop_the_run(tmp_path: Path) -> None:
    """A wandb folder that is deleted, or becomes a file, in mid-run lets log_cycle return."""
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    (tmp_path / "wandb").rename(tmp_path / "gone")
    (tmp_path / "wandb").write_text("in the way")
    tracker.log_cycle(*write_cycle(tmp_path, 0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)


def test_a_run_that_cannot_be_opened_is_not_tracked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where W&B cannot write at all the run goes on without it, with one line."""
    (tmp_path / "wandb").write_text("in the way")
    tracker = WandbTracker(mode="offline")
    start(tracker, tmp_path)
    tracker.log_cycle(*record_and_row(0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)
    (message,) = warnings_of(caplog)
    assert message.startswith("W&B failed (NotADirectoryError")


UNREACHABLE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, "No API key configured"),
        ({"WANDB_API_KEY": "too short"}, "API key"),
        (UNREACHABLE, "connection refused|deadline exceeded"),
    ],
    ids=["no key", "bad key", "no network"],
)
def test_online_falls_back_to_offline(
    environment: Mapping[str, str],
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without key or network a run is tracked offline within seconds; one line says how to sync."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    tracker = WandbTracker(mode="online", init_timeout_seconds=2.0)
    start(tracker, tmp_path)
    tracker.log_cycle(*write_cycle(tmp_path, 0), run_folder=tmp_path)
    tracker.finish(SUMMARY, failed=False)
    assert time.monotonic() - began < 20

    (log,) = read_runs(tmp_path)
    assert (log.run.run_id, log.steps, log.exit_codes) == ("abcd1234", [0], [0])
    (message,) = warnings_of(caplog)
    assert message.endswith(f"to upload it later: wandb sync {log.path.parent}")
    assert any(part in message for part in reason.split("|"))
    assert capfd.readouterr().err == ""


ONLINE_IN_A_SUBPROCESS = """
import sys
from pathlib import Path
from experiments.tracking import WandbTracker
from tests.experiments.test_tracking import start

tracker = WandbTracker(mode="online")
start(tracker, Path(sys.argv[1]))
tracker.finish({}, failed=False)
"""


def test_nobody_is_asked_for_a_key(tmp_path: Path) -> None:
    """At a terminal, too, a run without key goes on at once instead of waiting for an answer."""
    theirs, ours = pty.openpty()
    command = [sys.executable, "-c", ONLINE_IN_A_SUBPROCESS, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, stdin=ours, stdout=ours, stderr=ours, timeout=60)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 0
    assert len(read_runs(tmp_path)) == 1


def test_without_wandb_the_error_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where wandb is missing a WandbTracker says what to install or set, before anything runs."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InvalidSetting, match=r"pip install wandb.*tracker=none") as raised:
        WandbTracker(mode="offline")
    assert "\n" not in str(raised.value)


def test_no_tracker_needs_no_wandb(tmp_path: Path) -> None:
    """NoTracker works, and leaves no file, where wandb cannot be imported."""
    code = (
        "import sys; sys.modules['wandb'] = None\n"
        "from pathlib import Path\n"
        "from experiments.tracking import NoTracker\n"
        "tracker, folder = NoTracker(), Path(sys.argv[1])\n"
        "tracker.start(run_folder=folder, name='', group='', config={}, tags=[], run_id='')\n"
        "tracker.log_cycle(None, {}, run_folder=folder)\n"
        "tracker.finish({}, failed=False)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_trackers_that_never_started_do_nothing(tmp_path: Path) -> None:
    """log_cycle and finish before start, and a second finish, are harmless."""
    trackers: list[Tracker] = [NoTracker(), WandbTracker(mode="offline")]
    for tracker in trackers:
        tracker.log_cycle(*record_and_row(0), run_folder=tmp_path)
        tracker.finish(SUMMARY, failed=True)
        tracker.finish(SUMMARY, failed=True)
    assert list(tmp_path.glob("wandb")) == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"project": ""}, "tracker.project"),
        ({"project": None}, "tracker.project"),
        ({"project": "a/b"}, "tracker.project"),
        ({"entity": "a/b"}, "tracker.entity"),
        ({"mode": "disabled"}, "tracker.mode must be online or offline"),
        ({"mode": False}, "tracker.mode must be online or offline"),
        ({"init_timeout_seconds": 0}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": True}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": "8"}, "tracker.init_timeout_seconds"),
        ({"init_timeout_seconds": float("nan")}, "tracker.init_timeout_seconds"),
    ],
)
def test_wrong_settings_are_refused(settings: Any, named: str) -> None:
    """A setting that is not permitted is named, with what is permitted."""
    with pytest.raises(InvalidSetting, match=named):
        WandbTracker(**settings)


@pytest.mark.parametrize(
    ("choice", "mode"), [("wandb", "online"), ("wandb_offline", "offline"), ("none", None)]
)
def test_each_choice_builds(choice: str, mode: str | None) -> None:
    """Every file of conf/tracker builds its tracker, and its mode is what its name says."""
    config = OmegaConf.load(ROOT / "conf" / "tracker" / f"{choice}.yaml")
    tracker = hydra.utils.instantiate(config)
    assert isinstance(tracker, NoTracker if mode is None else WandbTracker)
    assert OmegaConf.select(config, "mode") == mode
