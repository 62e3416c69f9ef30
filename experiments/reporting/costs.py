"""What the labels and the queries of an experiment cost: seconds and memory, and learning curves
over something else than the number of labeled images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.metrics.columns import LABELED, SECONDS
from experiments.reporting.curves import Curve, curve_of
from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import Run

SPENT = "seconds"
"""The cost of a cycle's model in time: all training, scoring and querying up to it."""


@dataclass(frozen=True)
class Cost:
    """Seconds a cycle by phase (mean over all cycles of all seeds), seconds of all runs, and the
    highest peak memory in MB.
    """

    seconds: Mapping[str, float]
    total_seconds: float
    peak_memory_mb: float | None


def cost(runs: Sequence[Run]) -> Cost | None:
    """The cost of a strategy's runs; None where no seconds are known."""
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


def query_seconds(run: Run) -> dict[int, float]:
    """Seconds that a cycle's scoring and querying took together."""
    return _sum_of(run, ("score", "query"))


def seconds_spent(run: Run) -> dict[int, float]:
    """Seconds until the model of a cycle was trained: evaluation is not counted, nor is the query
    that follows.
    """
    fit, query = _sum_of(run, ("fit",)), query_seconds(run)
    spent, before = {}, 0.0
    for cycle in run.cycles:
        if cycle not in fit:
            return {}  # later sums would lack it
        spent[cycle] = before + fit[cycle]
        before = spent[cycle] + query.get(cycle, 0.0)
    return spent


def _sum_of(run: Run, phases: Sequence[str]) -> dict[int, float]:
    series = [run.series(SECONDS + phase) for phase in phases]
    return {
        c: sum(s.get(c, 0.0) for s in series) for c in run.cycles if any(c in s for s in series)
    }


def cost_curves(experiment: Experiment) -> dict[str, dict[str, Curve]]:
    """By cost (boxes, pixels, ..., seconds) and strategy, the metric over the mean cost."""
    columns = sorted({c for r in experiment.all_runs for c in r.columns if c.startswith(LABELED)})
    curves: dict[str, dict[str, Curve]] = {}
    for column in [*columns, SPENT]:
        for label, runs in experiment.runs.items():
            series = []
            for run in runs.values():
                spent = seconds_spent(run) if column == SPENT else run.series(column)
                values = run.series(experiment.metric)
                series.append(({c: v for c, v in values.items() if c in spent}, spent))
            if points := curve_of(series):
                name = "seconds" if column == SPENT else f"labeled {column.removeprefix(LABELED)}"
                curves.setdefault(name, {})[label] = points
    return curves


def query_curves(experiment: Experiment) -> dict[str, Curve]:
    """By strategy, the seconds of scoring and querying over the number of labeled images."""
    curves = {
        label: curve_of([(query_seconds(run), run.series("num_labeled")) for run in runs.values()])
        for label, runs in experiment.runs.items()
    }
    return {label: points for label, points in curves.items() if points}
