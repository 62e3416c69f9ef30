"""Cost and gain of idle threads that give up their core: OMP_WAIT_POLICY=PASSIVE.

    python -m benchmarks.waiting                       LeNet, two threads
    python -m benchmarks.waiting --backbone resnet18 --steps 3

The work is bare training steps. Each policy and round has its own process, because OpenMP reads the
policy when it is loaded. On a quiet machine the ratio is the cost of waking threads up; beside
other work it is the gain of not waiting in a loop on a core that another thread needs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.timing import machine, table

ROOT = Path(__file__).resolve().parent.parent
POLICIES = {"PASSIVE, the default here": "PASSIVE", "OpenMP's own": None}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=("lenet", "resnet18"), default="lenet")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=30, help="of 128 images, a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)  # a started process
    options = parser.parse_args()
    if options.one:
        print(_seconds(options.backbone, options.threads, options.steps))
        return
    print(machine("torch"), end="\n\n")
    seconds: dict[str, list[float]] = {name: [] for name in POLICIES}
    for number in range(options.rounds):
        for name in list(POLICIES)[:: -1 if number % 2 else 1]:
            seconds[name].append(_started(POLICIES[name]))
    print(table(seconds, against="OpenMP's own", unit="step"))


def _started(policy: str | None) -> float:
    """Return the median seconds of a step in a process with this policy."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    if policy is not None:
        environment["OMP_WAIT_POLICY"] = policy
    command = [sys.executable, "-m", "benchmarks.waiting", "--one", *sys.argv[1:]]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def _seconds(backbone: str, threads: int, steps: int) -> float:
    import torch  # after the environment is set here, and before modules that set it

    from benchmarks.training_step import BareTraining
    from experiments.engine.engine import Engine

    torch.set_num_threads(threads)
    bare = BareTraining(backbone, Engine(device="cpu"), 128, channels_last=True)
    times = []
    for _ in range(2 + steps):
        start = time.perf_counter()
        bare.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
