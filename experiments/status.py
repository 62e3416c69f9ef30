"""Report what a run waits for, in plain words: `python -m experiments.status RUN...`.

Reads the run folder and the folder in which annotations come back, and changes nothing. Imports
neither torch nor Hydra, so that it answers at once.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_core.errors import ActiveLearningError
from al_core.stopping import has_stabilized
from experiments.annotation.inbox import read_returned
from experiments.annotation.ledger import Ledger, request_folder
from experiments.annotation.run_view import AskingRun, open_run
from experiments.data.untrusted import open_untrusted
from experiments.engine.locks import is_held
from experiments.reporting.learning_curve import next_gain
from experiments.reporting.runs import run_folders
from experiments.reporting.suspects import RELABEL, read_suspects
from experiments.settings.stop_settings import AGREEMENT, stop_settings
from experiments.settings.terminal import show, show_error
from experiments.settings.wording import counted, duration, escaped, listed

SHOWN = 5
"""Number of missing images that are named."""
TAIL_BYTES = 64_000
"""Bytes at the end of a log in which its last line is looked for."""
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ [A-Z]+ [\w.]+: (.*)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the status of each run; return 1, with a line on standard error, if one is no run."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.status", description="What a run waits for, in plain words."
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder of them"
    )
    failed = False
    given = parser.parse_args(arguments).runs
    for folder in (run for path in given for run in run_folders(path) or [path]):
        try:
            show(_begun(folder) or describe(open_run(folder)))
        except (ActiveLearningError, OSError) as error:
            show_error(error)
            failed = True
    return int(failed)


def _begun(folder: Path) -> str:
    """Return the status of a run that still prepares its first cycle; empty for any other."""
    if (folder / "config.yaml").exists() or not is_held(folder):
        return ""
    return "\n".join([f"{folder}: preparing", *_latest(folder, "now")])


def describe(run: AskingRun) -> str:
    """Return the status of a run, in several lines.

    Raises:
        UnusableFile: The record is damaged, or the images are not there.
    """
    cycles, records = run.config["cycles"], run.state.get("records", [])
    metric = run.config["task"]["metric"]
    lines = []
    if records:
        last = records[-1]
        lines.append(
            f"  so far     {run.cycle} of {cycles} cycles; {metric} {last[metric] or 0:.2f} with "
            f"{counted(last['num_labeled'], 'label')}"
        )
        lines += _outlook(run, records)
    suspects = len(read_suspects(run.folder))
    if suspects:
        lines.append(f"  relabel    {counted(suspects, 'label')} to look at again: {RELABEL}")
    if run.state.get("finished"):
        if run.cycle < cycles:
            why = (
                "predictions no longer change (stop.rule)"
                if stop_settings(run.config).is_reached(records)
                else "no image was left to label"
            )
            lines.append(f"  ended      early: {why}")
        return "\n".join([f"{run.folder}: finished", *lines])
    if run.is_running:
        head = f"{run.folder}: running cycle {run.cycle} of {cycles}"
        return "\n".join([head, *lines, *_latest(run.folder, "now")])
    if run.ledger is None or not run.ledger.requests:
        what = f"stopped in cycle {run.cycle} of {cycles}"
        then = "  next       the command that made it goes on"
        head = f"{run.folder}: {what}, waits for nobody"
        return "\n".join([head, *lines, *_latest(run.folder, "last"), then])
    return "\n".join(_waiting(run, run.ledger, lines))


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


def _latest(folder: Path, label: str) -> list[str]:
    """Return the last line of a run's log with its age, as a line of the status."""
    file = folder / "log.txt"
    try:
        with open_untrusted(file) as log:
            log.seek(max(0, file.stat().st_size - TAIL_BYTES))
            tail = log.read().decode("utf-8", "replace")
            age = max(0.0, time.time() - file.stat().st_mtime)
    except FileNotFoundError:
        return []
    found = LOG_LINE.findall(tail)
    if not found:
        return []
    return [f"  {label:<10} {found[-1]} ({duration(age)} ago)"]


def _waiting(run: AskingRun, ledger: Ledger, lines: list[str]) -> list[str]:
    request = run.request()
    run.check_images()
    found = read_returned(ledger, run.returned, run.rules, run.root, write=False)
    taken, problems = found.answers, found.problems
    answers = {**ledger.answers, **taken}
    here = [name for name in request.names if name in answers]
    refused = sum(answers[name].refused for name in here)
    gone = [n for n in request.names if n not in answers and not (run.root / n).exists()]
    missing = [n for n in request.names if n not in answers and n not in gone]
    said = f"{len(here)} of {len(request.names)} images are back"
    said += f", {refused} of them cannot be labeled" if refused else ""
    if missing:
        head = f"waits for annotations of batch {request.cycle}"
    else:
        head = f"batch {request.cycle} is complete"
    out = [f"{run.folder}: {head}", f"  back       {said}"]
    new = len(set(taken) - set(ledger.answers))
    if taken:
        out.append(
            f"  new        {counted(new, 'annotation')}, {len(taken) - new} changed, "
            f"taken over from {run.returned} when the run goes on"
        )
    if missing:
        named = ", ".join(map(escaped, missing[:SHOWN]))
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        out.append(f"  missing    {named}{more}")
        out.append(f"  see        {request_folder(run.folder, request.cycle)}")
    if gone:
        out.append(f"  gone       {counted(len(gone), 'image')} of the batch, not waited for")
    out += lines
    if problems:
        out += [f"  cannot be used, in {run.returned}:", listed(problems)]
    trains = f"trains cycle {run.cycle} of {run.config['cycles']}"
    if not missing:
        out.append(f"  next       the same command {trains}")
    elif run.config["oracle"]["partial"]:
        out.append(
            f"  next       the same command, with oracle.partial=true, {trains} on what is back, "
            "if that suffices to train and to measure"
        )
    else:
        out.append(
            f"  next       annotations into {run.returned}, then the same command {trains}; "
            "oracle.partial=true does so at once, if what is back suffices to train and to measure"
        )
    return out


if __name__ == "__main__":
    sys.exit(main())
