"""The schema of cycles.csv: what each column is, and which direction is better."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.metrics.classification import ClassificationMetrics
from experiments.metrics.columns import (
    COLUMNS,
    LEADING,
    TRAILING,
    column,
    in_order,
    larger_is_better,
)
from experiments.metrics.detection import DetectionMetrics
from experiments.metrics.segmentation import SegmentationMetrics

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("accuracy", True),
        ("test_loss", False),
        ("map50", True),
        ("miou", True),
        ("pixel_accuracy", True),
        ("iou_steps", True),
        ("iou_glossy_leaf", True),
        ("iou_memory_card", True),
        ("ap_error_sign", True),
        ("pckh", True),
        ("pck_left_wrist", True),
        ("oks_ap", True),
        ("loss_ranking_tau", True),
        ("tau_least_confidence", True),
        ("prediction_agreement", True),
        ("train_loss", False),
        ("train_ranking_accuracy", True),
        ("seconds_fit", False),
        ("seconds_other_phase", False),
        ("peak_memory_mb", False),
        ("optimizer_steps", False),
    ],
)
def test_direction_is_declared_not_guessed(name: str, larger: bool) -> None:
    """A class called "steps" does not make its IoU a cost, nor "loss" in a name a loss of tau."""
    assert larger_is_better(name) is larger
    assert column(name).is_declared


@pytest.mark.parametrize(
    ("name", "larger"),
    [
        ("f1", True),
        ("val_loss", False),
        ("error_rate", False),
        ("glossiness", True),
        ("iou_", True),
    ],
)
def test_unknown_columns_follow_the_stated_rule(name: str, larger: bool) -> None:
    """A column of another program is a metric; smaller is better only where a word of its name
    says so.
    """
    found = column(name)
    assert (found.role, found.is_declared) == ("metric", False)
    assert larger_is_better(name) is larger
    assert found.title == name


def test_positions_have_no_direction() -> None:
    """More cycles or labels are neither better nor worse."""
    with pytest.raises(ValueError, match="num_labeled has no better direction"):
        larger_is_better("num_labeled")


def test_families_name_their_members() -> None:
    """A per-class column takes title, unit and range from its family; an exact name comes first."""
    leaf = column("iou_glossy_leaf")
    assert (leaf.title, leaf.unit, leaf.lowest, leaf.highest) == ("IoU of glossy_leaf", "%", 0, 100)
    assert column("num_labeled_boxes").title == "labeled boxes"
    assert column("num_labeled").role == "position"
    assert column("num_labeled_boxes").role == "cost"


def test_every_metric_that_a_task_computes_is_declared() -> None:
    """Every value that the metrics of the tasks return is declared beside them."""
    empty = (
        ClassificationMetrics(),
        DetectionMetrics(2, detect=lambda outputs: outputs),
        SegmentationMetrics(["a", "b"]),
    )
    for metrics in empty:
        names = list(metrics.compute())
        assert names
        assert all(column(name).is_declared and column(name).role == "metric" for name in names)


def test_declarations_do_not_contradict_one_another() -> None:
    """Every name is declared once, and every column but a position has a direction and a title."""
    names = [each.name for each in COLUMNS]
    assert len(names) == len(set(names))
    assert all(each.title for each in COLUMNS)
    assert all((each.better is None) == (each.role == "position") for each in COLUMNS)


def test_order_is_leading_own_trailing() -> None:
    """A row's columns stand in the order of the schema whatever order they come in; what a run
    lacks is None.
    """
    row = in_order(
        {"peak_memory_mb": 1.0, "miou": 2.0, "iou_cat": 3.0, "num_labeled": 4, "cycle": 0}
    )
    assert list(row) == [*LEADING, "miou", "iou_cat", *TRAILING]
    assert (row["iou_cat"], row["train_loss"]) == (3.0, None)


def test_a_diagnostic_without_a_value_has_an_empty_cell() -> None:
    """NaN is no value: a rank correlation of equal scores. A metric that is NaN is not hidden."""
    row = in_order({"cycle": 0, "tau_margin": math.nan, "accuracy": math.nan})
    assert row["tau_margin"] is None
    assert math.isnan(row["accuracy"] or 0.0)


def test_the_schema_is_read_without_torch() -> None:
    """A report starts at once: the declarations import neither torch nor pandas."""
    code = "import experiments.metrics.columns, sys, json; print(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ},
    )  # fmt: skip
    assert not {"torch", "pandas"} & set(json.loads(done.stdout))
