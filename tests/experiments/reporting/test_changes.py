"""Settings that changed while a run went on, as marks on its curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.reporting.changes import changed_settings
from experiments.reporting.grouping import group_runs
from experiments.reporting.panels import drawings
from experiments.reporting.runs import ReportError, read_run
from experiments.reporting.summary import summarize
from tests.experiments.synthetic_runs import write_run

CHANGES = (
    "cycle,key,before,after\n1,cycles,3,5\n1,cycle.query_size,100,50\n"
    "2,a,1,2\n2,b.name,1,2\n2,b.x,1,2\n2,c,1,2\n2,d,1,2\n9,optimizer.lr,0.1,0.2\n"
)


def test_a_change_is_marked_where_it_begins(tmp_path: Path) -> None:
    """At the labels of its first cycle, by name; cycles to come have no place on the curve yet.

    A choice comes first and stands for the settings below it.
    """
    folder = write_run(tmp_path, "margin", 0, accuracy=[50, 60, 70], num_labeled=[100, 200, 300])
    assert changed_settings(read_run(folder)) == ()
    (folder / "changes.csv").write_text(CHANGES)
    run = read_run(folder)
    named = "b became 2, a became 2, c became 2"
    expected = ((200, "cycle.query_size became 50"), (300, f"{named} and 1 other setting"))
    assert changed_settings(run) == expected
    (experiment,) = group_runs([run])
    curves = drawings(summarize(experiment))[0]
    assert curves.panel.marks == (200, 300)
    assert curves.caption.endswith(
        f"; at 200 labels cycle.query_size became 50; at 300 labels {named} and 1 other setting"
    )


def test_a_damaged_list_is_one_line(tmp_path: Path) -> None:
    """It names the file."""
    folder = write_run(tmp_path, "margin", 0, accuracy=[50, 60])
    (folder / "changes.csv").write_text("cycle,key\nx,y\n")
    with pytest.raises(ReportError, match=r"changes\.csv: not a list of changes"):
        changed_settings(read_run(folder))
