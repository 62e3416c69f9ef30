"""Settings of images without labels, and a test set that is given as a folder."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.annotation.unlabeled import checked_class_names, labeled_folder
from experiments.data.labels import Rules


@pytest.mark.parametrize(
    "names", [["a", "li\nne"], ["a", "\ud800"], ["a", "\x00"], ["a", " "], "ab"]
)
def test_class_names_are_printable(names: list[str]) -> None:
    """A control character in a class would make every XML file with it unreadable."""
    with pytest.raises(InvalidSetting, match=r"must be a list of 2 \.\. 255 distinct names"):
        checked_class_names(names, "classification")


def test_a_test_set_must_be_right(tmp_path: Path) -> None:
    """Labels by name; anything that cannot be used is an error, hostile files included."""
    rules = Rules("classification", ("cat", "dog"))
    for name in ("b.png", "a.png"):
        assert cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "cat").mkdir()
    (tmp_path / "b.png").rename(tmp_path / "cat" / "b.png")
    (tmp_path / "dog").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "dog" / "a.png")
    images, labels = labeled_folder(str(tmp_path), rules, lambda label: label.class_name)
    assert (images, labels) == (tmp_path, {"cat/b.png": "cat", "dog/a.png": "dog"})
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(
        InvalidSetting, match=r"1 thing cannot be used:\n  labels.csv: it is no reg"
    ):
        labeled_folder(str(tmp_path), rules, lambda label: label.class_name)
