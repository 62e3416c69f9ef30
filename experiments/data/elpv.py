"""ELPV: 2,624 electroluminescence images of solar cells, by the degree to which they are defective.

The images are in the package `elpv-dataset` of PyPI (91 MB, licence CC BY-NC-SA 4.0: not for
commercial use), which whoever runs this installs; nothing of it is in this project. Sources:
Buerhop et al., EU PVSEC 2018; Deitsch et al., Solar Energy 185 (2019), arXiv 1807.02894.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification, from_files, square_reader
from experiments.data.labeled_files import LabeledFiles, check_test_fraction, held_out
from experiments.settings.checks import check_number, check_whole_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION

GRADES = ("intact", "slightly_suspect", "strongly_suspect", "defective")
"""Classes of the probabilities of a defect 0, 1/3, 2/3 and 1, which experts assigned."""
NUM_CELLS = 2624
INSTALL = "pip install elpv-dataset==1.0.0.post1 (91 MB, CC BY-NC-SA 4.0: not for commercial use)"


def elpv(
    *,
    grades: int = 4,
    test_fraction: float = 0.25,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    lazy: bool = False,
) -> ImageClassification:
    """Read the solar cells: 1,508 intact, 295 and 106 suspect to a degree, 715 defective.

    Args:
        grades: 4 for the classes of `GRADES`; 2 for intact and defective cells alone, without the
            suspect ones, whose grade the experts themselves were not certain of.
        test_fraction: Share of the cells that are held out for testing; see `held_out`.
        image_size: Side of the images in pixels, of 300.
        interpolation: As `image_folder`.
        max_memory_gb: As `image_folder`.
        lazy: As `image_folder`.

    Raises:
        InvalidSetting: The package is missing or damaged, or an argument is out of range.
    """
    check_whole_number("data.grades", grades, low=2, high=4)
    if grades == 3:
        raise InvalidSetting("data.grades must be 4, or 2 for intact and defective cells alone")
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_test_fraction(test_fraction)
    read = square_reader(image_size, resize="stretch", interpolation=interpolation, cache=None)
    files = _cells()
    class_names: tuple[str, ...] = GRADES
    if grades == 2:
        files = files.part(np.isin(files.targets, (0, 3)))
        files = LabeledFiles(files.folder, files.names, files.targets // 3)
        class_names = (GRADES[0], GRADES[3])
    split = held_out(files, class_names, test_fraction)
    return from_files(split, read, max_memory_gb=max_memory_gb, flip=True, lazy=lazy)


def _cells() -> LabeledFiles:
    """Read the table of the package: rows of path, probability and type of the cell."""
    table = _table_path()
    try:
        rows = [line.split() for line in table.read_text("ascii").splitlines()]
        names = [name.removeprefix("images/") for name, *_ in rows]
        targets = np.array([round(3 * float(probability)) for _, probability, _ in rows], np.int64)
        if len(rows) != NUM_CELLS or targets.min() < 0 or targets.max() > 3:
            raise ValueError(f"{len(rows)} cells, not {NUM_CELLS}, or a probability beyond 0 to 1")
    except (OSError, ValueError) as error:
        raise InvalidSetting(
            f"data=elpv: {table} cannot be read ({error}); install the package again: {INSTALL}"
        ) from error
    order = np.argsort(names)
    return LabeledFiles(table.parent / "images", [names[i] for i in order], targets[order])


def _table_path() -> Path:
    # The package is not imported: only its files are needed.
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or package.origin is None:
        raise InvalidSetting(f"data=elpv needs the package elpv-dataset: {INSTALL}")
    return Path(package.origin).parent / "data" / "labels.csv"
