"""Time until the program answers: `--help`, an import of `al_core`, the first step of training.

    python -m benchmarks.startup

For comparison: Python alone, and an import of torch, which every run needs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.timing import Contender, interleaved, machine, table, verdict

ROOT = Path(__file__).resolve().parent.parent
HELP = ("-m", "experiments.run", "--help")
HEAVY = ("torch", "torchvision", "numpy", "pandas", "wandb", "cv2", "matplotlib")
FIRST_STEP = """
import os
from experiments.learning.step import TrainingStep
from experiments.run import main
take = TrainingStep.__call__
def take_one_and_end(self, *arguments, **more):
    take(self, *arguments, **more)
    os._exit(0)
TrainingStep.__call__ = take_one_and_end
main()
"""
RUN = ("data=digits", "backbone=lenet", "tracker=none", "engine.device=cpu")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(machine("hydra-core", "torch"), end="\n\n")
    with tempfile.TemporaryDirectory() as out:
        commands = {
            "experiments.run --help": HELP,
            "import al_core": ("-c", "import al_core"),
            "first step, digits": ("-c", FIRST_STEP, *RUN, f"out={out}"),
            "python alone": ("-c", "pass"),
            "import torch": ("-c", "import torch"),
        }
        times = interleaved(
            [Contender(name, partial(_run, *words), 1) for name, words in commands.items()],
            rounds=arguments.rounds,
            clock="wall",
        )
    print(table(times, against="python alone", unit="start", scale_name="s"), end="\n\n")
    goals = {"experiments.run --help": 1.0, "import al_core": 0.1, "first step, digits": 4.0}
    for name, most in goals.items():
        print(verdict(f"{name}, at most {most} s", statistics.median(times[name]), at_most=most))
    imported = sorted(set(_imported()) & set(HEAVY))
    print(f"goal: --help imports no torch: {'MISSED' if 'torch' in imported else 'met'}", end="")
    print(f" (of {', '.join(HEAVY)} it imports {', '.join(imported) or 'none'})")


def _run(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stderr


def _imported() -> list[str]:
    """Return the modules that `--help` imports."""
    lines = _run("-X", "importtime", *HELP).splitlines()
    return [line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")]


if __name__ == "__main__":
    main()
