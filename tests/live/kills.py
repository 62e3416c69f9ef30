"""Kill runs that work with a real server of Label Studio, at random moments:
`python -m tests.live.kills FOLDER [--kills 50] [--url http://...]`.

Without an address a server is started; the token of another is in LABEL_STUDIO_API_KEY.

A run of three cycles is killed -9 while it uploads, waits, trains and updates drafts, and the same
command is given again; annotators answer a few tasks in between. In the end every image that was
asked for has exactly one task with exactly the annotation that was submitted, and the run has
trained on all of them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.annotation.local_server import ENVIRONMENT, LocalServer
from experiments.annotation.run_view import open_run
from tests.live.annotators import Annotators
from tests.live.test_label_studio import INITIAL, QUERY, TEST, prepare, settings
from tests.small_runs import Program, read_rows, run_program


class Server(NamedTuple):
    """A server that runs already."""

    url: str
    key: str


CYCLES = 3
LONGEST_S = 12.0
"""Seconds after the first output of a run within which it is killed."""
SHARE = 6
"""Tasks that the annotators answer between two kills, at most."""


def phase(folder: Path) -> str:
    """Return what the log says that the run was doing."""
    log = folder / "log.txt"
    lines = log.read_text().splitlines() if log.exists() else []
    last = lines[-1] if lines else ""
    if "training" in last or "epoch" in last:
        return "training"
    if "images are back" in last:
        return "polling"
    if "uploaded" in last or "waiting for annotations" in last or "scoring" in last:
        return "upload and drafts"
    return "start"


def campaign(place: Path, server: Any, *, kills: int, seed: int) -> Counter[str]:
    """Kill runs until there were so many kills; return these by what was going on.

    Raises:
        AssertionError: An annotation was lost, or there is a task too many.
    """
    rng = random.Random(seed)
    found: Counter[str] = Counter()
    number = 0
    while found.total() < kills:
        own = place / f"run_{number}"
        shutil.rmtree(own, ignore_errors=True)
        own.mkdir(parents=True)
        found += killed_run(own, server, at_most=kills - found.total(), rng=rng)
        number += 1
        print(f"runs {number}, kills {dict(found)}", flush=True)
    return found


def killed_run(place: Path, server: Any, *, at_most: int, rng: random.Random) -> Counter[str]:
    """Take one run to its end with kills, and check what came out."""
    truth = prepare(place, "classification")
    command = settings(
        place, server, "classification", f"cycles={CYCLES}", "cycle.min_steps=20",
        "checkpoint_minutes=0", "oracle.poll_seconds=0.2",
    )  # fmt: skip
    folder = place / "runs" / "small" / "margin" / "seed0"
    people, output = Annotators(server, folder, truth), place / "output"
    submitted: dict[str, int] = {}
    found: Counter[str] = Counter()
    while True:
        program = Program(command, output)
        is_last = found.total() >= at_most
        ends = time.monotonic() + rng.uniform(0.5, LONGEST_S)
        while program.process.exitcode is None and (is_last or time.monotonic() < ends):
            for task in people.tasks()[:]:
                name = str(task.data["al_name"])
                if not task.annotations and (is_last or rng.random() < SHARE / 40):
                    assert name not in submitted, f"{name} was answered and is open again"
                    submitted[name] = people.answer(task)
            time.sleep(0.3)
        if program.process.exitcode is None:
            found[phase(folder)] += 1
            program.kill()
            continue
        ended = program.wait()
        assert ended.status == 0, ended
        break
    tasks = people.tasks()
    assert Counter(people.names()).most_common(1)[0][1] == 1, "an image has two tasks"
    assert len(tasks) == INITIAL + TEST + (CYCLES - 1) * QUERY == len(submitted)
    there = {str(t.data["al_name"]): [one.id for one in t.annotations] for t in tasks}
    assert there == {name: [number] for name, number in submitted.items()}
    ledger = open_run(folder).ledger
    assert ledger is not None
    assert set(ledger.labeled(ledger.names)) == set(submitted)
    assert all(ledger.answers[n].class_name == people.label(n).class_name for n in submitted)
    rows = read_rows(folder / "cycles.csv")
    assert [int(r["num_labeled"]) for r in rows] == [INITIAL + k * QUERY for k in range(CYCLES)]
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="tests.live.kills", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT)
    parser.add_argument("--url", help="a server that runs already")
    given = parser.parse_args(arguments)
    place = given.folder.absolute()
    place.mkdir(parents=True, exist_ok=True)
    run_program(["--version"], place / "output")  # the first one waits for imports
    if given.url:
        there = Server(given.url, os.environ["LABEL_STUDIO_API_KEY"])
        found = campaign(place, there, kills=given.kills, seed=given.seed)
    else:
        with LocalServer(given.environment, data=place / "server") as started:
            found = campaign(place, started, kills=given.kills, seed=given.seed)
    print(f"{found.total()} kills, nothing lost or doubled: {dict(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
