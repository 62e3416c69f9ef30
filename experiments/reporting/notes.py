"""The sentences without which a reader would believe too much: single seeds, unfinished runs,
missing cycles, runs left out, and runs made by other code or on other machines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import Run
from experiments.reporting.verdicts import SEEDS_FOR_A_CLAIM


def notes_on(
    experiment: Experiment, areas: Mapping[str, Mapping[int, float]], cycles: Sequence[int]
) -> list[str]:
    """The sentences; `areas` maps strategy and seed to the area over `cycles`."""
    notes = []
    if lonely := [label for label, runs in experiment.runs.items() if len(runs) == 1]:
        who = "Every strategy" if len(lonely) == len(experiment.runs) else _and(lonely)
        notes.append(
            f"{who} ran with one seed only: there is no interval, and no claim can be made."
        )
    elif max(map(len, experiment.runs.values())) < SEEDS_FOR_A_CLAIM:
        notes.append(
            f"Fewer than {SEEDS_FOR_A_CLAIM} seeds: the intervals are wide, and a difference is an "
            "indication, no claim."
        )
    if unfinished := [run for run in experiment.all_runs if not run.finished]:
        notes.append(f"Unfinished, shown with what there is: {_and(map(_progress, unfinished))}.")
    if len(cycles) < 2:
        notes.append("Fewer than two cycles: there is no budget range, hence no area.")
    elif missing := [
        f"{label} seed {seed}"
        for label, runs in experiment.runs.items()
        for seed in runs
        if seed not in areas[label]
    ]:
        notes.append(
            "Where a seed misses a cycle, that cycle's mean is over the seeds that have it (n "
            f"says how many). The area counts the seeds with every cycle from {cycles[0]} to "
            f"{cycles[-1]}, the last that at least half of the runs have reached; it leaves out "
            f"{_and(missing)}."
        )
    seed_sets = {tuple(runs) for runs in experiment.runs.values()}
    if len(seed_sets) > 1:
        seeds = [f"{la}: {', '.join(map(str, r))}" for la, r in experiment.runs.items()]
        notes.append(f"The seeds differ ({'; '.join(seeds)}); differences use the common ones.")
    for run in experiment.left_out:
        notes.append(f"A second run of {run.strategy} seed {run.seed} is left out: {run.folder}.")
    moved = [
        label
        for label, runs in experiment.runs.items()
        if any(_moves_its_network(run) for run in runs.values())
    ]
    if moved and len(moved) < len(experiment.runs):
        notes.append(
            f"The loss-prediction module of {_and(moved)} changes the network that is trained, so "
            "a difference to the others is not one of selection alone; with "
            "loss_prediction.detach_at=0 every strategy trains the same network."
        )
    for key, consequence in (
        ("commit", "the code may not be the same"),
        ("versions", "the numbers may not be comparable"),
        ("hardware", "the seconds are not comparable"),
    ):
        if len({repr(run.provenance.get(key)) for run in experiment.all_runs}) > 1:
            notes.append(f"The runs differ in {key}: {consequence}.")
    return notes


def _moves_its_network(run: Run) -> bool:
    """Whether the gradient of a loss-prediction module reached the features."""
    head = run.config.get("loss_prediction")
    if not isinstance(head, Mapping) or head.get("enabled") is not True:
        return False
    return head.get("detach_at") != 0


def _progress(run: Run) -> str:
    planned = run.config.get("cycles")
    of = f" of {planned}" if isinstance(planned, int) else ""
    return f"{run.strategy} seed {run.seed} ({len(run.rows)}{of} cycles)"


def _and(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
