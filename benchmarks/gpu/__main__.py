"""Use some minutes of a GPU well: timings first, then as much of a study as the time allows.

    python -m benchmarks.gpu --minutes 12 --out FOLDER --archive cifar10-jpeg.tar.gz
    python -m benchmarks.gpu --minutes 12 --out FOLDER --archive ... --resume FOLDER/runs.tar.gz
    python -m benchmarks.gpu --minutes 1 --out FOLDER --device cpu         a trial, with digits

Timings of the GPU run one after the other, selection beside them on the processor's cores, and each
part is a process with a time limit. The study compares strategies on CIFAR-10, paired by seed, and
stops when the time is up; its runs resume with `--resume`. FOLDER then has results.md,
results.jsonl, runs.tar.gz (without weights and images) and logs.tar.gz.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.stored import store
from benchmarks.gpu.study import Job, Workers, jobs_of, pack, table

STRATEGIES = "random,margin,entropy,badge,learning_loss,learning_loss_plus"
FITTED, PAPER, FAST = PROTOCOLS = "fitted", "paper", "fast"
TIMINGS = ("probe", "steps", "scoring", "others", "seeds", "compiled")
SELECTION = ("selection", "large_selection")
STUDY = "study"
PARTS = (*TIMINGS, *SELECTION, STUDY)
LARGE = 1_000_000
"""Rows of the larger table that is selected from."""
FIRST_SHARE = 0.65
"""Share of the timings' limit that is not for what is compiled."""
END_SECONDS = 8.0
"""Kept for packing and writing at the end."""


