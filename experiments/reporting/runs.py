"""Reading of run folders: `config.yaml`, `cycles.csv`, `state.json` and `provenance.json` become
one `Run`. Nothing is written.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.metrics.columns import LABELED as LABELED
from experiments.metrics.columns import LEADING, column
from experiments.settings.yaml_file import read_yaml


class ReportError(ValueError):
    """Bad input that the user can correct; the text is one line."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    `rows` are the rows of `cycles.csv` in the order of the cycles. A cell is None if it is empty in
    the file, or not finite.
    """

    folder: Path
    name: str
    strategy: str
    seed: int
    metric: str
    config: Mapping[str, Any]
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, float | None], ...]
    finished: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The columns of metrics, in the order of the file."""
        return tuple(name for name in self.columns if column(name).role == "metric")

    @property
    def cycles(self) -> tuple[int, ...]:
        """The cycles that are on record."""
        return tuple(int(row["cycle"] or 0) for row in self.rows)

    def series(self, column: str) -> dict[int, float]:
        """Return the values of a column by cycle, for the cycles that have one."""
        return {
            cycle: value
            for cycle, row in zip(self.cycles, self.rows, strict=True)
            if (value := row.get(column)) is not None
        }


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Return every run in or under `paths`, each once, in the order of their folders.

    The folder of an earlier report (which `runs/*` includes) is skipped. Raises ReportError for a
    path that is no folder or holds no run.
    """
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise ReportError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
        found = run_folders(path.resolve())
        if not found and not (path / "report.csv").is_file():
            raise ReportError(
                f"{path}: no runs inside (a run folder holds config.yaml and cycles.csv)"
            )
        folders.update(dict.fromkeys(found))
    if not folders:
        raise ReportError(f"{', '.join(map(str, paths))}: only an earlier report, no runs inside")
    return [read_run(folder) for folder in sorted(folders)]


def is_run_folder(folder: Path) -> bool:
    """Return True for a run folder, also of a run that has not finished its first cycle."""
    marks = ("cycles.csv", "state.json", "provenance.json", ".lock")
    return (folder / "config.yaml").is_file() and any((folder / m).is_file() for m in marks)


def run_folders(path: Path) -> list[Path]:
    """Return the run folders at or below a folder, in order."""
    found = []
    for parent, children, _ in os.walk(path):
        if is_run_folder(Path(parent)):
            found.append(Path(parent))
            children.clear()
        else:
            children[:] = sorted(child for child in children if not child.startswith("."))
    return found


def read_run(folder: Path) -> Run:
    """Read one run folder; ReportError names a damaged file and the damage."""
    path = folder / "config.yaml"
    try:
        config = read_yaml(path)
    except ValueError as error:
        raise ReportError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ReportError(f"{path}: not a mapping of settings")
    columns, rows = _read_cycles(folder / "cycles.csv")
    if _queried(config) != "images":
        rows = _counted_in_images(rows, config)
    seed = _setting(config, "seed", path)
    if not isinstance(seed, int):
        raise ReportError(f"{path}: seed is {seed!r}, not a whole number")
    return Run(
        folder=folder,
        name=str(_setting(config, "name", path)),
        strategy=_strategy(config, path),
        seed=seed,
        metric=str(_setting(config, "task.metric", path)),
        config=config,
        columns=columns,
        rows=rows,
        finished=_read_json(folder / "state.json").get("finished") is True,
        provenance=_read_json(folder / "provenance.json"),
    )


def _strategy(config: Mapping[str, Any], path: Path) -> str:
    """Return the name of the strategy, with its unit unless that is a whole image."""
    name, queried = str(_setting(config, "strategy.name", path)), _queried(config)
    return name if queried == "images" else f"{name}-{queried}"


def _queried(config: Mapping[str, Any]) -> str:
    query = config.get("query")
    return str(query.get("name", "images")) if isinstance(query, dict) else "images"


def _counted_in_images(
    rows: tuple[Mapping[str, float | None], ...], config: Mapping[str, Any]
) -> tuple[Mapping[str, float | None], ...]:
    """Convert `num_labeled` of runs that label parts of images to whole images.

    The initial set is of whole images, so its labeled pixels give the pixels of an image.
    """
    cycle = config.get("cycle")
    initial = cycle.get("initial_size") if isinstance(cycle, dict) else None
    first = rows[0].get("num_labeled_pixels") if rows else None
    if not first or not isinstance(initial, int):
        return rows
    return tuple(
        {**row, "num_labeled": initial * (row.get("num_labeled_pixels") or 0) / first}
        for row in rows
    )


def _setting(config: Mapping[str, Any], dotted: str, path: Path) -> Any:
    value: Any = config
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if value is None:
        raise ReportError(f"{path}: no {dotted}")
    return value


def _read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in `path`; empty if there is no such file (yet)."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: not JSON: {one_line(error)}") from error
    if not isinstance(value, dict):
        raise ReportError(f"{path}: not a JSON object")
    return value


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of a CSV file with any line ends; all rows are as long as the header.

    Raises ReportError for any other file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file, strict=True)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReportError(f"{path}: not CSV: {one_line(error)}") from error
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ReportError(
                f"{path}, row {number}: {len(row)} cells under {len(header)} headings"
            )
    return header, rows


def _read_cycles(path: Path) -> tuple[tuple[str, ...], tuple[Mapping[str, float | None], ...]]:
    if not path.is_file():
        return (), ()
    header, raw = read_table(path)
    if tuple(header[:2]) != LEADING:
        raise ReportError(f"{path}: the heading does not begin with {','.join(LEADING)}")
    if len(set(header)) != len(header):
        raise ReportError(f"{path}: a heading occurs twice")
    rows: list[Mapping[str, float | None]] = []
    for number, cells in enumerate(raw, start=2):
        where = f"{path}, row {number}"
        for key, cell in zip(header[:2], cells, strict=False):
            if not cell.strip().isdecimal():
                raise ReportError(f"{where}: {key} is {cell!r}, not a count")
        row = {k: _number(c, f"{where}: {k}") for k, c in zip(header, cells, strict=True)}
        if rows and any((row[k] or 0) < (rows[-1][k] or 0) for k in header[:2]):
            raise ReportError(f"{where}: cycle or num_labeled decreases")
        if rows and row["cycle"] == rows[-1]["cycle"]:
            raise ReportError(f"{where}: cycle {cells[0]} occurs twice")
        if None in (row[header[0]], row[header[1]]):
            raise ReportError(f"{where}: cycle or num_labeled is no number that can be counted to")
        rows.append(row)
    return tuple(header), tuple(rows)


def _number(cell: str, where: str) -> float | None:
    if not cell.strip():
        return None
    try:
        value = float(cell)
    except ValueError:
        raise ReportError(f"{where} is {cell!r}, not a number") from None
    return value if math.isfinite(value) else None


def one_line(value: object) -> str:
    """Return `value` as text in which single spaces replace line breaks and runs of blanks."""
    return " ".join(str(value).split())
