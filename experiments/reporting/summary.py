"""What the report says of one experiment, as numbers and sentences; how it looks is the business
of `tables`, `figures` and `page`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from experiments.reporting.costs import Cost, cost, cost_curves, query_curves
from experiments.reporting.curves import Curve, curve, curve_of
from experiments.reporting.grouping import BASELINE, Experiment
from experiments.reporting.labels_needed import Saving, needed_by_all, savings
from experiments.reporting.notes import notes_on
from experiments.reporting.rankings import (
    Penalties,
    Profile,
    Ranks,
    Values,
    mean_ranks,
    penalty_matrix,
    profile,
)
from experiments.reporting.runs import Run
from experiments.reporting.statistics import (
    Comparison,
    Estimate,
    area_under_budget,
    compare,
    mean_interval,
)
from experiments.reporting.verdicts import larger_is_better, sentence, verdict

TAU = "loss_ranking_tau"


@dataclass(frozen=True)
class Summary:
    """One experiment in numbers; mappings are by strategy label, the baseline first."""

    experiment: Experiment
    curves: Mapping[str, Curve]
    cost_curves: Mapping[str, Mapping[str, Curve]]  # by what the labels or the time cost
    differences: Mapping[str, Curve]  # to the baseline, cycle by cycle, paired by seed
    cycle_comparisons: Mapping[str, Mapping[int, Comparison]]  # corrected over all of them
    areas: Mapping[str, Estimate]  # without the strategies that have none
    area_range: tuple[float, float] | None  # smallest and largest number of labels in it
    comparisons: Mapping[str, Comparison]
    pairs: Mapping[tuple[str, str], Comparison]  # of every two areas, corrected over all pairs
    verdicts: Mapping[str, str]
    sentences: tuple[str, ...]
    savings: Mapping[str, Sequence[Saving]]
    penalties: Penalties | None
    ranks: Ranks | None
    profile: Profile | None
    tau: Mapping[str, Curve]
    query_seconds: Mapping[str, Curve]
    costs: Mapping[str, Cost]
    notes: tuple[str, ...]


def summarize(experiment: Experiment) -> Summary:
    """Curves, areas, comparisons, rankings, costs and the notes that a reader must have."""
    metric = experiment.metric
    cycles = area_cycles(experiment)
    values, counts, areas = _areas(experiment, cycles)
    comparisons = _comparisons(areas)
    verdicts = _verdicts(experiment, areas, comparisons)
    sign = 1.0 if larger_is_better(metric) else -1.0
    better: Values = {
        la: {s: sign * v for s, v in by.items() if s in areas[la]} for la, by in values.items()
    }
    return Summary(
        experiment=experiment,
        curves={la: curve(list(runs.values()), metric) for la, runs in experiment.runs.items()},
        cost_curves=cost_curves(experiment),
        differences=_difference_curves(experiment),
        cycle_comparisons=_cycle_comparisons(experiment),
        areas={label: mean_interval(list(a.values())) for label, a in areas.items() if a},
        area_range=_range(counts, areas),
        comparisons=comparisons,
        pairs=_pairs(areas),
        verdicts=verdicts,
        sentences=tuple(
            sentence(label, word, comparisons.get(label), metric)
            for label, word in verdicts.items()
        ),
        savings=savings(better, counts, BASELINE, _places(len(cycles))) if areas else {},
        penalties=penalty_matrix(better),
        ranks=mean_ranks({la: {s: sign * a for s, a in by.items()} for la, by in areas.items()}),
        profile=profile(needed_by_all(better, counts, BASELINE)),
        tau={
            label: points
            for label, runs in experiment.runs.items()
            if (points := curve(list(runs.values()), TAU))
        },
        query_seconds=query_curves(experiment),
        costs={la: c for la, runs in experiment.runs.items() if (c := cost(list(runs.values())))},
        notes=tuple(notes_on(experiment, areas, cycles)),
    )


def verdicts_on(experiment: Experiment) -> dict[str, str]:
    """The verdict on each strategy but the baseline, and nothing else of the summary."""
    _, _, areas = _areas(experiment, area_cycles(experiment))
    return _verdicts(experiment, areas, _comparisons(areas))


def _verdicts(
    experiment: Experiment,
    areas: Mapping[str, Mapping[int, float]],
    comparisons: Mapping[str, Comparison],
) -> dict[str, str]:
    return {
        label: verdict(label, areas, comparisons.get(label), experiment.metric)
        for label in experiment.runs
        if label != BASELINE
    }


def _areas(
    experiment: Experiment, cycles: Sequence[int]
) -> tuple[Values, Values, dict[str, dict[int, float]]]:
    """The metric, the numbers of labels and the areas of the runs that have all of `cycles`."""
    values = _aligned(experiment, experiment.metric, cycles)
    counts = {
        label: {seed: row for seed, row in by_seed.items() if seed in values[label]}
        for label, by_seed in _aligned(experiment, "num_labeled", cycles).items()
    }
    areas = {
        label: {
            seed: area
            for seed, own in by_seed.items()
            if (area := area_under_budget(counts[label][seed].tolist(), own.tolist())) is not None
        }
        for label, by_seed in values.items()
    }
    return values, counts, areas


def area_cycles(experiment: Experiment) -> list[int]:
    """The cycles of the area: up to the last that at least half of the runs have reached, so that
    neither one run ahead nor one that has just begun decides for all.
    """
    runs = [run.cycles for run in experiment.all_runs]
    every = sorted({cycle for cycles in runs for cycle in cycles})
    return [c for c in every if 2 * sum(bool(r) and r[-1] >= c for r in runs) >= len(runs)]


def _aligned(experiment: Experiment, column: str, cycles: Sequence[int]) -> Values:
    """`column` at each of `cycles`, by strategy and by those seeds that have them all."""

    def row(run: Run) -> Mapping[int, float]:
        series = run.series(column)
        return series if all(cycle in series for cycle in cycles) else {}

    return {
        label: {
            seed: np.array([series[cycle] for cycle in cycles], dtype=np.float64)
            for seed, run in runs.items()
            if (series := row(run))
        }
        for label, runs in experiment.runs.items()
    }


def _range(counts: Values, areas: Mapping[str, Mapping[int, float]]) -> tuple[float, float] | None:
    rows = [counts[label][seed] for label, by_seed in areas.items() for seed in by_seed]
    return (min(r[0] for r in rows), max(r[-1] for r in rows)) if rows else None


def _places(num_cycles: int) -> list[int]:
    """The middle and the last cycle, where labels saved are told."""
    return sorted({(num_cycles - 1) // 2, num_cycles - 1} - {0})


def _difference_curves(experiment: Experiment) -> dict[str, Curve]:
    """The mean of the differences at each cycle, over the seeds that both have it."""
    curves = {}
    for label in experiment.runs:
        pairs = []
        for seed, both in _differences(experiment, label).items():
            pairs.append((both, experiment.runs[label][seed].series("num_labeled")))
        if points := curve_of(pairs):
            curves[label] = points
    return curves


def _differences(experiment: Experiment, label: str) -> dict[int, dict[int, float]]:
    """Seed and cycle to the difference to the baseline; empty for the baseline itself."""
    baseline = experiment.runs.get(BASELINE, {})
    found = {}
    for seed, run in experiment.runs[label].items():
        if label != BASELINE and seed in baseline:
            other = baseline[seed].series(experiment.metric)
            own = run.series(experiment.metric)
            found[seed] = {cycle: own[cycle] - other[cycle] for cycle in own if cycle in other}
    return found


def _cycle_comparisons(experiment: Experiment) -> dict[str, dict[int, Comparison]]:
    """Every strategy against the baseline at every cycle, one family under Holm's correction."""
    family: dict[tuple[str, int], list[float]] = {}
    for label in experiment.runs:
        for by_cycle in _differences(experiment, label).values():
            for cycle, difference in by_cycle.items():
                family.setdefault((label, cycle), []).append(difference)
    found: dict[str, dict[int, Comparison]] = {}
    for (label, cycle), comparison in compare(family).items():
        found.setdefault(label, {})[cycle] = comparison
    return found


def _comparisons(areas: Mapping[str, Mapping[int, float]]) -> dict[str, Comparison]:
    """Every strategy against the baseline over the curve."""
    pairs = {label: _paired(areas, label, BASELINE) for label in areas if label != BASELINE}
    return compare({label: values for label, values in pairs.items() if values})


def _pairs(areas: Mapping[str, Mapping[int, float]]) -> dict[tuple[str, str], Comparison]:
    """Every strategy against every later one, over the curve."""
    pairs = {(a, b): _paired(areas, a, b) for a, b in combinations(areas, 2)}
    return compare({pair: values for pair, values in pairs.items() if values})


def _paired(areas: Mapping[str, Mapping[int, float]], a: str, b: str) -> list[float]:
    other = areas.get(b, {})
    return [area - other[seed] for seed, area in areas[a].items() if seed in other]
