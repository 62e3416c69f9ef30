"""Strategies over several experiments: ranks, penalties, profiles, labels saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.report import main
from experiments.reporting.grouping import group_runs
from experiments.reporting.overall import Overall, over_all, sentence
from experiments.reporting.results import across
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import summarize
from tests.experiments.synthetic_runs import NOISE, RANDOM, write_run

pytestmark = pytest.mark.usefixtures("undrawn_figures")

GAINS = {
    "digits": {"good": 3.0, "bad": -3.0},
    "photos": {"good": 2.0, "bad": -1.0},
    "cells": {"good": -1.0, "bad": -2.0},
}


def several(root: Path, gains: dict[str, dict[str, float]] = GAINS) -> Path:
    """Experiments on these data sets, five seeds each, with these gains over random."""
    for name, by_strategy in gains.items():
        for seed in range(5):
            write_run(root, "random", seed, accuracy=RANDOM[seed], name=name)
            for strategy, gain in by_strategy.items():
                accuracy = [value + gain + NOISE[seed] for value in RANDOM[seed]]
                write_run(root, strategy, seed, accuracy=accuracy, name=name)
    return root


def overall_of(root: Path) -> Overall | None:
    """All experiments under `root` together."""
    return over_all([summarize(each) for each in group_runs(find_runs([root]))])


def test_ranks_are_those_of_the_experiments(tmp_path: Path) -> None:
    """Each experiment ranks its mean areas, and the best mean rank comes first."""
    found = overall_of(several(tmp_path))
    assert found is not None
    assert found.titles == ("cells", "digits", "photos")
    assert found.ranks.loc["good"].tolist() == [2.0, 1.0, 1.0]
    assert found.ranks.loc["random"].tolist() == [1.0, 2.0, 2.0]
    assert next(iter(found.mean_ranks.items())) == ("good", pytest.approx(4 / 3))
    assert found.tested is not None
    assert found.tested.mean_ranks == pytest.approx(found.mean_ranks)


def test_penalties_add_up(tmp_path: Path) -> None:
    """A cell is the sum of the experiments: good beats bad in every cycle of all three."""
    found = overall_of(several(tmp_path))
    assert found is not None
    assert found.penalties is not None
    at = found.penalties.labels.index
    assert found.penalties.cells[at("good"), at("bad")] == pytest.approx(3)
    assert found.penalties.cells[at("good"), at("random")] == pytest.approx(2)
    assert found.penalties.cells[at("bad"), at("good")] == 0


def test_the_profile_has_the_problems_of_all(tmp_path: Path) -> None:
    """Levels and seeds of all experiments are pooled: five seeds of two levels, three times."""
    found = overall_of(several(tmp_path))
    assert found is not None
    assert found.profile is not None
    assert found.profile.num_problems == 30


def test_the_first_sentence_names_the_best(tmp_path: Path) -> None:
    """It says how many experiments, what is not told apart, and where labels are saved."""
    found = overall_of(several(tmp_path))
    assert found is not None
    text = sentence(found)
    assert text.startswith("Over 3 experiments good has the best mean rank, 1.3 of 3 strategies")
    assert "it saves labels against random in 2 of 3 experiments" in text


@pytest.mark.parametrize(
    "gains",
    [
        {"digits": {"good": 1.0}},
        {"digits": {}, "photos": {}},
        {"digits": {"good": 1.0}, "photos": {}},
    ],
    ids=["one experiment", "one strategy", "one that compares"],
)
def test_nothing_is_said_without_something_in_common(
    tmp_path: Path, gains: dict[str, dict[str, float]]
) -> None:
    """One experiment, or one strategy in common, gives no such part."""
    several(tmp_path, gains)
    assert overall_of(tmp_path) is None
    assert across(tmp_path).empty


def test_a_strategy_that_an_experiment_lacks_is_left_out(tmp_path: Path) -> None:
    """Only strategies of all experiments are ranked."""
    gains = {"digits": {"good": 1.0, "other": 2.0}, "photos": {"good": 1.0}}
    found = overall_of(several(tmp_path, gains))
    assert found is not None
    assert found.labels == ("random", "good")
    assert found.tested is None  # two strategies have no critical difference


def test_page_and_files_have_it_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Terminal, Markdown and page begin with all experiments together; its figure is a file."""
    several(tmp_path)
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("## All experiments together\n")
    out = tmp_path / "report"
    assert "### Ranks in each experiment" in (out / "report.md").read_text(encoding="utf-8")
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.index("All experiments together") < page.index('id="experiment-1"')
    for kind in ("png", "svg", "pdf", "csv"):
        assert (out / "figures" / "all-experiments" / f"labels-needed.{kind}").stat().st_size


def test_the_table_for_notebooks(tmp_path: Path) -> None:
    """One row for each strategy and experiment; random saves nothing against itself."""
    table = across(several(tmp_path)).set_index(["strategy", "experiment"])
    assert len(table) == 9
    assert table.loc[("good", "digits"), "labels_saved"] > 0
    assert table.loc[("good", "cells"), "rank"] == 2
    assert table["labels_saved"].isna()[("random", "digits")]
