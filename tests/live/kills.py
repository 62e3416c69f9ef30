"""Kill runs that work with a real server of Label Studio in every phase:
`python -m tests.live.kills FOLDER [--kills 50] [--url http://...]`.

Without an address a server is started; the token of another is in LABEL_STUDIO_API_KEY.

A run is killed -9 while it uploads the first batch, polls, trains, and brings drafts and order of
the open tasks up to date, equally often, and the same command is given again; annotators answer a
few tasks in between. In the end every image that was asked for has exactly one task with exactly
the annotation that was submitted, and the run has taken all of them over.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.annotation.local_server import ENVIRONMENT, LocalServer
from tests.live.live_run import LiveRun
from tests.small_runs import read_rows, run_program


class Server(NamedTuple):
    """A server that runs already."""

    url: str
    key: str


PHASES = ("upload", "polling", "training", "draft update")
CYCLES = 3
INITIAL, TEST, QUERY = 28, 5, 6
"""Sizes of the batches; the folder has 60 images."""
LONGEST_S = {"upload": 4.0, "polling": 4.0, "training": 2.5, "draft update": 0.3}
"""Seconds after a phase has begun within which a run is killed."""
PATIENCE_S = 60.0
"""Seconds for which a phase is waited for; then the run is killed in another."""
SHARE = 0.15
"""Share of the open tasks that the annotators answer in each round."""


def phase(run: LiveRun, *, before: int) -> str:
    """Return what the log says that a run is doing, which had so many lines before it started."""
    lines = run.log.splitlines()
    last = lines[-1] if len(lines) > before else ""
    batches = re.findall(r"waiting for annotations: batch (\d+)", "\n".join(lines))
    if re.search(r"cycle \d+:", last):
        return "training"
    if "label studio: batch" in last:
        return "polling"
    if re.search("waiting for annotations|images uploaded|uploaded again", last):
        return "upload" if batches[-1] == "0" else "draft update"
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
        killed_run(own, server, found, kills=kills, rng=rng)
        number += 1
        print(f"runs {number}, kills {dict(found)}", flush=True)
    return found


def killed_run(
    place: Path, server: Any, found: Counter[str], *, kills: int, rng: random.Random
) -> None:
    """Take one run to its end with kills, which are counted in `found`, and check the end."""
    run = LiveRun(
        place, server, "classification", f"cycle.initial_size={INITIAL}",
        f"oracle.test_size={TEST}", f"cycle.query_size={QUERY}", "cycle.min_steps=300",
        "checkpoint_minutes=0", "oracle.poll_seconds=0.2", "oracle.partial=true",
    )  # fmt: skip
    submitted: dict[str, int] = {}
    ended = False
    while not ended:
        left = [each for each in PHASES if found[each] < kills / len(PHASES)]
        first = not (run.folder / "cycles.csv").exists()
        sensible = [each for each in left if (each == "upload") == (first and "upload" in left)]
        is_last = found.total() >= kills or not sensible
        before = len(run.log.splitlines())
        run.start(f"cycles={CYCLES}")
        wanted = "" if is_last else min(sensible, key=found.__getitem__)
        ended = not until_killed(run, submitted, wanted, before=before, rng=rng)
        if not ended:
            found[phase(run, before=before)] += 1
            run.program.kill()
        else:
            status = run.program.wait()
            assert status.status == 0, status
    # One cycle more, with everything that is still open in it.
    run.start(f"cycles={CYCLES + 1}", "oracle.partial_share=1")
    assert not until_killed(run, submitted, rng=rng, share=1.0)
    status = run.program.wait()
    assert status.status == 0, status
    check(run, submitted)


def until_killed(
    run: LiveRun,
    submitted: dict[str, int],
    wanted: str = "",
    *,
    before: int = 0,
    rng: random.Random,
    share: float = SHARE,
) -> bool:
    """Answer tasks until the run has ended, or is to be killed in a phase; tell which.

    Args:
        run: The run, some of whose tasks are answered in every round.
        submitted: The number of the annotation of each image; added to.
        wanted: The phase; empty to let the run end.
        before: Lines of the log before the run started.
        rng: Chooses moments and tasks.
        share: Share of the open tasks that are answered in a round.
    """
    people, process = run.people, run.program.process
    patience = time.monotonic() + PATIENCE_S
    answers = time.monotonic()
    while process.exitcode is None:
        if wanted and (phase(run, before=before) == wanted or time.monotonic() > patience):
            time.sleep(rng.uniform(0, LONGEST_S[wanted]))
            return process.exitcode is None
        if time.monotonic() > answers:
            for task in people.tasks():
                name = str(task.data["al_name"])
                if not task.annotations and rng.random() < share:
                    assert name not in submitted, f"{name} was answered and is open again"
                    submitted[name] = people.answer(task)
            answers = time.monotonic() + 1.0
        time.sleep(0.05)
    return False


def check(run: LiveRun, submitted: dict[str, int]) -> None:
    """Check that tasks, annotations and what the run knows are what was asked and submitted."""
    people, ledger = run.people, run.ledger
    tasks = people.tasks()
    assert Counter(people.names()).most_common(1)[0][1] == 1, "an image has two tasks"
    assert len(tasks) == INITIAL + TEST + CYCLES * QUERY == len(submitted)
    there = {str(t.data["al_name"]): [one.id for one in t.annotations] for t in tasks}
    assert there == {name: [number] for name, number in submitted.items()}
    assert set(ledger.labeled(ledger.names)) == set(submitted)
    assert all(ledger.answers[n].class_name == people.label(n).class_name for n in submitted)
    last = read_rows(run.folder / "cycles.csv")[-1]
    assert (last["cycle"], last["num_labeled"]) == (str(CYCLES), str(INITIAL + CYCLES * QUERY))


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
