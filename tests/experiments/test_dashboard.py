"""The W&B workspace: what is in it, and that all of it is what a run really logs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.dashboard import main
from tests.experiments.synthetic_runs import add_column, make_runs, write_run
from tests.experiments.wandb_log import read_runs
from tests.small_runs import run_here, write_image_folder


@pytest.fixture(autouse=True)
def _needs_the_extra(request: pytest.FixtureRequest) -> None:
    if request.node.name != "test_missing_extra":
        pytest.importorskip("wandb_workspaces", reason="the extra `dashboard` is not installed")


def written(root: Path, *arguments: str) -> dict[str, Any]:
    """The one workspace that the command writes for the runs under `root`."""
    assert main([str(root), "--out", str(root / "out"), *arguments]) == 0
    (file,) = (root / "out").glob("workspace-*.json")
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def panels(content: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The panels by the name of their section."""
    sections = content["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: section["panels"] for section in sections}


def lines(content: dict[str, Any], section: str) -> list[tuple[str, str]]:
    """(x, y) of a section's line plots, all of which are grouped by strategy."""
    configs = [panel["config"] for panel in panels(content)[section]]
    assert all(config["groupBy"] == "strategy.value.name" for config in configs)
    assert all(config["groupAgg"] == "mean" for config in configs)
    return [(config["xAxis"], metric) for config in configs for metric in config["metrics"]]


def test_curves_are_grouped_over_labels_and_costs(tmp_path: Path) -> None:
    """The task's own metric first, over images and over what else is counted; tau and the query's
    cost; of this experiment's runs alone, grouped by strategy.
    """
    make_runs(tmp_path, {"margin": 1.0}, num_seeds=2)
    folder = write_run(tmp_path, "learning_loss", 0, accuracy=[1.0, 2.0], tau=[0.1, 0.2])
    add_column(folder, "num_labeled_boxes", [10, 20])
    content = written(tmp_path)
    assert lines(content, "Learning curves") == [
        ("num_labeled", "accuracy"), ("num_labeled", "test_loss"),
    ]  # fmt: skip
    assert lines(content, "Over what the labels cost") == [("num_labeled_boxes", "accuracy")]
    assert lines(content, "Loss prediction") == [("num_labeled", "loss_ranking_tau")]
    assert ("num_labeled", "seconds_score") in lines(content, "Cost of a cycle")
    (runs,) = content["spec"]["section"]["runSets"]
    (condition,) = runs["filters"]["filters"]
    assert (condition["key"]["name"], condition["op"], condition["value"]) == (
        "group", "=", "cifar10-digits",
    )  # fmt: skip
    assert [group["name"] for group in runs["grouping"]] == ["strategy.value.name"]
    assert content["displayName"] == "cifar10-digits: strategies compared"


def test_no_panel_for_what_is_not_there(tmp_path: Path) -> None:
    """Without a loss head, boxes, scores or thumbnails there are no empty sections for them."""
    make_runs(tmp_path, {}, num_seeds=1)
    assert set(panels(written(tmp_path))) == {
        "Learning curves", "Over the whole budget", "Cost of a cycle",
    }  # fmt: skip


def test_the_project_is_the_runs_own_or_the_one_given(tmp_path: Path) -> None:
    """tracker.project and tracker.entity of the configuration, unless others are given."""
    tracker = {"project": "theirs", "entity": "team"}
    write_run(tmp_path, "random", 0, accuracy=[1.0, 2.0], settings={"tracker": tracker})
    content = written(tmp_path)
    assert (content["entity"], content["project"]) == ("team", "theirs")
    content = written(tmp_path, "--project", "mine", "--entity", "me")
    assert (content["entity"], content["project"]) == ("me", "mine")


def test_every_key_is_one_that_a_run_logs(tmp_path: Path) -> None:
    """The log of a real run with learning loss has every key that the panels show: history, media,
    tables, summary and configuration.
    """
    images = write_image_folder(tmp_path / "images")
    run_here(f"data.root={images}", f"out={tmp_path}", "cycles=2", "tracker=wandb_offline")
    content = written(tmp_path / "small")
    (log,) = read_runs(tmp_path / "small" / "learning_loss" / "seed0")
    logged = set(log.history[-1])
    found = panels(content)
    assert set(found) == {
        "Learning curves", "Over the whole budget", "Loss prediction", "Cost of a cycle",
        "Most and least wanted images", "Ranked images",
    }  # fmt: skip
    for section in ("Learning curves", "Loss prediction", "Cost of a cycle"):
        for pair in lines(content, section):
            assert set(pair) <= logged
    for panel in found["Most and least wanted images"]:
        assert set(panel["config"]["mediaKeys"]) <= logged
    assert "entropies/top_1000" in logged
    assert "entropies/top_1000" in json.dumps(found["Ranked images"])
    for panel in found["Over the whole budget"]:
        (key,) = panel["config"]["metrics"]
        assert key.removeprefix("summary_metrics.") in log.summary
    assert log.config["strategy"]["name"] == "learning_loss"
    assert log.run.run_group == "small"


def test_sending_without_a_key_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written all the same."""
    for key in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    make_runs(tmp_path, {}, num_seeds=1)
    for arguments, says in ((["--send"], "--entity=..."), (["--send", "--entity=me"], "W&B")):
        assert main([str(tmp_path), "--out", str(tmp_path / "out"), *arguments]) == 1
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1
        assert says in err
        assert (tmp_path / "out" / "workspace-cifar10-digits.json").is_file()


def test_missing_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the optional dependency one line says what to install."""
    make_runs(tmp_path, {}, num_seeds=1)
    for module in [name for name in sys.modules if name.startswith("wandb_workspaces")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main([str(tmp_path)]) == 1
    assert "pip install -e '.[dashboard]'" in capsys.readouterr().err


def test_a_name_with_slashes_stays_in_the_folder(tmp_path: Path) -> None:
    """Run folders may come from anywhere, and the name in them is only a name."""
    run = write_run(tmp_path / "runs", "margin", 0, accuracy=[50.0, 60.0])
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: cifar10-digits", "name: ../../evil/x"))
    written(tmp_path / "runs")
    assert not (tmp_path / "evil").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
