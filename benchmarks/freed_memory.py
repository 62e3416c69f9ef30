"""Time saved by keeping freed memory for the next batch: `keep_freed_memory`.

    python -m benchmarks.freed_memory                              LeNet and DRN, two threads
    python -m benchmarks.freed_memory --work resnet18 --turns 3

The work is bare training steps of 128 images of CIFAR-10's size, or forward passes of the tiny DRN
on 6 images of 128 x 128. Each setting and round has its own process, because the C library does not
return to its defaults.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.timing import machine, table
from benchmarks.training_step import BareTraining
from experiments.engine.engine import Engine
from experiments.engine.memory import keep_freed_memory
from experiments.models.drn import drn_seg

ROOT = Path(__file__).resolve().parent.parent
REPEATS = {"lenet": 20, "resnet18": 1, "drn": 5}
"""Steps or passes of a turn: about as long for all."""
SETTINGS = {"kept, as it is here": True, "the C library's own way": False}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="+", choices=REPEATS, default=["lenet", "drn"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", type=int, help=argparse.SUPPRESS)  # of a started process
    options = parser.parse_args()
    if options.kept is not None:
        if options.kept:
            keep_freed_memory()
        torch.set_num_threads(options.threads)
        print(_seconds(options.work[0], options.turns))
        return
    print(machine("torch"))
    for work in options.work:
        seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
        for number in range(options.rounds):
            for name in list(SETTINGS)[:: -1 if number % 2 else 1]:
                seconds[name].append(_started(work, options, kept=SETTINGS[name]))
        print(f"\n{work}, {options.threads} threads\n")
        print(table(seconds, against="the C library's own way", unit="step"))


def _started(work: str, options: argparse.Namespace, *, kept: bool) -> float:
    """Return the median seconds of a step in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.freed_memory", "--work", work]
    command += [f"--threads={options.threads}", f"--turns={options.turns}", f"--kept={kept:d}"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _seconds(work: str, turns: int) -> float:
    if work == "drn":
        step = _passes()
    else:
        step = BareTraining(work, Engine(device="cpu"), 128, channels_last=True).step
    times = []
    for _ in range(2 + turns):
        start = time.perf_counter()
        for _ in range(REPEATS[work]):
            step()
        times.append((time.perf_counter() - start) / REPEATS[work])
    return statistics.median(times[2:])


def _passes() -> Callable[[], None]:
    network = drn_seg(model_name="drn_d_tiny", num_classes=19).eval()
    images = torch.randn(6, 3, 128, 128).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.inference_mode():
            network(images)

    return step


if __name__ == "__main__":
    main()
