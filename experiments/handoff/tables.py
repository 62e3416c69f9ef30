"""The plainest formats: a CSV with a class for each image, and folders named for classes.

A CSV has the columns `name` and `label`, separated by commas or semicolons; rows without a label
are not answered yet. A label is a class in classification, and the refusal in any task.
"""

from __future__ import annotations

import csv
import io
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

from experiments.data.labels import Found, Problem, Rules, UnusableFile
from experiments.data.untrusted import parse_text

COLUMNS = ("name", "label")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet program evaluates; some formulas run other programs.
Source: OWASP, "CSV Injection"."""


def read_csv(data: bytes, rules: Rules) -> Iterator[Found | Problem]:
    """Read the rows that have a label.

    Raises:
        UnusableFile: It is no UTF-8 text, no CSV, or has no such columns.
    """
    text = parse_text(data)
    first = text.split("\n", 1)[0]
    separator = ";" if first.count(";") > first.count(",") else ","
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        heads = [name.strip() for name in next(rows, [])]
        if not set(COLUMNS) <= set(heads):
            raise UnusableFile(f"its first line must name the columns {', '.join(COLUMNS)}")
        name_at, label_at = (heads.index(column) for column in COLUMNS)
        for row in rows:
            cells = [*row, *[""] * len(heads)]
            name, label = cells[name_at], cells[label_at].strip()
            if name and label:
                try:
                    yield Found(_names_of(name), rules.classified([label]))
                except UnusableFile as error:
                    yield Problem(f"line {rows.line_num}, {name}", str(error))
    except csv.Error as error:
        raise UnusableFile(f"it is no CSV: line {rows.line_num}: {error}") from None


def read_class_folder(path: PurePosixPath, target: Path, rules: Rules) -> Found:
    """Read an image file that was put into the folder of its class.

    Args:
        path: Its path below the folder in which annotations come back.
        target: The file; it is not opened.
        rules: Classes and task.

    Raises:
        UnusableFile: None of the folders that it lies in is a class, or it is no file.
        OSError: It is gone.
    """
    mode = target.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
        raise UnusableFile("it is no regular file")
    depth = next((i for i, part in enumerate(path.parts[:-1]) if rules.meant(part)), None)
    if depth is None:
        inside = path.parent.name
        where = f"lies in {inside!r}, which" if inside else "lies in no folder that"
        raise UnusableFile(
            f"it {where} is no class; there are {', '.join((*rules.class_names, rules.refusal))}"
        )
    below = str(PurePosixPath(*path.parts[depth + 1 :]))
    # A link that was handed out names its image for certain.
    linked = (os.path.realpath(target),) if target.is_symlink() else ()
    return Found((*linked, below), rules.classified([path.parts[depth]]))


def write_csv(file: TextIO, rows: Iterable[tuple[str, str]]) -> None:
    """Write names and labels for a spreadsheet; an empty label is to be filled in."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((as_text(name), label) for name, label in rows)


def as_text(name: str) -> str:
    """Return a name as a spreadsheet program takes it for text; `read_csv` reads both forms."""
    return f"'{name}" if name.startswith(FORMULA) else name


def _names_of(cell: str) -> tuple[str, ...]:
    """Return the names that a cell may stand for: itself, and the one that `as_text` wrote so."""
    unquoted = cell.removeprefix("'")
    return (cell, unquoted) if as_text(unquoted) == cell != unquoted else (cell,)
