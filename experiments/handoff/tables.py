"""The plainest formats: a CSV with a class for each image, and folders named for classes.

A CSV has the columns `name` and `label`, separated by commas or semicolons; rows without a label
are not answered yet. It refuses images of any task, and classifies those of classification.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import TextIO

from experiments.data.labels import Found, Problem, Rules, UnusableFile

COLUMNS = ("name", "label")


def read_csv(path: Path, rules: Rules) -> Iterator[Found | Problem]:
    """Read the rows that have a label.

    Raises:
        UnusableFile: It has no such columns, or is no text.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        separator = ";" if first.count(";") > first.count(",") else ","
        rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except UnicodeDecodeError:
        raise UnusableFile("it is not UTF-8 text") from None
    except csv.Error as error:
        raise UnusableFile(f"it is no CSV: {error}") from None
    heads = [name.strip() for name in first.replace('"', "").split(separator)]
    missing = [name for name in COLUMNS if name not in heads]
    if missing:
        raise UnusableFile(f"its first line must name the columns {', '.join(COLUMNS)}")
    for line, row in enumerate(rows, start=2):
        values = {(key or "").strip(): value for key, value in row.items()}
        name, label = values.get("name"), values.get("label")
        if not name or not isinstance(label, str) or not label.strip():
            continue
        try:
            yield Found((name,), rules.classified([label.strip()]))
        except UnusableFile as error:
            yield Problem(f"row {line}, {name}", str(error))


def read_class_folder(path: PurePosixPath, target: Path, rules: Rules) -> Found:
    """Read an image file that was put into the folder of its class.

    Args:
        path: Its path below the folder of what came back.
        target: The file.
        rules: Names of the classes.

    Raises:
        UnusableFile: None of the folders that it lies in is a class.
    """
    known = {*rules.class_names, rules.refusal}
    depth = next((i for i, part in enumerate(path.parts[:-1]) if part in known), None)
    if depth is None:
        inside = path.parent.name
        where = f"lies in {inside!r}, which" if inside else "lies in no folder that"
        raise UnusableFile(
            f"it {where} is no class; there are {', '.join((*rules.class_names, rules.refusal))}"
        )
    below = str(PurePosixPath(*path.parts[depth + 1 :]))
    # A link that was handed out says for certain which image it is.
    linked = (os.path.realpath(target),) if target.is_symlink() else ()
    return Found((*linked, below), rules.classified([path.parts[depth]]))


def write_csv(file: TextIO, rows: Iterable[tuple[str, str]]) -> None:
    """Write such a CSV; an empty label is a line to fill in."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
