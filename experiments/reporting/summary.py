"""What the report says of one experiment, as numbers and sentences; how it looks is the business
of `tables`, `figures` and `page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.reporting.grouping import BASELINE, Experiment
from experiments.reporting.notes import SEEDS_FOR_A_CLAIM, notes_on
from experiments.reporting.runs import SECONDS, Run
from experiments.reporting.statistics import (
    Comparison,
    Estimate,
    area_under_budget,
    compare,
    mean_interval,
)

TAU = "loss_ranking_tau"


@dataclass(frozen=True)
class Point:
    """One cycle of one strategy: the mean over the seeds that have it."""

    cycle: int
    num_labeled: float  # mean over the same seeds
    estimate: Estimate


Curve = tuple[Point, ...]


@dataclass(frozen=True)
class Cost:
    """Seconds a cycle by phase (mean over all cycles of all seeds), seconds of all runs, and the
    highest peak memory in MB.
    """

    seconds: Mapping[str, float]
    total_seconds: float
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Summary:
    """One experiment in numbers; mappings are by strategy label, the baseline first."""

    experiment: Experiment
    curves: Mapping[str, Curve]
    differences: Mapping[str, Curve]  # to the baseline, cycle by cycle, paired by seed
    areas: Mapping[str, Estimate]  # without the strategies that have none
    area_range: tuple[float, float] | None  # smallest and largest number of labels in it
    comparisons: Mapping[str, Comparison]
    verdicts: Mapping[str, str]
    tau: Mapping[str, Curve]
    costs: Mapping[str, Cost]
    notes: tuple[str, ...]


def summarize(experiment: Experiment) -> Summary:
    """Curves, areas, comparisons, costs and the notes that a reader must have."""
    metric = experiment.metric
    cycles = area_cycles(experiment)
    areas = {label: _areas(runs, metric, cycles) for label, runs in experiment.runs.items()}
    comparisons = _comparisons(areas)
    counted = [
        run.series("num_labeled")
        for label, runs in experiment.runs.items()
        for seed, run in runs.items()
        if seed in areas[label]
    ]
    taus = {label: curve(list(runs.values()), TAU) for label, runs in experiment.runs.items()}
    return Summary(
        experiment=experiment,
        curves={la: curve(list(runs.values()), metric) for la, runs in experiment.runs.items()},
        differences=_difference_curves(experiment),
        areas={label: mean_interval(list(a.values())) for label, a in areas.items() if a},
        area_range=(
            (min(n[cycles[0]] for n in counted), max(n[cycles[-1]] for n in counted))
            if counted
            else None
        ),
        comparisons=comparisons,
        verdicts={
            label: _verdict(label, areas, comparisons.get(label), metric)
            for label in experiment.runs
            if label != BASELINE
        },
        tau={label: c for label, c in taus.items() if c},
        costs={la: c for la, runs in experiment.runs.items() if (c := _cost(list(runs.values())))},
        notes=tuple(notes_on(experiment, areas, cycles)),
    )


def curve(runs: Sequence[Run], column: str) -> Curve:
    """Mean and interval of `column` at each cycle, over the seeds that have that cycle."""
    return _curve([(run.series(column), run.series("num_labeled")) for run in runs])


def _curve(series: Sequence[tuple[Mapping[int, float], Mapping[int, float]]]) -> Curve:
    """From the values and the numbers of labels of each seed."""
    points = []
    for cycle in sorted({cycle for values, _ in series for cycle in values}):
        have = [(values[cycle], counts[cycle]) for values, counts in series if cycle in values]
        num_labeled = sum(count for _, count in have) / len(have)
        points.append(Point(cycle, num_labeled, mean_interval([value for value, _ in have])))
    return tuple(points)


def _difference_curves(experiment: Experiment) -> dict[str, Curve]:
    """The mean of the differences at each cycle, over the seeds that both have it."""
    curves = {}
    baseline = experiment.runs.get(BASELINE, {})
    for label, runs in experiment.runs.items():
        pairs = []
        for seed, run in runs.items():
            if label != BASELINE and seed in baseline:
                other = baseline[seed].series(experiment.metric)
                own = run.series(experiment.metric)
                both = {cycle: own[cycle] - other[cycle] for cycle in own if cycle in other}
                pairs.append((both, run.series("num_labeled")))
        if points := _curve(pairs):
            curves[label] = points
    return curves


def area_cycles(experiment: Experiment) -> list[int]:
    """The cycles of the area: up to the last that at least half of the runs have reached, so that
    neither one run ahead nor one that has just begun decides for all.
    """
    runs = [run.cycles for run in experiment.all_runs]
    every = sorted({cycle for cycles in runs for cycle in cycles})
    return [c for c in every if 2 * sum(bool(r) and r[-1] >= c for r in runs) >= len(runs)]


def _areas(runs: Mapping[int, Run], metric: str, cycles: Sequence[int]) -> dict[int, float]:
    """Seed to area, for the seeds that have every one of `cycles`."""
    areas = {}
    for seed, run in runs.items():
        values, counts = run.series(metric), run.series("num_labeled")
        if all(cycle in values for cycle in cycles):
            area = area_under_budget([counts[c] for c in cycles], [values[c] for c in cycles])
            if area is not None:
                areas[seed] = area
    return areas


def _comparisons(areas: Mapping[str, Mapping[int, float]]) -> dict[str, Comparison]:
    baseline = areas.get(BASELINE, {})
    differences = {
        label: [area - baseline[seed] for seed, area in own.items() if seed in baseline]
        for label, own in areas.items()
        if label != BASELINE
    }
    return compare({label: values for label, values in differences.items() if values})


def larger_is_better(metric: str) -> bool:
    """False for losses, errors and costs, by the metric's name."""
    return not any(word in metric for word in ("loss", "error", "seconds", "memory", "steps"))


def _verdict(
    label: str,
    areas: Mapping[str, Mapping[int, float]],
    comparison: Comparison | None,
    metric: str,
) -> str:
    if BASELINE not in areas:
        return f"no runs of {BASELINE} to compare with"
    if comparison is None:
        missing = [name for name in (label, BASELINE) if not areas[name]]
        return f"no area for {' and '.join(missing)}" if missing else "no common seed"
    if comparison.difference.num_seeds == 1:
        return "one common seed: no interval"
    if comparison.p_value is None:
        return "no test: the differences do not vary over the seeds"
    if not comparison.distinguishable:
        return "not distinguishable at these seeds"
    verdict = "better" if (comparison.difference.mean > 0) == larger_is_better(metric) else "worse"
    if comparison.difference.num_seeds < SEEDS_FOR_A_CLAIM:
        verdict += f" (fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim)"
    return verdict


def _cost(runs: Sequence[Run]) -> Cost | None:
    phases: dict[str, list[float]] = {}
    for run in runs:
        for column in run.columns:
            if column.startswith(SECONDS):
                values = phases.setdefault(column.removeprefix(SECONDS), [])
                values.extend(run.series(column).values())
    if not any(phases.values()):
        return None
    memory = [value for run in runs for value in run.series("peak_memory_mb").values()]
    return Cost(
        seconds={phase: sum(v) / len(v) for phase, v in phases.items() if v},
        total_seconds=sum(sum(v) for v in phases.values()),
        peak_memory_mb=max(memory, default=None),
    )
