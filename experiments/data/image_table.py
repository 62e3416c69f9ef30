"""Images that a table lists with their classes: a CSV or Parquet file of paths and labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from al_core.errors import InvalidSetting
from experiments.data.classification import ImageClassification, from_files, square_reader
from experiments.data.labeled_files import (
    LabeledFiles,
    SplitFiles,
    check_test_fraction,
    held_out,
)
from experiments.data.long_tail import long_tailed
from experiments.settings.checks import check_flag, check_folder, check_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION
from experiments.settings.wording import counted

log = logging.getLogger(__name__)

PATH, LABEL, SPLIT = "path", "label", "split"
TRAIN_WORDS = ("train", "training", "pool")
TEST_WORDS, VALIDATION_WORDS = ("test", "testing"), ("val", "valid", "validation")
ENDINGS = (".csv", ".parquet", ".pq")
NUM_NAMED = 4
"""Values that a message names."""


def image_table(
    table: str | Path,
    *,
    root: str | Path | None = None,
    image_size: int = 32,
    resize: str = "crop",
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    cache: str | None = None,
    test_fraction: float | None = None,
    flip: bool = True,
    imbalance: float = 1.0,
    lazy: bool = False,
) -> ImageClassification:
    """Images that a table lists, one a row, with the columns `path`, `label` and perhaps `split`.

    The classes are the labels of the pool, sorted by name. `split` says train or test; rows of val,
    valid or validation are the test set where none says test, and are passed over otherwise. Other
    columns are ignored. The order of the rows does not matter.

    Args:
        table: A CSV file with a header, in UTF-8 and separated by commas, or a Parquet file.
        root: Folder that the paths are relative to; None for that of the table. Absolute paths are
            taken as they are.
        image_size: As `image_folder`, and so the other arguments.
        resize: "crop", "letterbox" or "stretch".
        interpolation: "area", "bilinear" or "bicubic".
        max_memory_gb: A larger set is decoded whenever it is read.
        cache: Folder that keeps the resized images; None for no cache.
        test_fraction: Share of the images that are held out for testing; only for a table without
            test images.
        flip: False where mirror images are not of the same class.
        imbalance: So many times the last class the first one is in the pool.
        lazy: Decode images only when they are needed.

    Raises:
        InvalidSetting: The table cannot be read or used, or an argument is out of range.
    """
    file = check_folder("data.table", table)
    read = square_reader(image_size, resize=resize, interpolation=interpolation, cache=cache)
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_flag("data.flip", flip)
    check_flag("data.lazy", lazy)
    check_test_fraction(test_fraction)
    rows = _rows(file)
    folder, names = _names(
        rows[PATH].tolist(), file.parent if root is None else check_folder("data.root", root)
    )
    _check_unique(file, names)
    rows = rows.assign(name=names).sort_values("name")
    is_train, is_test = _split(file, rows)
    class_names = tuple(sorted(set(rows[LABEL][is_train])))
    if len(class_names) < 2:
        raise InvalidSetting(
            f"data.table: two classes are needed, and the labels of the pool in {file} are "
            f"{_listed(class_names) or 'none'}"
        )
    unknown = sorted(set(rows[LABEL][is_test]) - set(class_names))
    if unknown:
        raise InvalidSetting(
            f"data.table: the test set has a class that the pool has not: {unknown[0]}; the pool "
            f"has {_listed(class_names)}"
        )
    position = {name: index for index, name in enumerate(class_names)}

    def part(chosen: pd.Series[bool]) -> LabeledFiles:
        targets = [position[label] for label in rows[LABEL][chosen]]
        return LabeledFiles(folder, list(rows["name"][chosen]), np.array(targets, np.int64))

    if is_test.any():
        if test_fraction is not None:
            raise InvalidSetting(
                f"data.test_fraction={test_fraction} holds out images where there is no test set, "
                f"and {file} has {counted(int(is_test.sum()), 'test image')}: leave it out"
            )
        files = SplitFiles(part(is_train), part(is_test), class_names)
    elif test_fraction is not None:
        files = held_out(part(is_train), class_names, test_fraction)
    else:
        raise InvalidSetting(
            f"data.table: {file} has no test image: add a column {SPLIT} with train and test, or "
            "set data.test_fraction=0.2"
        )
    kept = long_tailed(files.train.targets, imbalance)
    files = replace(files, train=files.train.part(kept))
    return from_files(files, read, max_memory_gb=max_memory_gb, flip=flip, lazy=lazy)


def _rows(file: Path) -> pd.DataFrame:
    """Read path, label and split as text, and check that each row has what it needs."""
    if file.suffix.lower() not in ENDINGS:
        raise InvalidSetting(f"data.table must end in {' or '.join(ENDINGS)}, it is {file}")
    try:
        rows = _read(file)
    except FileNotFoundError:
        raise InvalidSetting(f"data.table: there is no file {file}") from None
    except UnicodeDecodeError:
        raise InvalidSetting(f"data.table: {file} is not in UTF-8") from None
    except ImportError:
        raise InvalidSetting(
            f"data.table: reading {file} needs pyarrow: pip install -e '.[parquet]'"
        ) from None
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        reason = str(error).strip().splitlines()[0]
        raise InvalidSetting(f"data.table: {file} cannot be read ({reason})") from None
    missing = [column for column in (PATH, LABEL) if column not in rows.columns]
    if missing:
        raise InvalidSetting(
            f"data.table: {file} has the columns {_listed(list(map(str, rows.columns)))}; needed "
            f"are {PATH} and {LABEL}, and {SPLIT} where it names the test set"
        )
    columns = [column for column in (PATH, LABEL, SPLIT) if column in rows.columns]
    rows = rows[columns].astype(object)
    rows = rows.where(rows.notna(), "").astype(str)
    for column in columns:
        empty = np.flatnonzero((rows[column].str.strip() == "").to_numpy())
        if empty.size:
            raise InvalidSetting(
                f"data.table: {counted(empty.size, 'row')} of {file} without a {column}, the first "
                f"is row {empty[0] + 1} below the header"
            )
    if rows.empty:
        raise InvalidSetting(f"data.table: {file} has no rows")
    return rows


def _read(file: Path) -> pd.DataFrame:
    if file.suffix.lower() == ".csv":
        return pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    return pd.read_parquet(file, engine="pyarrow")


def _names(paths: Sequence[str], base: Path) -> tuple[Path, list[str]]:
    """Return the deepest folder that has all of the images, and their paths below it."""
    normal = [os.path.normpath(path) for path in paths]
    if not any(os.path.isabs(path) or path.startswith("..") for path in normal):
        return base, [Path(path).as_posix() for path in normal]
    whole = [os.path.normpath(base / path) for path in normal]
    folder = os.path.commonpath([os.path.dirname(path) for path in whole])
    return Path(folder), [Path(os.path.relpath(path, folder)).as_posix() for path in whole]


def _check_unique(file: Path, names: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for row, name in enumerate(names, start=1):
        if first.setdefault(name, row) != row:
            raise InvalidSetting(
                f"data.table: {file} lists {name} twice, in rows {first[name]} and {row} below the "
                "header"
            )


def _split(file: Path, rows: pd.DataFrame) -> tuple[pd.Series[bool], pd.Series[bool]]:
    """Return which rows are the pool and which the test set."""
    if SPLIT not in rows.columns:
        everything = pd.Series(True, index=rows.index)
        return everything, ~everything
    words = rows[SPLIT].str.strip().str.lower()
    known = {*TRAIN_WORDS, *TEST_WORDS, *VALIDATION_WORDS}
    unknown = sorted(set(words) - known)
    if unknown:
        raise InvalidSetting(
            f"data.table: the column {SPLIT} of {file} has {_listed(unknown)}; permitted are train,"
            " test and val"
        )
    is_test, is_validation = words.isin(TEST_WORDS), words.isin(VALIDATION_WORDS)
    if not is_test.any():
        is_test = is_validation
    elif is_validation.any():
        log.info("%s: ignored %s for validation", file, counted(int(is_validation.sum()), "image"))
    return words.isin(TRAIN_WORDS), is_test


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(map(str, names[:NUM_NAMED])) + more
