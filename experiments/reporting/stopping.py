"""The labels at which a stop rule would have ended finished runs, and what that would have cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.metrics.columns import larger_is_better
from experiments.reporting.runs import Run
from experiments.reporting.statistics import Estimate, mean_interval
from experiments.settings.stop_settings import AGREEMENT, StopSettings


@dataclass(frozen=True)
class Stop:
    """The record of a stop rule on the runs of one strategy.

    Attributes:
        num_seeds: Runs whose agreement is on record.
        num_stopped: Those that the rule would have ended before their last cycle.
        num_labeled: Labels of these runs when it is reached; None without such runs.
        lost: What the metric of their last cycle is better than that at the stop, 0 or below if it
            is not better, in the metric's unit; None likewise.
    """

    num_seeds: int
    num_stopped: int
    num_labeled: Estimate | None
    lost: Estimate | None


def stop(runs: Mapping[int, Run], metric: str, settings: StopSettings) -> Stop | None:
    """Apply a rule to the runs of a strategy, by seed; None where no agreement is on record."""
    sign = 1.0 if larger_is_better(metric) else -1.0
    labels, lost, known = [], [], 0
    for run in runs.values():
        if not run.series(AGREEMENT):
            continue
        known += 1
        at = next(
            (k for k in range(len(run.rows) - 1) if settings.is_reached(run.rows[: k + 1])), None
        )
        values = run.series(metric)
        if at is None or run.cycles[at] not in values or run.cycles[-1] not in values:
            continue
        labels.append(float(run.rows[at]["num_labeled"] or 0))
        lost.append(sign * (values[run.cycles[-1]] - values[run.cycles[at]]))
    if not known:
        return None
    found = (mean_interval(labels), mean_interval(lost)) if labels else (None, None)
    return Stop(known, len(labels), *found)
