"""Runs of a study, in several processes side by side on one device, until time is up.

Runs are ordered by seed, so that whatever the time allows consists of complete pairs. A run that is
cut off resumes in the next study whose runs are unpacked into the same folder.
"""

from __future__ import annotations

import csv
import json
import logging
import multiprocessing
import os
import queue
import signal
import sys
import tarfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from experiments.reporting.statistics import area_under_budget, mean_interval

BASELINE, METRIC = "random", "accuracy"
KEPT = ("cycles.csv", "config.yaml", "provenance.json", "state.json", "log.txt")
"""Files of a run folder that are packed, beside its queries: enough for a report and to resume."""
PACK_SECONDS = 60.0
"""Seconds from one packing to the next."""
PATIENCE_SECONDS = 1.0
"""How long idle processes have to end by themselves."""


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        name: For the log.
        overrides: Its command line.
    """

    name: str
    overrides: tuple[str, ...]


def jobs_of(
    *,
    strategies: Sequence[str],
    seeds: Sequence[int],
    imbalances: Sequence[float],
    common: Sequence[str],
    study: str,
) -> list[Job]:
    """Return the runs, all those of a seed before those of the next.

    Args:
        strategies: Choices of the group.
        seeds: Seeds.
        imbalances: Of the pool; each is a study of its own.
        common: Settings of all runs.
        study: Beginning of the studies' names.
    """
    return [
        Job(
            f"{strategy} seed {seed}, imbalance {imbalance:g}",
            (
                *common,
                f"strategy={strategy}",
                f"seed={seed}",
                f"data.imbalance={imbalance:g}",
                f"name={study}_{imbalance:g}",
            ),
        )
        for seed, imbalance, strategy in product(seeds, imbalances, strategies)
    ]


def work(jobs: Any, done: Any, log: str, device: str) -> None:
    """Take runs from a queue and report each; the main function of a worker process."""
    os.setsid()  # a terminal's interrupt is the parent's
    stream = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115  # until the process ends
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    import hydra
    import torch

    from experiments.runs.session import run

    torch.zeros(1, device=device)  # so that the device is ready when the first run comes
    done.put(("ready", 0.0, ""))
    while (job := jobs.get()) is not None:
        start, problem = time.perf_counter(), ""
        try:
            with hydra.initialize_config_module("conf", version_base="1.3"):
                config = hydra.compose("config", list(job.overrides))
            run(config)
        except Exception:  # noqa: BLE001  # the other runs go on
            problem = traceback.format_exc()
            print(problem)
        done.put((job.name, time.perf_counter() - start, problem))


class Workers:
    """Processes that are started early and wait for runs.

    Args:
        count: Number of processes.
        device: "cuda" or "cpu".
        logs: Folder of their logs.
    """

    def __init__(self, count: int, *, device: str, logs: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self._jobs, self._done = context.Queue(), context.Queue()
        logs.mkdir(parents=True, exist_ok=True)
        self._processes: list[BaseProcess] = []
        for number in range(count):
            log = str(logs / f"worker{number}.txt")
            process = context.Process(target=work, args=(self._jobs, self._done, log, device))
            process.start()
            self._processes.append(process)

    def run(
        self, jobs: Sequence[Job], *, until: float, between: Callable[[], object]
    ) -> Iterator[tuple[str, float, str]]:
        """Yield name, seconds and problem of each run that ends before `until`.

        Args:
            jobs: The runs.
            until: By `time.monotonic()`.
            between: Called every `PACK_SECONDS`.
        """
        for job in jobs:
            self._jobs.put(job)
        left, called = len(jobs), time.monotonic()
        while left and time.monotonic() < until and any(p.is_alive() for p in self._processes):
            if time.monotonic() - called > PACK_SECONDS:
                between()
                called = time.monotonic()
            try:
                name, seconds, problem = self._done.get(timeout=0.5)
            except queue.Empty:
                continue
            left -= name != "ready"
            yield name, seconds, problem

    def end(self) -> None:
        """End the processes, those that still work by force; run folders survive that."""
        for _ in self._processes:
            self._jobs.put(None)
        patience = time.monotonic() + PATIENCE_SECONDS
        for process in self._processes:
            process.join(max(0.0, patience - time.monotonic()))
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        self._jobs.cancel_join_thread()  # nobody will take the runs that are left


def pack(runs: Path, file: Path) -> None:
    """Write the run folders, without weights, images and rankings, into one archive."""
    if not runs.is_dir():
        return
    partial = file.with_name(f".{file.name}")
    with tarfile.open(partial, "w:gz", compresslevel=6) as archive:
        for path in sorted(runs.rglob("*")):
            if path.is_file() and (path.name in KEPT or path.parent.name == "queries"):
                archive.add(path, str(path.relative_to(runs.parent)))
    partial.replace(file)


def areas(runs: Path) -> dict[tuple[str, str], dict[int, float]]:
    """Return (study, strategy) -> seed -> area under the learning curve of the finished runs."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for path in sorted(runs.glob("*/*/seed*/state.json")):
        if not json.loads(path.read_text(encoding="utf-8"))["finished"]:
            continue
        with open(path.with_name("cycles.csv"), encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        labeled, accuracies = ([float(row[key]) for row in rows] for key in ("num_labeled", METRIC))
        area = area_under_budget(labeled, accuracies)
        if area is not None:
            study, strategy, seed = path.parts[-4:-1]
            found.setdefault((study, strategy), {})[int(seed.removeprefix("seed"))] = area
    return found


def table(runs: Path) -> str:
    """Return each strategy's area under the learning curve, and its paired difference to random."""
    found = areas(runs)
    lines = ["| study | strategy | seeds | area | against random |", "|---|---|---:|---:|---:|"]
    for (study, strategy), by_seed in found.items():
        baseline = found.get((study, BASELINE), {})
        differences = [by_seed[seed] - baseline[seed] for seed in by_seed if seed in baseline]
        against = _interval(differences) if strategy != BASELINE and differences else ""
        area = _interval(list(by_seed.values()))
        lines.append(f"| {study} | {strategy} | {len(by_seed)} | {area} | {against} |")
    return "\n".join(lines)


def _interval(values: Sequence[float]) -> str:
    estimate = mean_interval(values)
    half = "" if estimate.high is None else f" +- {estimate.high - estimate.mean:.2f}"
    return f"{estimate.mean:.2f}{half}"
