"""Seconds and peak memory of a query, without inference, per strategy.

    python -m benchmarks.selection                              50,000 x 512 -> 1,000, 10 classes
    python -m benchmarks.selection --samples 1000000            a million: 2 GB of embeddings
    python -m benchmarks.selection --strategies k_center,badge --rivals

Each strategy of `conf/strategy` is built as configured and selects with a learner that answers from
a table: a mixture of clusters with matching predictions. The time is that of a query without the
network and the scores. Every measurement runs in its own process; its peak memory is counted beyond
the table. `--rivals` adds the plain loops of NumPy and scikit-activeml. On a busy machine, compare
CPU seconds with `--threads 1`: threads that wait for each other consume time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor

from al_core import IndexArray, Pool, Prediction
from benchmarks.timing import machine

STRATEGIES = Path(__file__).resolve().parent.parent / "conf" / "strategy"
NUM_CLASSES, NUM_POSTERIOR, NUM_LABELED = 10, 10, 1000
BATCH = 4096
FILES = ("embeddings", "logits")
LEFT_OUT = {"precomputed", "learning_loss_mse", "ensemble_entropy", "ensemble_bald"}
"""A strategy that needs a file, and those that differ from others in training only."""


class Table:
    """A learner with predictions from a table: a mixture of 100 clusters after a ReLU."""

    def __init__(self, folder: Path) -> None:
        self.embeddings, self.logits = (np.load(folder / f"{name}.npy") for name in FILES)
        shifts = np.random.default_rng(1).standard_normal((NUM_POSTERIOR, NUM_CLASSES))
        self.shifts = torch.from_numpy(shifts).float()
        self.seconds = self.cpu_seconds = 0.0

    @staticmethod
    def write(folder: Path, num_samples: int, width: int) -> None:
        """Write the table, once for all measurements."""
        rng = np.random.default_rng(0)
        centers = 2 * rng.standard_normal((100, width), dtype=np.float32)
        embeddings, logits = (
            np.lib.format.open_memmap(
                folder / f"{name}.npy", "w+", np.float32, (num_samples, columns)
            )
            for name, columns in zip(FILES, (width, NUM_CLASSES), strict=True)
        )
        for start in range(0, num_samples, BATCH):
            part = slice(start, min(start + BATCH, num_samples))
            cluster = rng.integers(100, size=part.stop - part.start)
            rows = rng.standard_normal((cluster.size, width), dtype=np.float32) + centers[cluster]
            np.maximum(rows, 0, out=embeddings[part])
            logits[part] = rng.standard_normal((cluster.size, NUM_CLASSES), dtype=np.float32)
            logits[part][np.arange(cluster.size), cluster % NUM_CLASSES] += 3

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Extract from the table, and count the seconds."""
        start, start_cpu = time.perf_counter(), time.process_time()
        rows = [
            self._extracted(indices[i : i + BATCH], extract) for i in range(0, indices.size, BATCH)
        ]
        result = torch.cat(rows)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - start_cpu
        return result

    def _extracted(self, batch: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        logits = torch.from_numpy(self.logits[batch])
        return extract(
            Prediction(
                log_probs=logits.log_softmax(1),
                embedding=torch.from_numpy(self.embeddings[batch]),
                predicted_loss=logits[:, 0],
                log_prob_samples=(logits[:, None] + self.shifts).log_softmax(2),
            )
        )


def plain_k_center(rows: NDArray[np.float32], budget: int) -> object:
    """Run the usual NumPy loop in float32, one matrix-vector product per pick, without labels."""
    norms = np.einsum("ij,ij->i", rows, rows)
    nearest = np.full(len(rows), np.inf, np.float32)
    pick = 0
    for _ in range(budget):
        np.minimum(nearest, norms + norms[pick] - 2 * (rows @ rows[pick]), out=nearest)
        pick = int(nearest.argmax())
    return nearest


def plain_badge(rows: NDArray[np.float32], residuals: NDArray[np.float32], budget: int) -> object:
    """Run the usual NumPy loop of k-means++, factorized, one column per pick."""
    rng = np.random.default_rng(0)
    norms = np.einsum("ij,ij->i", rows, rows) * np.einsum("ij,ij->i", residuals, residuals)
    nearest, pick = norms.copy(), int(norms.argmax())
    for _ in range(budget):
        products = (rows @ rows[pick]) * (residuals @ residuals[pick])
        np.minimum(nearest, np.maximum(norms + norms[pick] - 2 * products, 0), out=nearest)
        chances = nearest.astype(np.float64)
        pick = int(rng.choice(len(rows), p=chances / chances.sum()))
    return nearest


def plain_bait(rows: NDArray[np.float32], budget: int) -> object:
    """Run the usual NumPy loop in float32, one rank-one update per pick, without labels."""
    fisher = rows.T @ rows / len(rows)
    inverse = np.eye(rows.shape[1], dtype=np.float32)
    left = np.ones(len(rows), bool)
    chosen: list[int] = []
    for step in range(3 * budget):
        forward = step < 2 * budget
        among = rows if forward else rows[chosen]
        through = among @ inverse
        leverage = np.einsum("ij,ij->i", through, among)
        sensitivity = np.einsum("ij,ij->i", through @ fisher, through)
        if forward:
            place = int(np.where(left, sensitivity / (1 + leverage), -np.inf).argmax())
            chosen.append(place)
            left[place] = False
        else:
            place = int((sensitivity / (1 - leverage)).argmin())
            del chosen[place]
        direction = inverse @ among[place]
        sign = 1 if forward else -1
        inverse = inverse - np.outer(direction, direction) / (sign + leverage[place])
    return chosen


def rival(name: str, table: Table, budget: int) -> object:
    """Run one of the rivals."""
    rows = table.embeddings
    if name == "k_center, NumPy":
        return plain_k_center(rows, budget)
    if name == "badge, NumPy":
        residuals = torch.from_numpy(table.logits).softmax(1)
        residuals -= torch.nn.functional.one_hot(residuals.argmax(1), NUM_CLASSES)
        return plain_badge(rows, residuals.numpy(), budget)
    if name == "bait, NumPy":
        best = torch.from_numpy(table.logits).softmax(1).amax(1).numpy()
        return plain_bait(rows * np.sqrt(best * (1 - best))[:, None], budget)
    from skactiveml.pool import CoreSet, MaxHerding, TypiClust

    labels = np.full(len(rows), np.nan)
    labels[:NUM_LABELED] = 0
    strategies = {"k_center": CoreSet, "typiclust": TypiClust, "max_herding": MaxHerding}
    strategy = strategies[name.split(",")[0]]
    settings = {"metric_dict": {"gamma": 1.0}} if strategy is MaxHerding else {}
    return strategy(missing_label=np.nan, random_state=0, **settings).query(
        rows, labels, batch_size=budget
    )


RIVALS = (
    "k_center, NumPy",
    "badge, NumPy",
    "bait, NumPy",
    "k_center, scikit-activeml",
    "typiclust, scikit-activeml",
    "max_herding, scikit-activeml",
)


def measure(name: str, folder: Path, budget: int, threads: int | None) -> dict[str, Any]:
    """Query once in this process."""
    from experiments.engine.engine import Engine
    from experiments.engine.memory import give_back_freed_memory, host_memory_mb

    engine = Engine(device="cpu", num_threads=threads)
    engine.join()
    table = Table(folder)
    pool = Pool(len(table.logits))
    pool.label(np.arange(NUM_LABELED))
    table.infer(np.arange(64), lambda prediction: prediction.log_probs)  # set-up that happens once
    table.seconds = table.cpu_seconds = 0.0
    give_back_freed_memory()
    engine.reset_peak_memory()
    held = host_memory_mb(peak=False)
    start, start_cpu = time.perf_counter(), time.process_time()
    if name in RIVALS:
        rival(name, table, budget)
    else:
        config = OmegaConf.load(STRATEGIES / f"{name}.yaml")
        node = config.query if "query" in config else config.strategy.query
        instantiate(node, _convert_="all").select(
            pool, pool.unlabeled, table, budget, np.random.default_rng(0)
        )
    return {
        "seconds": time.perf_counter() - start - table.seconds,
        "cpu": time.process_time() - start_cpu - table.cpu_seconds,
        "peak_mb": host_memory_mb(peak=True) - held,
    }


def main() -> None:
    """Measure each contender in its own process, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--strategies", help="comma-separated; all by default")
    parser.add_argument("--rivals", action="store_true", help="plain NumPy and scikit-activeml too")
    parser.add_argument("--limit", type=int, default=600, help="seconds for one of them")
    parser.add_argument("--folder", help="for the table, 2 GB for a million; of the system if none")
    parser.add_argument("--threads", type=int, help="all cores by default")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # of a started process
    options = parser.parse_args()
    if options.one:
        name, folder = options.one
        print(json.dumps(measure(name, Path(folder), options.budget, options.threads)))
        return
    known = [p.stem for p in sorted(STRATEGIES.glob("*.yaml")) if p.stem not in LEFT_OUT]
    names = options.strategies.split(",") if options.strategies else known
    names += list(RIVALS) if options.rivals else []
    print(machine("torch", "numpy", "scikit-learn", "scikit-activeml"))
    threads = f"{options.threads} threads" if options.threads else "all threads"
    print(f"{options.samples} x {options.width} -> {options.budget}, {threads}\n")
    print("| strategy | seconds | CPU seconds | peak MB beyond the embeddings |")
    print("|---|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        Table.write(Path(folder), options.samples, options.width)
        for name in names:
            print(f"| {name} | {measured(name, folder, options)} |", flush=True)


def measured(name: str, folder: str, options: argparse.Namespace) -> str:
    """Query once in a separate process; return the cells of its row."""
    command = [sys.executable, "-m", "benchmarks.selection", "--one", name, folder]
    command.append(f"--budget={options.budget}")
    if options.threads:
        command.append(f"--threads={options.threads}")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return f"above {options.limit} | | "
    if done.returncode:
        return f"{done.stderr.strip().splitlines()[-1].split(': ', 1)[-1]} | | "
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['seconds']:.2f} | {found['cpu']:.2f} | {found['peak_mb']:.0f}"


if __name__ == "__main__":
    main()
