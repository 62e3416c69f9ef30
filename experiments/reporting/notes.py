"""Notes that keep a reader from believing too much: few seeds, unfinished runs, missing cycles,
runs left out, undeclared columns, and runs made by other code or on other machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.metrics.columns import column
from experiments.reporting.grouping import Experiment
from experiments.reporting.numbers import listed
from experiments.reporting.runs import Run
from experiments.reporting.statistics import FEWEST_SEEDS
from experiments.reporting.verdicts import SEEDS_FOR_A_CLAIM


def notes_on(
    experiment: Experiment, areas: Mapping[str, Mapping[int, float]], cycles: Sequence[int]
) -> list[str]:
    """Return the notes; `areas` maps strategy and seed to the area over `cycles`."""
    notes = _on_seeds(experiment)
    declared = column(experiment.metric)
    if not declared.is_declared:
        notes.append(
            f"{declared.name} is a column that this version does not know; {declared.better} "
            "values are taken to be better."
        )
    unfinished = [run for run in experiment.all_runs if not run.finished]
    if unfinished and not (len(experiment.all_runs) == 1 and unfinished[0].rows):
        notes.append(
            f"Unfinished, shown with what there is: {listed([*map(_progress, unfinished)])}."
        )
    if len(experiment.runs) == 1:
        pass  # there is nothing to compare an area with
    elif len(cycles) < 2:
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
            f"{listed(missing)}."
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
            f"The loss-prediction module of {listed(moved)} changes the network that is trained, "
            "so a difference to the others is not one of selection alone; with "
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


def _on_seeds(experiment: Experiment) -> list[str]:
    lonely = [label for label, runs in experiment.runs.items() if len(runs) == 1]
    most = max(map(len, experiment.runs.values()))
    if len(experiment.runs) == 1:
        return []
    if lonely:
        who = "Every strategy" if len(lonely) == len(experiment.runs) else listed(lonely)
        return [f"{who} ran with one seed only: there is no interval, and no claim can be made."]
    if most < FEWEST_SEEDS:
        return [
            f"Fewer than {FEWEST_SEEDS} seeds: values of each seed are shown instead of intervals, "
            "and nothing is tested."
        ]
    if most < SEEDS_FOR_A_CLAIM:
        return [
            f"Fewer than {SEEDS_FOR_A_CLAIM} seeds: the intervals are wide, and a difference is an "
            "indication, no claim."
        ]
    return []


def _moves_its_network(run: Run) -> bool:
    """Tell whether the gradient of a loss-prediction module reached the features."""
    head = run.config.get("loss_prediction")
    if not isinstance(head, Mapping) or head.get("enabled") is not True:
        return False
    return head.get("detach_at") != 0


def _progress(run: Run) -> str:
    planned = run.config.get("cycles")
    of = f" of {planned}" if isinstance(planned, int) else ""
    return f"{run.strategy} seed {run.seed} ({len(run.rows)}{of} cycles)"
