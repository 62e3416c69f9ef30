"""Run folders for the tests of what a folder keeps, refuses and restores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from al_core import Pool
from experiments.runs.folder import RunFolder

CONFIG: dict[str, Any] = {
    "seed": 0,
    "cycle": {"epochs": 2},
    "out": "runs",
    "tracker": {"mode": "offline"},
    "oracle": {"name": "ground_truth"},
    "query": {"name": "regions", "cache": "here", "segmentation": {"size": 3}},
}


@contextmanager
def opened(path: Path, config: Mapping[str, Any] = CONFIG) -> Iterator[RunFolder]:
    """Open a run folder as a process does, and let go of it at the end."""
    folder = RunFolder(path, config)
    try:
        yield folder
    finally:
        folder.close()


def commit(folder: RunFolder, *, finished: bool = False) -> None:
    """Write and commit the next cycle."""
    cycle = folder.state.cycle
    pool = Pool(9)
    for number in range(cycle + 1):
        pool.label([number])
    checkpoint = folder.write_checkpoint(cycle, {"model": {"weight": torch.full((2,), cycle)}})
    row = {"cycle": cycle, "num_labeled": cycle + 1, "accuracy": 10.0 * cycle}
    folder.commit(row, pool=pool.state_dict(), checkpoint=checkpoint, finished=finished)


def begun(path: Path, cycles: int = 1) -> Path:
    """Make the folder of a run with some cycles."""
    with opened(path) as folder:
        folder.bind(CONFIG)
        for _ in range(cycles):
            commit(folder)
    return path


def files(path: Path) -> dict[str, bytes]:
    """Return the contents of every file but the lock, which is empty."""
    found = (each for each in path.rglob("*") if each.is_file() and each.name != ".lock")
    return {each.relative_to(path).as_posix(): each.read_bytes() for each in found}
