"""The record of a stop rule on finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from experiments.reporting.comparison_tables import further_tables
from experiments.reporting.grouping import group_runs
from experiments.reporting.results import stopping
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import summarize
from experiments.settings.stop_settings import AGREEMENT
from tests.experiments.synthetic_runs import add_column, write_run

ACCURACY = [50.0, 60.0, 65.0, 68.0, 70.0]


def write(root: Path, strategy: str, seed: int, agreements: Sequence[object]) -> None:
    """Write a run with the agreement of each cycle; its accuracy is higher by its seed."""
    folder = write_run(root, strategy, seed, accuracy=[value + seed for value in ACCURACY])
    add_column(folder, AGREEMENT, agreements)


def test_labels_and_loss_are_those_of_the_first_stable_cycle(tmp_path: Path) -> None:
    """They are means over runs that end early; a run that is stable in its last cycle does not."""
    write(tmp_path, "margin", 0, ["", 0.9, 0.99, 1.0, 1.0])
    write(tmp_path, "margin", 1, ["", 0.9, 0.9, 0.99, 0.99])
    write(tmp_path, "margin", 2, ["", 0.9, 0.9, 0.9, 1.0])
    write_run(tmp_path, "random", 0, accuracy=ACCURACY)
    (row,) = stopping(tmp_path, threshold=0.94, window=2).to_dict("records")
    assert (row["strategy"], row["num_seeds"], row["num_stopped"]) == ("margin", 3, 2)
    assert row["num_labeled"] == (300 + 400) / 2
    assert row["lost"] == pytest.approx(((70 - 65) + (70 - 68)) / 2)


def test_the_report_has_a_table_where_a_run_would_have_stopped(tmp_path: Path) -> None:
    """With the usual threshold and window; without such a run there is no table."""
    heading = "When predictions were stable"
    for seed in range(3):
        write(tmp_path / "stable", "margin", seed, ["", 0.99, 0.99, 0.99, 1.0])
        write(tmp_path / "open", "margin", seed, ["", 0.9, 0.9, 0.9, 1.0])
    tables = [
        further_tables(summarize(group))
        for name in ("stable", "open")
        for group in group_runs(find_runs([tmp_path / name]))
    ]
    assert tables[0][heading].header[0] == "kappa 0.99 over 3 cycles"
    assert tables[0][heading].rows == (("margin", "3 of 3", "400", "+2.00 [+2.00, +2.00]"),)
    assert heading not in tables[1]
