"""Runs of every kind, killed -9 at random moments and gone on with, end as if nothing had been:
`python -m tests.killed_runs FOLDER [--kills 100] [--only KIND ...]` prints a table of it.

A run is killed with all of its processes (one over several processes: every other time the first
alone) and the same command given again, up to three times, until it ends. Then every CSV, the
thumbnails, what people were asked, and the weights are compared with those of a run that nobody
killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from experiments.run import AWAITING
from tests import annotator
from tests.small_runs import Program, overrides, results, run_program, write_image_folder

SCENES = (
    "data=digits", "data.num_scenes=24", "data.num_test_scenes=4", "data.scene_size=64",
    "cycle=quick", "cycles=3", "cycle.initial_size=8", "cycle.query_size=4",
    "cycle.candidates=null", "cycle.epochs=1", "cycle.min_steps=2", "cycle.batch_size=4",
    "loss_prediction.width=4", "tracker=none", "engine.device=cpu", "engine.num_threads=1",
    "name=small",
)  # fmt: skip
MASKS = ("task=drn_cityscapes", "backbone=drn_d_tiny", "task.build.crop_size=32", *SCENES)
EVERY_STEP = "checkpoint_minutes=0"
"""A checkpoint after every step of the training, where kills fall within trainings."""
KINDS: dict[str, int] = {
    "classification": 12,
    "detection": 14,
    "segmentation": 12,
    "regions": 10,
    "people": 12,
    "two processes": 12,
    "sweep": 8,
    "long training": 12,
    "ensemble": 8,
}
"""Kinds of runs, and how many of a hundred kills are theirs."""
MAX_KILLS_OF_A_RUN = 3


def command(kind: str, place: Path) -> list[str]:
    """Return the command line of a kind of run, whose data is made below `place` if need be."""
    images = place / "images"
    if not images.exists():
        write_image_folder(images)
        annotator.withhold(images / "train", place / "photos", place / "truth.csv")
    root = f"data.root={images}"
    if kind == "people":
        photos = (f"data.root={place / 'photos'}", "data.class_names=[bars,lines,rows]")
        return overrides(
            "data=unlabeled", *photos, "oracle=people", "oracle.test_size=9", "strategy=margin"
        )
    return {
        "classification": overrides(root),
        "detection": ["task=ssd_voc", "backbone=light_ssd", *SCENES],
        "segmentation": [*MASKS, "loss_prediction.pool_size=2"],
        "regions": [*MASKS, "query=regions", "query.per_image=12", "strategy=entropy"],
        "two processes": overrides(
            root, "engine.num_processes=2", "cycles=2", "cycle.min_steps=30", EVERY_STEP
        ),
        "long training": overrides(root, "cycles=2", "cycle.min_steps=60", EVERY_STEP),
        "ensemble": overrides(
            root, "cycles=2", "cycle.min_steps=30", "strategy=ensemble_bald",
            "strategy.ensemble_size=3", EVERY_STEP,
        ),
        "sweep": ["-m", *overrides(root, "cycles=2", "strategy=random,learning_loss", "seed=0,1")],
    }[kind]  # fmt: skip


@dataclass
class Killed:
    """The kills of some runs, and how these ended.

    Attributes:
        kills: So many times.
        seconds: After how many seconds each.
        cycles: The cycles, all together, that had been finished at each kill.
        writing: How many of the kills left a file behind that was being written.
        runs: Runs that were killed and ended.
        different: What of them was not as in the run that nobody killed.
    """

    kills: int = 0
    seconds: list[float] = field(default_factory=list)
    cycles: list[int] = field(default_factory=list)
    writing: int = 0
    runs: int = 0
    different: list[str] = field(default_factory=list)


def whole(kind: str, place: Path) -> tuple[Path, float]:
    """Run without a kill; return where, and the seconds of its longest process."""
    out, longest = place / f"{kind}-whole".replace(" ", "_"), 0.0
    while True:
        start = time.monotonic()
        ended = run_program([*command(kind, place), f"out={out}"], place / "output")
        longest = max(longest, time.monotonic() - start)
        if ended.status != AWAITING:
            assert ended.status == 0, ended
            return out, longest
        answer(out, place)


def answer(out: Path, place: Path) -> None:
    """Play the annotators of the one run there."""
    (state,) = out.rglob("state.json") if list(out.rglob("state.json")) else out.rglob("requests")
    annotator.answer(state.parent, place / "truth.csv", form="csv")


def killed(
    kind: str, place: Path, out: Path, *, kills: int, seconds: float, rng: random.Random
) -> Killed:
    """Run until the end, killing at up to so many random moments within so many seconds."""
    done = Killed(runs=1)
    arguments = [*command(kind, place), f"out={out}"]
    while True:
        program = Program(arguments, place / "output")
        if done.kills < kills:
            moment = rng.uniform(0, seconds)
            program.process.join(moment)
            ended = program.kill(alone=kind == "two processes" and rng.random() < 0.5)
        else:
            ended = program.wait()
        if ended.status == -9:
            done.kills += 1
            done.seconds.append(moment)
            done.cycles.append(
                sum(json.loads(f.read_text())["cycle"] for f in out.rglob("state.json"))
            )
            done.writing += bool(list(out.rglob("*.part")))
        elif ended.status == AWAITING:
            answer(out, place)
        elif "in use by another process" in ended.stderr and kind == "two processes":
            time.sleep(1)  # the processes of one that was killed alone are about to notice
        else:
            assert ended.status == 0, ended
            return done


def told(out: Path) -> dict[str, Any]:
    """Return all that must be the same, by run folder and file; the weights by their hash."""
    found: dict[str, Any] = {}
    for state in sorted(out.rglob("state.json")):
        folder = state.parent
        kept: dict[str, Any] = {**results(folder)}
        for pattern in ("*.csv", "requests/*/*.csv", "requests/*/request.json"):
            for path in folder.glob(pattern):
                kept.setdefault(str(path.relative_to(folder)), path.read_bytes())
        for path in (folder / "checkpoints").iterdir():
            weights = torch.load(path, weights_only=True)["model"]
            digest = hashlib.sha256()
            for key, tensor in weights.items():
                digest.update(key.encode() + tensor.numpy().tobytes())
            kept[f"checkpoints/{path.name}"] = digest.hexdigest()
        for name, content in kept.items():
            found[f"{folder.relative_to(out)}/{name}"] = content
    assert found, out
    for left in out.rglob("*.part"):
        found[f"left behind: {left.relative_to(out)}"] = True
    return found


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Return the names of what is not the same."""
    return [k for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)]


