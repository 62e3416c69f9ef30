"""Report what runs wait for, in plain words: `python -m experiments.status RUN...`.

Reads the run folders and the folders in which annotations come back, and changes nothing. One run
is described in a few lines, several runs are a table. Imports neither torch nor Hydra, so that it
answers at once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from al_core.errors import ActiveLearningError
from al_core.stopping import has_stabilized
from experiments.annotation.inbox import Returned, read_returned
from experiments.annotation.ledger import request_folder
from experiments.annotation.records import Request
from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.untrusted import open_untrusted
from experiments.engine.locks import is_held
from experiments.reporting.learning_curve import next_gain
from experiments.reporting.numbers import NONE, count
from experiments.reporting.runs import run_folders
from experiments.reporting.suspects import RELABEL, read_suspects
from experiments.reporting.text_table import Table, render
from experiments.settings.stop_settings import AGREEMENT, stop_settings
from experiments.settings.terminal import show, show_error
from experiments.settings.wording import counted, duration, escaped, listed

SHOWN = 5
"""Number of missing images that are named."""
TAIL_BYTES = 64_000
"""Bytes at the end of a log in which its last line is looked for."""
State = Literal["preparing", "running", "stopped", "finished", "waiting", "complete"]
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ [\w.]+: (.*)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the status of the runs; return 1, with a line on standard error, if one is no run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status",
        description="Report what runs do or wait for, in plain words.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder of them"
    )
    given = parser.parse_args(arguments).runs
    folders = [run for path in given for run in run_folders(path) or [path]]
    found, failed = [], False
    for folder in folders:
        try:
            found.append(look_at(folder))
            if len(folders) == 1:
                show(describe(found[0]))
        except (ActiveLearningError, OSError) as error:
            show_error(error)
            failed = True
    if len(folders) > 1 and found:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        show(render(overview(found), width=width).rstrip())
    return int(failed)


@dataclass(frozen=True)
class Batch:
    """The newest batch that people were asked for, and how much of it is back.

    Attributes:
        request: The images.
        found: What is new in the folder in which annotations come back.
        here: Names of the images that are back, taken over or not.
        refused: How many of them cannot be labeled.
        missing: Names of the images that are waited for.
        gone: Names of the images that have been deleted.
        num_new: Number of images with an annotation that is new, not changed.
    """

    request: Request
    found: Returned
    here: tuple[str, ...]
    refused: int
    missing: tuple[str, ...]
    gone: tuple[str, ...]
    num_new: int

    @property
    def said(self) -> str:
        """How much has come back."""
        said = f"{len(self.here)} of {len(self.request.names)} images are back"
        return said + (f", {self.refused} of them cannot be labeled" if self.refused else "")


@dataclass(frozen=True)
class Status:
    """State of a run, with what it waits for.

    Attributes:
        folder: The run folder.
        state: What it does: `waiting` is for people, and `complete` if all that was asked is back.
        latest: The last line of its log with the age of that line; empty if there is none.
        run: Its content; None while it prepares its first cycle.
        batch: The batch that people were asked for, if the run is `waiting` or `complete`.
    """

    folder: Path
    state: State
    latest: str
    run: AskingRun | None = None
    batch: Batch | None = None


def look_at(folder: Path) -> Status:
    """Return the status of a run.

    Raises:
        UnusableFile: The folder is no run folder, its record is damaged, or the images are not
            there.
    """
    latest = _latest(folder)
    if not (folder / "config.yaml").exists() and is_held(folder):
        return Status(folder, "preparing", latest)
    run = open_run(folder)
    if run.state.get("finished"):
        return Status(folder, "finished", latest, run)
    if run.is_running:
        return Status(folder, "running", latest, run)
    if run.ledger is None or not run.ledger.requests:
        return Status(folder, "stopped", latest, run)
    batch = _batch(run)
    return Status(folder, "waiting" if batch.missing else "complete", latest, run, batch)


def describe(status: Status) -> str:
    """Return the status of one run, in several lines."""
    folder, run, state = status.folder, status.run, status.state
    now = [f"  now        {status.latest}"] if status.latest else []
    if run is None:
        return "\n".join([f"{folder}: {state}", *now])
    if status.batch is not None:
        return "\n".join(_waiting(run, status.batch))
    cycles, lines = run.config["cycles"], _results(run)
    if state == "finished":
        if run.cycle < cycles:
            stable = stop_settings(run.config).is_reached(run.state.get("records", []))
            why = (
                "predictions no longer change (stop.rule)"
                if stable
                else "no image was left to label"
            )
            lines.append(f"  ended      early: {why}")
        return "\n".join([f"{folder}: finished", *lines])
    if state == "running":
        return "\n".join([f"{folder}: running cycle {run.cycle} of {cycles}", *lines, *now])
    last = [f"  last       {status.latest}"] if status.latest else []
    return "\n".join([
        f"{folder}: stopped in cycle {run.cycle} of {cycles}, waits for nobody",
        *lines, *last, "  next       the command that made it goes on",
    ])  # fmt: skip


def overview(found: Sequence[Status]) -> Table:
    """Return a table with one row for each of several runs."""
    folders = [status.folder for status in found]
    above = Path(os.path.commonpath(folders))
    above = above.parent if above in folders else above
    header = ("run", "state", "cycles", "labels", "result", "latest")
    rows = tuple((str(status.folder.relative_to(above)), *_cells(status)) for status in found)
    return Table(header, rows, frozenset({1, 4, 5})).without_empty_columns()


def _cells(status: Status) -> tuple[str, ...]:
    run, latest = status.run, status.latest
    if run is None:
        return status.state, NONE, NONE, NONE, latest
    if status.batch is not None:
        latest = status.batch.said
    done = f"{run.cycle} of {run.config['cycles']}"
    if not (records := run.state.get("records")):
        return status.state, done, NONE, NONE, latest
    metric = run.config["task"]["metric"]
    result = f"{metric} {records[-1][metric] or 0:.2f}"
    latest = "" if status.state == "finished" else latest
    return status.state, done, count(records[-1]["num_labeled"]), result, latest


def _results(run: AskingRun) -> list[str]:
    """Return lines about the cycles so far, and about labels that look wrong."""
    lines, records = [], run.state.get("records", [])
    metric = run.config["task"]["metric"]
    if records:
        last = records[-1]
        lines.append(
            f"  so far     {run.cycle} of {run.config['cycles']} cycles; {metric} "
            f"{last[metric] or 0:.2f} with {counted(last['num_labeled'], 'label')}"
        )
        lines += _outlook(run, records)
    suspects = len(read_suspects(run.folder))
    if suspects:
        lines.append(f"  relabel    {counted(suspects, 'label')} to look at again: {RELABEL}")
    return lines


def _outlook(run: AskingRun, records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the cycles so far say of further labels, as lines of the status."""
    lines = []
    settings = stop_settings(run.config)
    latest = [row.get(AGREEMENT) for row in records[-settings.window :]]
    agreements = [float(value) for value in latest if isinstance(value, int | float)]
    if len(agreements) == len(latest):
        stable = has_stabilized(agreements, threshold=settings.threshold, window=settings.window)
        lines.append(
            f"  stable     {'yes' if stable else 'not yet'}: predictions agree with those of the "
            f"cycle before to kappa {sum(agreements) / len(agreements):.3f} (mean of "
            f"{counted(len(agreements), 'cycle')}; stable from {settings.threshold:g} on)"
        )
    metric = run.config["task"]["metric"]
    if ahead := next_gain(records, metric):
        lines.append(f"  more       {ahead}")
    return lines


