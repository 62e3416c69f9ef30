"""Small runs of the real program: in this process, or in others, which can be killed.

The other processes are forked from a server that has imported torch, so that one costs a fraction
of a second; they parse a command line and write to their own stdout and stderr like any other.
"""

from __future__ import annotations

import csv
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
from omegaconf import DictConfig, OmegaConf

SMALL = {
    "task": "cifar10",
    "data": "image_folder",
    "backbone": "lenet",
    "strategy": "learning_loss",
    "cycle": "quick",
    "cycles": "3",
    "cycle.initial_size": "12",
    "cycle.query_size": "6",
    "cycle.epochs": "1",
    "cycle.min_steps": "4",
    "cycle.batch_size": "8",
    "optimizer.lr": "0.02",
    "tracker": "none",
    "engine.device": "cpu",
    "engine.num_threads": "1",
    "name": "small",
}
NUM_TRAIN, NUM_TEST = 60, 30
NUM_DRAWN = 2
"""Images at either end of a ranking that runs of tests draw; `gallery.NUM_SHOWN` is what users see.
"""
TIMED = (
    "seconds_fit",
    "seconds_evaluate",
    "seconds_score",
    "seconds_query",
    "query_memory_mb",
    "peak_memory_mb",
)


def write_image_folder(root: Path) -> Path:
    """Write 3 classes of 20 + 10 images that are not trivial to tell apart."""
    rng = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for i in range(count):
            kind = i % 3
            image = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            image[4 * kind + i % 7 :: 8 - kind, :, kind] += 90
            path = root / part / ("bars", "lines", "rows")[kind] / f"{part}_{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), image)
    return root


def overrides(*changes: str) -> list[str]:
    """Return the settings of a small run with `changes` (an empty value removes the key)."""
    values = {**SMALL, **dict(change.split("=", 1) for change in changes)}
    return [f"{key}={value}" for key, value in values.items() if value]


def compose(*arguments: str, config_name: str = "config") -> DictConfig:
    """Compose the configuration as the command line does.

    Hydra takes 0.1 s for it, so configurations that differ only in paths are copies of one that was
    composed before, with other paths.
    """
    where = r"(out|data\.root|images|checkpoint)=(/[\w./-]+)"
    plain_paths = [re.fullmatch(where, argument) for argument in arguments]
    others = [one for one, path in zip(arguments, plain_paths, strict=True) if not path]
    config: DictConfig = pickle.loads(_composed(config_name, *others))
    for path in filter(None, plain_paths):
        OmegaConf.update(config, path[1], path[2])
    return config


@cache
def _composed(config_name: str, *arguments: str) -> bytes:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        return pickle.dumps(hydra.compose(config_name, list(arguments)))


def run_here(*changes: str) -> float:
    """Run to the end in this process; return the last metric."""
    from experiments.runs.session import run

    draw_little()
    outcome = run(compose(*overrides(*changes)))
    assert outcome.waiting is None, outcome.waiting
    return outcome.metric


def draw_little() -> None:
    """Let this process, and those that are forked from it, draw few pictures: they take long."""
    from experiments.runs import gallery

    gallery.NUM_SHOWN, gallery.NUM_CONFUSED = NUM_DRAWN, NUM_DRAWN


def warmed_up() -> ForkServerContext:
    """Return a context whose processes are forked after the slow imports."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.warmed_up"])
    return context


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status (-9 if it was killed) and what it printed."""

    status: int
    stdout: str
    stderr: str


class Program:
    """`python -m experiments.run ARGUMENTS` in a process of its own.

    Args:
        arguments: The command line.
        folder: Where its output goes.
        kill_at: (part of a path, "before" or "after"): it kills itself with SIGKILL before or after
            moving the first such file into its place.
        max_file_bytes: No file of its own can grow beyond that: what a full disk does.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        kill_at: tuple[str, str] | None = None,
        max_file_bytes: int | None = None,
    ) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process = warmed_up().Process(
            target=_main, args=(list(arguments), folder, kill_at, max_file_bytes), daemon=False
        )
        self.process.start()

    def wait(self, seconds: float = 120) -> Ended:
        """Wait until it has ended."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"still running after {seconds} seconds: {self._read('stderr')}")
        return Ended(self.process.exitcode, self._read("stdout"), self._read("stderr"))

    def kill(self, *, alone: bool = False) -> Ended:
        """Kill it with SIGKILL, and all processes that it has started, unless it `alone`."""
        pid = self.process.pid
        assert pid is not None
        with suppress(ProcessLookupError):  # it has ended
            if not alone and os.getpgid(pid) == pid:  # it leads its group from its first line on
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        return self.wait()

    def _read(self, stream: str) -> str:
        path = self._folder / stream
        return path.read_text(encoding="utf-8") if path.exists() else ""


def run_program(arguments: Sequence[str], folder: Path, **how: Any) -> Ended:
    """Run the command line in a process of its own, to its end."""
    return Program(arguments, folder, **how).wait()


def _main(
    arguments: list[str], folder: Path, kill_at: tuple[str, str] | None, max_file_bytes: int | None
) -> None:
    os.setsid()
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    sys.argv = ["experiments.run", *arguments]
    os.fsync = lambda descriptor: None  # what was written outlives a killed process anyway
    if max_file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))
    if kill_at is not None:
        part, when = kill_at
        move = os.replace

        def replace(source: Any, target: Any) -> None:
            hit = part in str(target)
            if not (hit and when == "before"):
                move(source, target)
            if hit:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace  # type: ignore[assignment]
    from experiments.run import main

    main()


def read_rows(path: Path) -> list[dict[str, str]]:
    """Read a CSV with a header."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> dict[str, Any]:
    """Return the parts of a run folder that do not depend on time, place or interruptions."""
    kept: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("entropies", "queries", "gallery", "evaluation", "stop_set")
        for path in sorted((folder / part).rglob("*"))
        if path.is_file()
    }
    kept["cycles.csv"] = [
        {key: value for key, value in row.items() if key not in TIMED}
        for row in read_rows(folder / "cycles.csv")
    ]
    return kept


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every file below a folder with its time of change, but for locks."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