def kill_a_kind(kind: str, place: Path, *, kills: int, seed: int) -> Killed:
    """Kill runs of a kind until there were so many kills; compare each with the whole one."""
    rng = random.Random(f"{seed} {kind}")
    unbroken, seconds = whole(kind, place)
    expected = told(unbroken)
    total = Killed()
    while total.kills < kills:
        out = place / f"{kind}-{total.runs}".replace(" ", "_")
        at_most = min(MAX_KILLS_OF_A_RUN, kills - total.kills)
        one = killed(kind, place, out, kills=at_most, seconds=seconds, rng=rng)
        total.kills += one.kills
        total.seconds += one.seconds
        total.cycles += one.cycles
        total.writing += one.writing
        total.runs += 1
        total.different += [f"{out.name}: {name}" for name in differences(told(out), expected)]
    return total


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return 1 if a result differs."""
    parser = argparse.ArgumentParser(prog="tests.killed_runs", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args(arguments)
    place = given.folder.absolute()
    place.mkdir(parents=True, exist_ok=True)
    run_program(["--version"], place / "output")  # the first one waits for imports
    print(
        "| kind | kills | seconds, median (range) | after cycles | in a write | runs | different |"
    )
    print("| --- | --: | --: | --- | --: | --: | --: |")
    different = []
    for kind in given.only:
        kills = round(given.kills * KINDS[kind] / sum(KINDS[each] for each in given.only))
        if kills:
            one = kill_a_kind(kind, place, kills=kills, seed=given.seed)
            different += one.different
            after = ", ".join(f"{c}: {one.cycles.count(c)}" for c in sorted(set(one.cycles)))
            print(
                f"| {kind} | {one.kills} | {statistics.median(one.seconds):.1f} "
                f"({min(one.seconds):.1f} to {max(one.seconds):.1f}) | {after} | {one.writing} | "
                f"{one.runs} | {len(one.different)} |",
                flush=True,
            )
    print("\n".join(different))
    return bool(different)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
