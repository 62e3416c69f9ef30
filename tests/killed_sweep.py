"""A sweep that is killed -9 and started again ends with the report of one that was not:
`python -m tests.killed_sweep FOLDER [--kills 3] OVERRIDES` runs both and compares.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.report import main as report
from tests.small_runs import read_rows, results

ROOT = Path(__file__).parents[1]


def start(arguments: Sequence[str], out: Path) -> subprocess.Popen[bytes]:
    """Start a sweep in a session of its own, so that all of its processes can be killed at once."""
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(out.parent / f"{out.name}.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.run", "-m", *arguments, f"out={out}"],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def num_cycles(out: Path) -> int:
    """Cycles that the runs of a sweep have finished, all together."""
    return sum(len(read_rows(file)) for file in out.rglob("cycles.csv"))


def run_with_kills(
    arguments: Sequence[str], out: Path, *, kills: int, total_cycles: int, seed: int = 0
) -> list[int]:
    """Run a sweep, killing it at so many random moments; the cycles that were done at each kill."""
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(1, total_cycles), kills))
    killed_at = []
    for moment in moments:
        process = start(arguments, out)
        while num_cycles(out) < moment and process.poll() is None:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))  # anywhere in the cycle that has begun
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed_at.append(num_cycles(out))
        process.wait()
    process = start(arguments, out)
    assert process.wait() == 0, (out.parent / f"{out.name}.log").read_text()
    return killed_at


def whats_told(out: Path) -> dict[str, Any]:
    """A sweep's report without what depends on time or place: seconds, memory, dates, commits."""
    assert report([str(out), "--out", str(out.parent / f"report_{out.name}")]) == 0
    folder = out.parent / f"report_{out.name}"
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for experiment in content["experiments"]:
        for run in experiment["runs"].values():
            for key in ("commit", "command", "config_sha256"):
                del run[key]
        for strategy in experiment["strategies"].values():
            del strategy["query_seconds"], strategy["over_costs"]["seconds"]
        experiment["notes"] = [
            n for n in experiment["notes"] if not n.startswith("The runs differ")
        ]
    page = (folder / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<h3>Cost</h3>.*?</section>", "", page, flags=re.DOTALL)
    page = re.sub(r"<li>The runs differ in .*?</li>", "", page)
    page = page.replace(f"../{out.name}/", "../")  # pictures are linked relative to the page
    return {
        "json": content,
        "csv": (folder / "report.csv").read_bytes(),
        "curves": (folder / "learning_curves.svg").read_bytes(),
        "page": page,
        "runs": {
            str(p.parent.relative_to(out)): results(p.parent) for p in out.rglob("state.json")
        },
    }


def main() -> None:
    """Run both sweeps (each goes on where it is), and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    options, arguments = parser.parse_known_args()
    whole, killed = options.folder.absolute() / "whole", options.folder.absolute() / "killed"
    assert start(arguments, whole).wait() == 0
    total = num_cycles(whole)
    at = run_with_kills(arguments, killed, kills=options.kills, total_cycles=total)
    print(f"killed -9 after {', '.join(map(str, at))} of {total} cycles")
    a, b = whats_told(whole), whats_told(killed)
    for part in a:
        print(f"{part}: {'the same' if a[part] == b[part] else 'DIFFERENT'}")
    sys.exit(a != b)


if __name__ == "__main__":
    main()
