"""Run folders of the published format with made-up numbers, for tests of what reads them."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from experiments.metrics.evaluation import Confused, Evaluation, calibration

# The smallest JPEG header that a browser would try: readers must not decode thumbnails.
JPEG = bytes.fromhex("ffd8ffe000104a46494600010100000100010000ffd9")

RANDOM = [
    [50.0, 60.0, 70.0],
    [52.0, 61.0, 69.5],
    [51.0, 62.5, 71.0],
    [49.0, 60.5, 70.0],
    [50.5, 59.0, 72.0],
]  # accuracy by seed and cycle
NOISE = [0.1, -0.2, 0.3, 0.0, -0.1]


def write_run(
    root: Path,
    strategy: str,
    seed: int,
    *,
    accuracy: Sequence[float],
    num_labeled: Sequence[int] | None = None,
    name: str = "cifar10-digits",
    cycles: int | None = None,
    settings: Mapping[str, Any] | None = None,
    strategy_settings: Mapping[str, Any] | None = None,
    tau: Sequence[float] = (),
    seconds: Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write one run of len(accuracy) cycles (of `cycles`) and return its folder."""
    folder = root / name / strategy / f"seed{seed}"
    folder.mkdir(parents=True)
    planned = len(accuracy) if cycles is None else cycles
    config: dict[str, Any] = {
        "task": {"name": "cifar10", "kind": "classification", "metric": "accuracy"},
        "data": {"name": "digits"},
        "strategy": {"name": strategy, **(strategy_settings or {})},
        "backbone": {"name": "resnet18"},
        "cycle": {"name": "quick", "query_size": 100},
        "engine": {"device": "cpu", "precision": "float32"},
        "tracker": {"name": "none"},
        "seed": seed,
        "cycles": planned,
        "name": name,
        "out": str(root),
        **(settings or {}),
    }
    (folder / "config.yaml").write_text(
        yaml.safe_dump(config, allow_unicode=True), encoding="utf-8"
    )
    labeled = num_labeled or [100 * (cycle + 1) for cycle in range(len(accuracy))]
    phases = seconds or {"fit": 8.0, "evaluate": 1.0, "score": 2.0, "query": 0.25}
    rows = [
        {
            "cycle": cycle,
            "num_labeled": labeled[cycle],
            "accuracy": accuracy[cycle],
            "test_loss": 2.0 - accuracy[cycle] / 100,
            "loss_ranking_tau": tau[cycle] if cycle < len(tau) else "",
            "optimizer_steps": 120,
            "train_loss": 0.5,
            "train_ranking_accuracy": "",
            **{f"seconds_{phase}": value for phase, value in phases.items()},
            "query_memory_mb": 2.5,
            "peak_memory_mb": 512.5 + cycle,
        }
        for cycle in range(len(accuracy))
    ]
    if rows:
        write_csv(folder / "cycles.csv", list(rows[0]), [list(row.values()) for row in rows])
    finished = len(rows) == planned
    state = {"format": 1, "cycle": len(rows), "finished": finished, "records": rows}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    origin = provenance or {
        "commit": "0123456789abcdef",
        "versions": {"torch": "2.14.0"},
        "hardware": {"cpu": "a CPU", "gpu": None},
        "seed": seed,
        "started": "2026-11-23T12:00:00+00:00",
    }
    (folder / "provenance.json").write_text(json.dumps(origin), encoding="utf-8")
    return folder


def write_gallery(
    folder: Path,
    cycle: int,
    rows: Sequence[tuple[str, str, str, str]],
    *,
    images: Sequence[bytes] = (),
) -> None:
    """Write a cycle's thumbnails; `rows` are (file, name, score, caption), CRLF line ends."""
    place = folder / "gallery" / f"cycle_{cycle:02}"
    place.mkdir(parents=True)
    for number, (file, *_) in enumerate(rows):
        (place / file).write_bytes(images[number] if images else JPEG)
    write_csv(place / "index.csv", ["file", "name", "score", "caption"], rows, end="\r\n")


def write_evaluation(
    folder: Path,
    cycle: int,
    confusion: Sequence[Sequence[int]],
    *,
    names: Sequence[str] = ("cat", "dog", "owl"),
    pictures: Mapping[tuple[int, int], bytes] | None = None,
) -> Evaluation:
    """Write a cycle's results by class, with a picture behind each of these cells."""
    table = np.array(confusion, np.int64)
    counts = table.sum(1)
    found = Evaluation(
        class_names=tuple(names),
        score="accuracy",
        scores=np.where(counts > 0, 100.0 * table.diagonal() / np.maximum(counts, 1), np.nan),
        unit="images",
        counts=counts,
        calibration=calibration(np.full(table.sum(), 0.9), np.arange(table.sum()) < table.trace()),
        confusion=table,
        confused=tuple(
            Confused(*cell, k, f"test_{k}.png", f"cycle_{cycle:02}/{k}.jpg")
            for k, cell in enumerate(pictures or {})
        ),
    )
    for each, data in zip(found.confused, (pictures or {}).values(), strict=True):
        place = folder / "evaluation" / each.file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (folder / "evaluation").mkdir(exist_ok=True)
    (folder / "evaluation" / f"cycle_{cycle:02}.json").write_text(found.to_json())
    return found


def write_csv(
    path: Path, header: Sequence[str], rows: Sequence[Sequence[object]], *, end: str = "\n"
) -> None:
    """Write a CSV file with the given line end."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator=end).writerows([header, *rows])


def make_runs(root: Path, gains: dict[str, float], *, num_seeds: int = 5) -> Path:
    """Runs of random and of strategies that are `gains` better, but for a little noise."""
    for seed in range(num_seeds):
        write_run(root, "random", seed, accuracy=RANDOM[seed])
        for strategy, gain in gains.items():
            accuracy = [value + gain + NOISE[seed] for value in RANDOM[seed]]
            write_run(root, strategy, seed, accuracy=accuracy)
    return root


def set_cell(folder: Path, row: int, column: int, text: str) -> None:
    """Overwrite a cell of cycles.csv."""
    with (folder / "cycles.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    table[row][column] = text
    write_csv(folder / "cycles.csv", table[0], table[1:])


def add_column(folder: Path, column: str, values: Sequence[object]) -> None:
    """Append a column to cycles.csv."""
    with (folder / "cycles.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    added = [[*row, value] for row, value in zip(rows, values, strict=True)]
    write_csv(folder / "cycles.csv", [*header, column], added)
