"""Run folders of pilots, with made-up numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.metrics.evaluation import Evaluation, calibration
from experiments.reporting.stop_set import prediction_file
from tests.experiments.synthetic_runs import add_column, write_csv, write_run
from tests.small_runs import read_rows

CLASSES = tuple("abcd")


def write_pilot(
    root: Path,
    *,
    accuracy: Sequence[float] = (60.0, 70.0),
    tau: float | None = 0.8,
    shares: Sequence[int] | None = (40, 30, 20, 10),
    train_loss: float = 0.01,
    num_test: int = 400,
    settings: dict[str, Any] | None = None,
) -> Path:
    """Write a run of random sampling with four classes and return its folder.

    Args:
        root: Folder above it.
        accuracy: Of each cycle, which has 100 labels more than the one before.
        tau: Kendall's tau of margin; None for no such column.
        shares: Images of the stop set by predicted class; None for no stop set.
        train_loss: The training loss of every cycle.
        num_test: Test images.
        settings: Further settings of the run.
    """
    folder = write_run(root, "random", 0, accuracy=accuracy, settings=settings)
    set_column(folder, "train_loss", train_loss)
    if tau is not None:
        add_column(folder, "tau_margin", [tau] * len(accuracy))
    for cycle, value in enumerate(accuracy):
        evaluation = Evaluation(
            class_names=CLASSES,
            score="accuracy",
            scores=np.full(4, value),
            unit="images",
            counts=np.full(4, num_test // 4),
            calibration=calibration(np.array([0.9]), np.array([True])),
        )
        place = folder / "evaluation" / f"cycle_{cycle:02d}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(evaluation.to_json())
        if shares is not None:
            file = prediction_file(folder, cycle)
            file.parent.mkdir(exist_ok=True)
            classes = np.repeat(np.arange(4), shares)[:, None]
            np.savez(file, images=np.arange(len(classes)), classes=classes)
    return folder


def set_column(folder: Path, name: str, value: float) -> None:
    """Give every cycle of a run this value in a column that it has."""
    rows = read_rows(folder / "cycles.csv")
    write_csv(
        folder / "cycles.csv", list(rows[0]), [[*{**row, name: value}.values()] for row in rows]
    )
