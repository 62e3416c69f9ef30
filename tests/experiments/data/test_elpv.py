from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.data import elpv as module
from experiments.data.elpv import elpv

PROBABILITIES = ("0.0", "0.3333333333333333", "0.6666666666666666", "1.0")
NUM_CELLS = 24


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the same layout, with few cells of random pixels."""
    images = tmp_path / "elpv_dataset" / "data" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = []
    for k in range(NUM_CELLS):
        name = f"cell{NUM_CELLS - k:04d}.png"  # not in the order of the names
        cv2.imwrite(str(images / name), rng.integers(256, size=(30, 30), dtype=np.uint8))
        lines.append(f"images/{name}  {PROBABILITIES[k % 4]}                 mono")
    (images.parent / "labels.csv").write_text("\n".join(lines) + "\n")
    origin = tmp_path / "elpv_dataset" / "__init__.py"
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: ModuleSpec(name, None, origin=str(origin))
    )
    monkeypatch.setattr(module, "NUM_CELLS", NUM_CELLS)
    return tmp_path / "elpv_dataset"


def test_grades_follow_the_probabilities_of_the_table(package: Path) -> None:
    """Each cell has the class of its own row, and no cell is in both parts."""
    data = elpv(image_size=16)
    assert data.class_names == ("intact", "slightly_suspect", "strongly_suspect", "defective")
    found = {
        name: data.class_names[target]
        for samples, targets in ((data.train, data.train_targets), (data.test, data.test_targets))
        for name, target in zip(samples.names, targets, strict=True)
    }
    expected = {f"cell{NUM_CELLS - k:04d}.png": data.class_names[k % 4] for k in range(NUM_CELLS)}
    assert found == expected
    assert len(data.train) + len(data.test) == NUM_CELLS
    assert data.train.images(np.array([0])).shape == (1, 3, 16, 16)


def test_two_grades_leave_the_suspect_cells_out(package: Path) -> None:
    """With two grades intact and defective cells remain, with the same images for testing."""
    four, two = elpv(image_size=16), elpv(image_size=16, grades=2)
    assert two.class_names == ("intact", "defective")
    assert len(two.train) + len(two.test) == NUM_CELLS / 2
    assert set(two.test.names) <= set(four.test.names)
    sure = {n: t for n, t in zip(four.train.names, four.train_targets, strict=True) if t in (0, 3)}
    assert {n: 3 * t for n, t in zip(two.train.names, two.train_targets, strict=True)} == sure


def test_missing_package_is_named_with_its_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package one line says what to install, and under which licence it is."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidSetting, match=r"pip install elpv-dataset.*CC BY-NC-SA"):
        elpv()


@pytest.mark.parametrize("table", ["", "images/cell0001.png x mono\n", "only two\n"])
def test_damaged_table_is_refused(package: Path, table: str) -> None:
    """A table of another form is an error in one line that names the file."""
    (package / "data" / "labels.csv").write_text(table)
    with pytest.raises(InvalidSetting, match=r"labels\.csv cannot be read"):
        elpv()


@pytest.mark.parametrize("grades", [1, 3, 5, True])
def test_other_numbers_of_grades_are_refused(grades: int) -> None:
    """There are four grades, or two of them."""
    with pytest.raises(InvalidSetting, match=r"data\.grades"):
        elpv(grades=grades)
