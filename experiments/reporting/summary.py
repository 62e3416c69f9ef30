"""Numbers and sentences of the report on one experiment; other modules lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from experiments.reporting.costs import Cost, cost_curves, costs_of, query_curves
from experiments.reporting.curves import Curve, curve, curve_of
from experiments.reporting.evaluations import ClassResults, class_results
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
    cycles: tuple[int, ...]  # those of the area
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
    needed: Mapping[
        str, list[float]
    ]  # labels to reach each level of the baseline, problem by problem
    tau: Mapping[str, Curve]
    query_seconds: Mapping[str, Curve]
    costs: Mapping[str, Cost]
    classes: Mapping[str, ClassResults]  # of the strategies with results by class
    notes: tuple[str, ...]

    @property
    def is_comparison(self) -> bool:
        """True if other strategies can be compared with the baseline."""
        runs = self.experiment.runs
        return BASELINE in runs and len(runs) > 1

    @property
    def only_run(self) -> Run | None:
        """The run of an experiment that has no other, else None."""
        runs = self.experiment.all_runs
        return runs[0] if len(runs) == 1 else None


def summarize(experiment: Experiment) -> Summary:
    """Compute curves, areas, comparisons, rankings, costs and notes."""
    metric = experiment.metric
    cycles = area_cycles(experiment)
    values, counts, areas = _areas(experiment, cycles)
    comparisons = _comparisons(areas)
    verdicts = _verdicts(experiment, areas, comparisons)
    sign = 1.0 if larger_is_better(metric) else -1.0
    directed: Values = {
        la: {s: sign * v for s, v in by.items() if s in areas[la]} for la, by in values.items()
    }
    needed = needed_by_all(directed, counts, BASELINE)
    return Summary(
        experiment=experiment,
        cycles=tuple(cycles),
        curves={la: curve(runs, metric) for la, runs in experiment.runs.items()},
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
        savings=savings(directed, counts, BASELINE, _places(len(cycles))) if areas else {},
        penalties=penalty_matrix(directed),
        ranks=mean_ranks({la: {s: sign * a for s, a in by.items()} for la, by in areas.items()}),
        profile=profile(needed),
        needed=needed,
        tau={
            label: points for label, runs in experiment.runs.items() if (points := curve(runs, TAU))
        },
        query_seconds=query_curves(experiment),
        costs=costs_of(experiment),
        classes=class_results(experiment),
        notes=tuple(notes_on(experiment, areas, cycles)),
    )


def verdicts_on(experiment: Experiment) -> dict[str, str]:
    """Return the verdict on each strategy but the baseline; empty without runs of the baseline."""
    _, _, areas = _areas(experiment, area_cycles(experiment))
    return _verdicts(experiment, areas, _comparisons(areas))


def _verdicts(
    experiment: Experiment,
    areas: Mapping[str, Mapping[int, float]],
    comparisons: Mapping[str, Comparison],
) -> dict[str, str]:
    if BASELINE not in experiment.runs:
        return {}
    return {
        label: verdict(label, areas, comparisons.get(label), experiment.metric)
        for label in experiment.runs
        if label != BASELINE
    }


def _areas(
    experiment: Experiment, cycles: Sequence[int]
) -> tuple[Values, Values, dict[str, dict[int, float]]]:
    """Return the metric, the numbers of labels and the areas of the runs with all of `cycles`."""
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
    """Return the cycles of the area: up to the last that at least half of the runs have reached.

    So the area depends neither on one run that is ahead nor on one that has just begun.
    """
    runs = [run.cycles for run in experiment.all_runs]
    every = sorted({cycle for cycles in runs for cycle in cycles})
    return [c for c in every if 2 * sum(bool(r) and r[-1] >= c for r in runs) >= len(runs)]


def _aligned(experiment: Experiment, column: str, cycles: Sequence[int]) -> Values:
    """Return `column` at each of `cycles`, by strategy and by the seeds that have them all."""

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
    """Return the positions of the middle and the last cycle, for which labels saved are shown."""
    return sorted({(num_cycles - 1) // 2, num_cycles - 1} - {0})


def _difference_curves(experiment: Experiment) -> dict[str, Curve]:
    """Return the differences to the baseline at each cycle, over the seeds that both have."""
    curves = {}
    for label, runs in experiment.runs.items():
        pairs = {
            seed: (both, runs[seed].series("num_labeled"))
            for seed, both in _differences(experiment, label).items()
        }
        if points := curve_of(pairs):
            curves[label] = points
    return curves


def _differences(experiment: Experiment, label: str) -> dict[int, dict[int, float]]:
    """Return differences to the baseline by seed and cycle; none for the baseline itself."""
    baseline = experiment.runs.get(BASELINE, {})
    found = {}
    for seed, run in experiment.runs[label].items():
        if label != BASELINE and seed in baseline:
            other = baseline[seed].series(experiment.metric)
            own = run.series(experiment.metric)
            found[seed] = {cycle: own[cycle] - other[cycle] for cycle in own if cycle in other}
    return found


def _cycle_comparisons(experiment: Experiment) -> dict[str, dict[int, Comparison]]:
    """Compare every strategy with the baseline at every cycle, as one family."""
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
    """Compare every strategy with the baseline over the curve."""
    pairs = {label: _paired(areas, label, BASELINE) for label in areas if label != BASELINE}
    return compare({label: values for label, values in pairs.items() if values})


def _pairs(areas: Mapping[str, Mapping[int, float]]) -> dict[tuple[str, str], Comparison]:
    """Compare every strategy with every later one over the curve."""
    pairs = {(a, b): _paired(areas, a, b) for a, b in combinations(areas, 2)}
    return compare({pair: values for pair, values in pairs.items() if values})


def _paired(areas: Mapping[str, Mapping[int, float]], a: str, b: str) -> list[float]:
    other = areas.get(b, {})
    return [area - other[seed] for seed, area in areas[a].items() if seed in other]
