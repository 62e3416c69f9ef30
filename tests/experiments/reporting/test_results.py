"""Results as tables of pandas, for notebooks."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from experiments.metrics.columns import LEADING
from experiments.reporting.results import comparisons, learning_curves, load_runs
from experiments.reporting.runs import ReportError
from tests.experiments.synthetic_runs import (
    NOISE,
    RANDOM,
    add_column,
    make_runs,
    set_cell,
    write_run,
)

ROOT = Path(__file__).parents[3]


def test_load_runs_is_tidy(tmp_path: Path) -> None:
    """One row for each cycle of each run, with strategy and seed, in the order of the schema."""
    make_runs(tmp_path, {"margin": 2.0}, num_seeds=2)
    folder = write_run(tmp_path, "entropy", 0, accuracy=[1.0, 2.0], cycles=3)
    add_column(folder, "iou_cat", [7.0, 8.0])
    set_cell(folder, 2, 2, "")
    runs = load_runs(tmp_path)
    assert len(runs) == 2 * 2 * 3 + 2
    assert list(runs)[:7] == ["experiment", "strategy", "seed", "folder", "finished", *LEADING]
    assert list(runs)[7:10] == ["accuracy", "test_loss", "iou_cat"]
    assert list(runs)[-1] == "peak_memory_mb"
    margin = runs[(runs["strategy"] == "margin") & (runs["seed"] == 1)]
    assert margin["accuracy"].tolist() == [value + 2.0 + NOISE[1] for value in RANDOM[1]]
    assert margin["cycle"].tolist() == [0, 1, 2]
    entropy = runs[runs["strategy"] == "entropy"]
    assert not entropy["finished"].any()
    assert entropy["accuracy"].isna().tolist() == [False, True]
    assert runs.groupby("strategy")["accuracy"].mean()["random"] == pytest.approx(
        sum(map(sum, RANDOM[:2])) / 6
    )


def test_load_runs_of_nothing_finished(tmp_path: Path) -> None:
    """A run without a finished cycle has no rows and breaks nothing."""
    write_run(tmp_path, "margin", 0, accuracy=[], cycles=3)
    runs = load_runs(tmp_path)
    assert len(runs) == 0
    assert "num_labeled" in runs


def test_learning_curves_have_intervals_over_the_seeds(tmp_path: Path) -> None:
    """Mean and Student t interval for each strategy and cycle, of any column."""
    make_runs(tmp_path, {"margin": 2.0})
    curves = learning_curves(tmp_path)
    assert len(curves) == 2 * 3
    first = curves.iloc[0]
    assert (first["strategy"], first["cycle"], first["num_labeled"]) == ("random", 0, 100)
    assert first["num_seeds"] == 5
    values = [run[0] for run in RANDOM]
    assert first["high"] - first["mean"] == pytest.approx(stats.t.ppf(0.975, 4) * stats.sem(values))
    losses = learning_curves(tmp_path, metric="test_loss")
    assert set(losses["metric"]) == {"test_loss"}


def test_comparisons_give_verdicts_and_savings(tmp_path: Path) -> None:
    """One row for each strategy with its area, difference, verdict and labels saved."""
    table = comparisons(make_runs(tmp_path, {"good": 2.0, "bad": -2.0})).set_index("strategy")
    assert table["verdict"].dropna().to_dict() == {"bad": "worse", "good": "better"}
    assert pd.isna(table.loc["random", "difference"])
    assert table.loc["good", "difference"] == pytest.approx(2.02)
    assert table.loc["good", "difference_low"] > 0
    saved = table.loc["good", ["labels_saved_low", "labels_saved", "labels_saved_high"]].tolist()
    assert saved == sorted(saved)
    assert saved[1] > 0
    budget = load_runs(tmp_path)["num_labeled"].max()
    assert table.loc["good", "percent_saved"] == pytest.approx(100 * saved[1] / budget)
    assert (table.loc["bad", "seeds_that_reach"], table.loc["good", "seeds_that_reach"]) == (0, 5)
    assert pd.isna(table.loc["bad", "labels_saved"])


def test_the_documented_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines for a notebook in docs/statistics.md work as they stand."""
    text = (ROOT / "docs" / "statistics.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    make_runs(tmp_path / "runs", {"margin": 2.0})
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    shown = capsys.readouterr().out
    assert "num_labeled" in shown
    assert "better" in shown
    assert isinstance(names["curves"], pd.DataFrame)


def test_a_wrong_folder_is_one_line(tmp_path: Path) -> None:
    """Bad input raises the error that the command prints."""
    with pytest.raises(ReportError, match="no such folder"):
        load_runs(tmp_path / "no")
    with pytest.raises(ReportError, match="no runs inside"):
        load_runs(str(tmp_path))