@dataclass
class Part:
    """A process with a time limit, whose output goes to a file.

    Attributes:
        name: For the log.
        command: Arguments of Python.
        seconds: The limit.
    """

    name: str
    command: Sequence[str]
    seconds: float
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _started: float = field(default=0.0, init=False)

    def start(self, logs: Path) -> None:
        """Start the process, as the leader of a group."""
        self._started = time.monotonic()
        with open(logs / f"{self.name}.txt", "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.command],
                stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        """False once it has ended, or has been killed at its limit."""
        if self._process is None or self._process.poll() is not None:
            return False
        if time.monotonic() - self._started > self.seconds:
            self.kill()
            return False
        return True

    def kill(self) -> None:
        """Kill the process and those that it has started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        took = time.monotonic() - self._started
        status = None if self._process is None else self._process.returncode
        return f"status {status} after {took:.0f} s"


class Session:
    """The minutes of a GPU, from start to end.

    Args:
        options: The command line.
        work: A temporary folder.
    """

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options, self.out = options, options.out
        self.started = time.monotonic()
        self.end = self.started + 60 * options.minutes - END_SECONDS
        self.logs, self.runs = work / "logs", work / "runs"
        self.data, self.results = work / "cifar10", work / "results.jsonl"
        self.parts = options.parts.split(",")
        self.is_gpu = options.device != "cpu"
        self.log: list[str] = []
        self.workers: Workers | None = None
        for folder in (self.out, self.logs, self.runs):
            folder.mkdir(parents=True, exist_ok=True)

    def say(self, text: str) -> None:
        """Print a line with the seconds since the start, and keep it."""
        self.log.append(f"{time.monotonic() - self.started:6.1f} s  {text}")
        print(self.log[-1], flush=True)

    def run(self) -> None:
        """Do everything, in this order."""
        options = self.options
        if options.resume is not None:
            with tarfile.open(options.resume) as archive:
                archive.extractall(self.runs.parent, filter="data")
        if options.archive is not None:
            store(options.archive, self.data)
            self.say("the archive is decoded")
        if STUDY in self.parts:
            count = min(options.workers, len(self.jobs()))
            self.workers = Workers(count, device=options.device, logs=self.logs)
        beside = self.selection()
        try:
            self.timings(beside)
            if self.workers is not None:
                self.study(self.workers)
            while beside and time.monotonic() < self.end and any(p.is_running for p in beside):
                time.sleep(0.2)
        finally:
            for part in beside:
                part.kill()
                self.say(f"{part.name}: {part.ending}")
            if self.workers is not None:
                self.workers.end()
            self.write()
            self.say("written")

    def timings(self, beside: Sequence[Part]) -> None:
        """Run the timings of the GPU one after the other, within their share of the time."""
        options = self.options
        end = min(self.end, time.monotonic() + options.timing_seconds)
        wanted = [name for name in TIMINGS if name in self.parts]
        if not wanted:
            return
        # Importing torch and starting CUDA takes seconds, so the parts share a process; only
        # what may hang has its own.
        groups = [[name for name in wanted if name != "compiled"], ["compiled"]]
        for group in groups:
            if not set(group) & set(wanted) or time.monotonic() > end:
                continue
            command = ["-m", "benchmarks.gpu.timing", *group, "--device", options.device]
            command += ["--file", str(self.results), "--networks", options.networks]
            if options.archive is not None:
                command += ["--data", str(self.data)]
            if not self.is_gpu:
                command += ["--seconds", "0.05", "--batch-size", "16"]
            left = end - time.monotonic()
            last = group == groups[-1] or "compiled" not in wanted
            part = Part("_".join(group), command, left if last else FIRST_SHARE * left)
            part.start(self.logs)
            while part.is_running:
                time.sleep(0.2)
                for other in beside:
                    _ = other.is_running  # which ends it at its limit
            self.say(f"{part.name}: {part.ending}")
            self.write()

    def selection(self) -> list[Part]:
        """Start the selection from tables, on a share of the cores."""
        started = []
        sizes = (("selection", 50_000), ("large_selection", LARGE))
        for name, rows in sizes:
            if name not in self.parts:
                continue
            rows, width, budget = (rows, 512, 1000) if self.is_gpu else (2000, 16, 50)
            limit = 150 if self.is_gpu else 30
            command = [
                "-m", "benchmarks.selection", "--samples", str(rows), "--width", str(width),
                "--budget", str(budget), "--strategies", "k_center,badge,bait",
                "--limit", str(limit), "--threads", str(self.options.selection_threads),
            ]  # fmt: skip
            part = Part(name, command, 3 * limit)
            part.start(self.logs)
            started.append(part)
        return started

    def jobs(self) -> list[Job]:
        """Return the runs of the study."""
        options = self.options
        common = ["task=cifar10", f"out={self.runs}", "tracker=none"]
        common += [f"engine.device={options.device}"]
        if options.archive is not None:
            common += [
                "data.classification._target_=benchmarks.gpu.stored.stored",
                f"data.root={self.data}",
            ]
        else:
            common += ["data=digits"]
        if self.is_gpu:
            common += ["engine.precision=bfloat16", "engine.cuda_graphs=true"]
            common += ["engine.resident=true", "engine.num_threads=2"]
            common += ["task.build.eval_batch_size=1000"]
        common += self.protocol()
        return jobs_of(
            strategies=options.strategies.split(","),
            seeds=[int(seed) for seed in options.seeds.split(",")],
            imbalances=[float(each) for each in options.imbalances.split(",")],
            common=[*common, *options.overrides],
            study=f"cifar10_{options.protocol}",
        )

    def protocol(self) -> list[str]:
        """Return the settings of the study: candidates are a random tenfold of the query."""
        protocol = self.options.protocol
        if not self.is_gpu:
            network = ["backbone=lenet", "cycle=quick", "optimizer.lr=0.02"]
            if protocol == FAST:
                network = ["backbone=whitened", "cycle=fast"]
                network += ["backbone.classification.widths=[8,8,8]"]
            return [
                *network, "cycles=2", "cycle.initial_size=20", "cycle.query_size=10",
                "cycle.batch_size=10", "cycle.epochs=1", "cycle.min_steps=0",
                "engine.num_threads=1",
            ]  # fmt: skip
        if protocol == PAPER:
            return ["backbone=resnet18", "cycle=paper", "cycles=10"]
        if protocol == FAST:
            return ["backbone=whitened", "cycle=fast", "cycles=10"]
        return [
            f"backbone={self.options.backbone}", "cycle=quick", "cycles=5",
            "cycle.initial_size=1000", "cycle.query_size=1000", "cycle.batch_size=125",
            f"cycle.epochs={self.options.epochs}", "cycle.min_steps=0", "optimizer.lr=0.05",
        ]  # fmt: skip

    def study(self, workers: Workers) -> None:
        """Run the study until it is done or the time is up."""
        jobs = self.jobs()
        ended = 0
        for name, seconds, problem in workers.run(jobs, until=self.end, between=self.write):
            ended += name != "ready" and not problem
            last = problem.strip().splitlines()[-1] if problem else ""
            self.say(f"{name}: {seconds:.1f} s {last}")
        self.say(f"study: {ended} of {len(jobs)} runs")

    def write(self) -> None:
        """Write everything that is known into the folder of results."""
        lines = [f"# {self.options.device}, {self.options.minutes:g} minutes", ""]
        lines += _table(self.results)
        for part in SELECTION:
            path = self.logs / f"{part}.txt"
            if path.exists():
                lines += ["", f"## {part}", "", path.read_text(encoding="utf-8").strip()]
        lines += ["", "## study", "", table(self.runs), "", "## log", ""]
        lines += [f"    {line}" for line in self.log]
        (self.out / "results.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if self.results.exists():
            (self.out / "results.jsonl").write_bytes(self.results.read_bytes())
        pack(self.runs, self.out / "runs.tar.gz")
        with tarfile.open(self.out / "logs.tar.gz", "w:gz") as archive:
            archive.add(self.logs, "logs")


def _table(results: Path) -> list[str]:
    """Return the timings as a Markdown table, and the errors below it."""
    if not results.exists():
        return []
    records: list[dict[str, Any]] = [
        json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()
    ]
    lines, errors = ["| part | what | numbers |", "|---|---|---|"], []
    for record in records:
        part, what = record.pop("part"), record.pop("what")
        if "error" in record:
            errors += ["", f"{part}, {what}:", "", *_indented(record["error"])]
            continue
        numbers = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in record.items()
        )
        lines.append(f"| {part} | {what} | {numbers} |")
    return lines + errors


def _indented(text: str) -> list[str]:
    return [f"    {line}" for line in text.splitlines()]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--archive", type=Path, help="CIFAR-10 as JPEG files; digits if none")
    parser.add_argument("--resume", type=Path, help="runs.tar.gz of an earlier call")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--networks", default="", help="networks whose steps are timed")
    parser.add_argument("--timing-seconds", type=float, help="of all timings; 0.3 of the minutes")
    parser.add_argument("--selection-threads", type=int, default=4)
    parser.add_argument("--workers", type=int, default=4, help="processes of the study")
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, default=FITTED,
        help=f"{FITTED}: 1,000 to 5,000 labels, trained until fitted; {PAPER}: Yoo & Kweon, 4.1; "
        f"{FAST}: experiment=fast_cifar10",
    )  # fmt: skip
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--imbalances", default="1,20", help="of the pool, first class to last")
    parser.add_argument("--backbone", default="vgg11", help="network of the study")
    parser.add_argument("--epochs", type=int, default=60)
    # Runs that resume must find their settings, and with them their paths, unchanged.
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir(), "benchmarks-gpu"),
        help="folder for what is not kept, which is emptied",
    )  # fmt: skip
    parser.add_argument("overrides", nargs="*", help="further settings of the runs")
    options = parser.parse_args()
    options.networks = options.networks or (
        "lenet" if options.device == "cpu" else "resnet18,vgg11"
    )
    if options.timing_seconds is None:
        options.timing_seconds = 60 * options.minutes * 0.3
    unknown = set(options.parts.split(",")) - set(PARTS)
    if unknown:
        parser.error(f"--parts: there is no {', '.join(sorted(unknown))}, only {', '.join(PARTS)}")
    shutil.rmtree(options.work, ignore_errors=True)
    try:
        Session(options, options.work).run()
    finally:
        shutil.rmtree(options.work, ignore_errors=True)


if __name__ == "__main__":
    main()
