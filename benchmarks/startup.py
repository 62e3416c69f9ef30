"""Time of `python -m experiments.run --help`, which must not import torch.

    python -m benchmarks.startup

For comparison: Python alone, and an import of torch, which every run needs.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.timing import Contender, interleaved, machine, table, verdict

ROOT = Path(__file__).resolve().parent.parent
HELP = ("-m", "experiments.run", "--help")
HEAVY = ("torch", "torchvision", "numpy", "pandas", "wandb", "cv2", "matplotlib")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    print(machine("hydra-core", "torch"), end="\n\n")
    commands = {
        "experiments.run --help": HELP,
        "python alone": ("-c", "pass"),
        "import torch": ("-c", "import torch"),
    }
    times = interleaved(
        [Contender(name, partial(_run, *words), 1) for name, words in commands.items()],
        rounds=arguments.rounds,
        clock="wall",
    )
    print(table(times, against="python alone", unit="start", scale_name="s"), end="\n\n")
    median = statistics.median(times["experiments.run --help"])
    print(verdict("median seconds of --help at most 1.5", median, at_most=1.5))
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