def _latest(folder: Path) -> str:
    """Return the last line of a run's log with its age."""
    file = folder / "log.txt"
    try:
        with open_untrusted(file) as log:
            log.seek(max(0, file.stat().st_size - TAIL_BYTES))
            tail = log.read().decode("utf-8", "replace")
            age = max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return ""
    found = LOG_LINE.findall(tail)
    return f"{found[-1]} ({duration(age)} ago)" if found else ""


def _batch(run: AskingRun) -> Batch:
    """Return what has come back of the newest batch of a run that has asked people."""
    ledger, request = run.ledger, run.request()
    assert ledger is not None, "a run with a request has a ledger"
    run.check_images()
    found = read_returned(ledger, run.returned, run.rules, run.root, write=False)
    answers = {**ledger.answers, **found.answers}
    here = tuple(name for name in request.names if name in answers)
    open_ = [name for name in request.names if name not in answers]
    gone = tuple(name for name in open_ if not (run.root / name).exists())
    return Batch(
        request,
        found,
        here,
        refused=sum(answers[name].refused for name in here),
        missing=tuple(name for name in open_ if name not in gone),
        gone=gone,
        num_new=len(set(found.answers) - set(ledger.answers)),
    )


def _waiting(run: AskingRun, batch: Batch) -> list[str]:
    missing, gone, problems = batch.missing, batch.gone, batch.found.problems
    cycle, taken = batch.request.cycle, len(batch.found.answers)
    changed = taken - batch.num_new
    head = f"waits for annotations of batch {cycle}" if missing else f"batch {cycle} is complete"
    out = [f"{run.folder}: {head}", f"  back       {batch.said}"]
    if taken:
        out.append(
            f"  new        {counted(batch.num_new, 'annotation')}, {changed} changed, "
            f"taken over from {run.returned} when the run goes on"
        )
    if missing:
        named = ", ".join(map(escaped, missing[:SHOWN]))
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        out.append(f"  missing    {named}{more}")
        place = run.config["oracle"]["url"] if run.is_live else request_folder(run.folder, cycle)
        out.append(f"  annotate   {place}")
    if gone:
        out.append(f"  gone       {counted(len(gone), 'image')} of the batch, not waited for")
    out += _results(run)
    if problems:
        out += [f"  cannot be used, in {run.returned}:", listed(problems)]
    return [*out, f"  next       {_next(run, is_complete=not missing)}"]


def _next(run: AskingRun, *, is_complete: bool) -> str:
    """Describe how a run goes on that waits for people."""
    trains = f"trains cycle {run.cycle} of {run.config['cycles']}"
    if run.is_live and run.is_fetching:
        return f"the run looks for annotations there, and {trains} by itself"
    if run.is_live:
        return f"the same command fetches annotations and {trains}: no process waits for them now"
    if is_complete:
        return f"the same command {trains}"
    if run.config["oracle"]["partial"]:
        return (
            f"the same command, with oracle.partial=true, {trains} on what is back, if that "
            "suffices to train and to measure"
        )
    return (
        f"annotations into {run.returned}, then the same command {trains}; oracle.partial=true "
        "does so at once, if what is back suffices to train and to measure"
    )


if __name__ == "__main__":
    sys.exit(main())
