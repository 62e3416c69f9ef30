"""Costs of the labels and queries of an experiment: seconds, memory, and learning curves over other
costs than the number of labeled images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.metrics.columns import LABELED, SECONDS, column
from experiments.reporting.curves import Curve, curve_of
from experiments.reporting.frames import cycles_frame
from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import Run

SPENT = "seconds"
"""The cost of a cycle's model in time: all training, scoring and querying up to it."""


@dataclass(frozen=True)
class Cost:
    """Cost of the runs of one strategy.

    Attributes:
        seconds: Seconds a cycle by phase, averaged over all cycles of all seeds.
        total_seconds: Seconds of all runs together.
        peak_memory_mb: The highest peak of memory; None if no run recorded it.
    """

    seconds: Mapping[str, float]
    total_seconds: float
    peak_memory_mb: float | None


def costs_of(experiment: Experiment) -> dict[str, Cost]:
    """Return the costs of each strategy whose runs recorded seconds."""
    frame = cycles_frame([experiment])
    phases = [name for name in frame if name.startswith(SECONDS)]
    found = {}
    for label, rows in frame.groupby("strategy", sort=False):
        seconds = rows[phases].mean().dropna()
        memory = rows["peak_memory_mb"].max() if "peak_memory_mb" in rows else float("nan")
        if not seconds.empty:
            found[str(label)] = Cost(
                seconds={k.removeprefix(SECONDS): float(v) for k, v in seconds.items()},
                total_seconds=float(rows[phases].sum().sum()),
                peak_memory_mb=None if memory != memory else float(memory),
            )
    return found


def query_seconds(run: Run) -> dict[int, float]:
    """Return the seconds of scoring and querying together, by cycle."""
    return _sum_of(run, ("score", "query"))


def seconds_spent(run: Run) -> dict[int, float]:
    """Return the seconds until the model of each cycle was trained.

    Evaluation is not counted, nor is the query that follows the training.
    """
    fit, query = _sum_of(run, ("fit",)), query_seconds(run)
    spent, before = {}, 0.0
    for cycle in run.cycles:
        if cycle not in fit:
            return {}  # the later sums would be too small
        spent[cycle] = before + fit[cycle]
        before = spent[cycle] + query.get(cycle, 0.0)
    return spent


def _sum_of(run: Run, phases: Sequence[str]) -> dict[int, float]:
    series = [run.series(SECONDS + phase) for phase in phases]
    return {
        c: sum(s.get(c, 0.0) for s in series) for c in run.cycles if any(c in s for s in series)
    }


def cost_curves(experiment: Experiment) -> dict[str, dict[str, Curve]]:
    """Return curves of the metric over its mean cost, by cost (labeled boxes, seconds, ...) and
    strategy.
    """
    counted = sorted({c for r in experiment.all_runs for c in r.columns if c.startswith(LABELED)})
    curves: dict[str, dict[str, Curve]] = {}
    for name in [*counted, SPENT]:
        for label, runs in experiment.runs.items():
            series = {}
            for seed, run in runs.items():
                spent = seconds_spent(run) if name == SPENT else run.series(name)
                values = run.series(experiment.metric)
                series[seed] = ({c: v for c, v in values.items() if c in spent}, spent)
            if points := curve_of(series):
                title = SPENT if name == SPENT else column(name).title
                curves.setdefault(title, {})[label] = points
    return curves


def query_curves(experiment: Experiment) -> dict[str, Curve]:
    """Return the seconds of scoring and querying over the number of labeled images, by strategy."""
    curves = {
        label: curve_of(
            {seed: (query_seconds(run), run.series("num_labeled")) for seed, run in runs.items()}
        )
        for label, runs in experiment.runs.items()
    }
    return {label: points for label, points in curves.items() if points}
