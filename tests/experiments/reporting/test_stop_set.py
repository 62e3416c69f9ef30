"""The predictions for the stop set, read from a run folder of any origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.reporting.stop_set import prediction_file, read_predictions


def write(folder: Path, **arrays: Any) -> None:
    """Write the file of the first cycle."""
    file = prediction_file(folder, 0)
    file.parent.mkdir(parents=True)
    np.savez(file, **arrays)


def test_predictions_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Positions and classes; nothing of a cycle that has no file."""
    write(tmp_path, images=np.array([3, 7]), classes=np.array([[1], [0]]))
    found = read_predictions(tmp_path, 0)
    assert found is not None
    assert (found[0].tolist(), found[1].tolist()) == ([3, 7], [[1], [0]])
    assert read_predictions(tmp_path, 1) is None


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": [3, 7]},
        {"images": [3, 7], "classes": [[1]]},
        {"images": [7, 3], "classes": [[1], [0]]},
        {"images": [3, 7], "classes": [[1], [-1]]},
        {"images": [3, 7], "classes": [1, 0]},
        {"images": np.empty(0, np.int64), "classes": np.empty((0, 1), np.int64)},
        {"images": np.array([object()]), "classes": [[1]]},
    ],
    ids=["no classes", "too few", "unordered", "negative", "flat", "empty", "pickled"],
)
def test_a_damaged_file_is_not_used(
    tmp_path: Path, arrays: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Contents that no run writes count as nothing, and the log names the file."""
    write(tmp_path, **arrays)
    assert read_predictions(tmp_path, 0) is None
    assert "cycle_00.npz cannot be read" in caplog.text
