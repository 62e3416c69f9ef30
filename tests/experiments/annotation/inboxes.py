"""Annotation files, as they are put into the folder in which a run looks for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def write_labels(file: Path, names: Sequence[str], label: str, *, newer: int) -> None:
    """Write a CSV with one label for all names; `newer` is its time of change in seconds."""
    write_rows(file, [(name, label) for name in names], newer=newer)


def write_rows(file: Path, rows: Sequence[tuple[str, str]], *, newer: int) -> None:
    """Write a CSV of names and labels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"{name},{label}\n" for name, label in rows)
    file.write_text(f"name,label\n{lines}", encoding="utf-8")
    os.utime(file, (newer, newer))
