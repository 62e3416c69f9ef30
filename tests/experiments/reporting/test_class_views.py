"""Results by class in the report: table, confusion matrix with pictures, calibration, old runs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.report import main
from experiments.reporting.class_views import (
    MOST_CLASSES,
    calibration_sentence,
    class_table,
    matrix,
    mistakes,
)
from experiments.reporting.evaluations import class_results
from experiments.reporting.grouping import group_runs
from experiments.reporting.headline import headline
from experiments.reporting.numbers import NONE
from experiments.reporting.panels import drawings
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import Summary, summarize
from tests.experiments.synthetic_runs import JPEG, write_evaluation, write_run

FIRST = [[6, 4, 0], [3, 7, 0], [0, 0, 0]]
LAST = [[9, 1, 0], [5, 5, 0], [0, 0, 0]]


def summary_of(root: Path) -> Summary:
    """The summary of the one experiment under `root`."""
    (experiment,) = group_runs(find_runs([root]))
    return summarize(experiment)


def one_run(root: Path, seed: int = 0, strategy: str = "margin") -> Path:
    """A run of two cycles; the third class has no test image."""
    folder = write_run(root, strategy, seed, accuracy=[65.0, 70.0])
    write_evaluation(folder, 0, FIRST)
    write_evaluation(folder, 1, LAST, pictures={(1, 0): JPEG, (0, 1): JPEG})
    return folder


def test_one_run_has_a_column_for_each_cycle(tmp_path: Path) -> None:
    """A class's scores by labeled images, with the number of its test images."""
    one_run(tmp_path)
    table = class_table(summary_of(tmp_path))
    assert table is not None
    assert table.header == ("accuracy in %, by labeled images", "test images", "100", "200")
    assert table.rows == (
        ("cat", "10", "60.0", "90.0"),
        ("dog", "10", "70.0", "50.0"),
        ("owl", "0", NONE, NONE),
    )


def test_strategies_are_compared_class_by_class(tmp_path: Path) -> None:
    """Several strategies have a column each, the mean over the seeds of the last cycle."""
    for seed in range(3):
        one_run(tmp_path, seed)
        one_run(tmp_path, seed, "random")
    table = class_table(summary_of(tmp_path))
    assert table is not None
    assert table.header == ("accuracy in %, after cycle 1", "test images", "random", "margin")
    assert table.rows[0] == ("cat", "10", "90.0 ± 0.0", "90.0 ± 0.0")


def test_the_best_and_the_worst_class_are_named_first(tmp_path: Path) -> None:
    """The opening sentences on one run say where it is good and where it is not."""
    one_run(tmp_path)
    text = headline(summary_of(tmp_path))
    assert "Best class: cat (accuracy 90 %); worst: dog (50 %)." in text


def test_cells_lead_to_the_images_behind_them(tmp_path: Path) -> None:
    """A cell with pictures is a link to them; the largest errors come first."""
    one_run(tmp_path)
    assert main([str(tmp_path)]) == 0
    text = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="#(cell-[^"]+)"', text)
    places = re.findall(r'id="(cell-[^"]+)"', text)
    assert sorted(links) == sorted(places) == ["cell-1-0-1", "cell-1-1-0"]
    assert places[0] == "cell-1-1-0"
    assert "dog taken for cat: 5 images, 50% of dog" in text


@pytest.mark.parametrize("which", ["evaluation/cycle_01/0.jpg", "evaluation"])
def test_a_link_out_of_the_folder_is_no_picture(tmp_path: Path, which: str) -> None:
    """A report is sent to others, and a run folder may come from anybody."""
    folder = one_run(tmp_path / "runs")
    private = tmp_path / "private"
    (folder / which).rename(private)
    (folder / which).symlink_to(private)
    (result,) = summary_of(tmp_path / "runs").classes.values()
    shown = [image.file for each in mistakes(result, "x") for image in each.images]
    assert "cycle_01/0.jpg" not in shown


def test_the_matrix_adds_the_seeds(tmp_path: Path) -> None:
    """Counts of two seeds are summed, and shares are of the row."""
    for seed in range(2):
        one_run(tmp_path, seed)
    (result,) = summary_of(tmp_path).classes.values()
    found = matrix(result, mistakes(result, "x"))
    assert found is not None
    assert [cell.text for cell in found.rows[1]] == ["10", "10", ""]
    assert found.rows[1][0].share == 0.5
    assert [cell.right for cell in found.rows[1]] == [False, True, False]


def test_a_matrix_of_many_classes_shows_those_with_errors(tmp_path: Path) -> None:
    """Beyond a number of classes the ones that are hardly confused are left out, and counted."""
    k = MOST_CLASSES + 6
    confusion = 10 * np.eye(k, dtype=np.int64)
    confusion[np.arange(k - 1), np.arange(1, k)] = np.arange(k - 1)
    folder = write_run(tmp_path, "margin", 0, accuracy=[65.0, 70.0])
    write_evaluation(folder, 1, confusion.tolist(), names=[f"class {n}" for n in range(k)])
    (result,) = summary_of(tmp_path).classes.values()
    found = matrix(result, [])
    assert found is not None
    assert found.left_out == 6
    assert found.names == tuple(f"class {n}" for n in range(6, k))


def test_calibration_is_told_in_words(tmp_path: Path) -> None:
    """14 of 20 right at a confidence of 0.9 are 20 points too confident."""
    one_run(tmp_path)
    text = calibration_sentence(summary_of(tmp_path))
    assert text.startswith("Expected calibration error 20.0 points.")
    assert "more confident than it is right" in text


def test_old_runs_have_a_report(tmp_path: Path) -> None:
    """Runs without results by class have neither table nor figure of them, and no error."""
    write_run(tmp_path, "margin", 0, accuracy=[65.0, 70.0])
    summary = summary_of(tmp_path)
    assert summary.classes == {}
    assert class_table(summary) is None
    assert calibration_sentence(summary) == ""
    assert {each.name for each in drawings(summary)} == {"learning-curves"}


def test_cycles_that_are_not_on_record_do_not_count(tmp_path: Path) -> None:
    """A killed run leaves the results of a cycle that cycles.csv does not have."""
    folder = one_run(tmp_path)
    write_evaluation(folder, 2, LAST)
    (experiment,) = group_runs(find_runs([tmp_path]))
    assert class_results(experiment)["margin"].cycles == [0, 1]


def test_other_classes_are_not_averaged(tmp_path: Path) -> None:
    """A run whose classes have other names is left out of the results by class."""
    one_run(tmp_path)
    other = write_run(tmp_path, "random", 0, accuracy=[65.0, 70.0])
    write_evaluation(other, 1, LAST, names=("a", "b", "c"))
    (experiment,) = group_runs(find_runs([tmp_path]))
    assert len(class_results(experiment)) == 1


def test_damaged_results_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is no evaluation is named, with what is wrong."""
    folder = one_run(tmp_path)
    (folder / "evaluation" / "cycle_01.json").write_text("{")
    assert main([str(tmp_path)]) == 1
    assert re.fullmatch(
        r"error: .*cycle_01\.json: not an evaluation: .*\n", capsys.readouterr().err
    )
