"""The figures of the report on one experiment. A figure without anything to see is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.metrics.columns import column
from experiments.reporting.curves import Curve, Point
from experiments.reporting.figures import Panel
from experiments.reporting.grouping import BASELINE
from experiments.reporting.numbers import difference_unit
from experiments.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, Estimate
from experiments.reporting.summary import Summary

_PROFILE_POINTS = 26  # as many as can be told apart
Place = Literal["curves", "saved", "loss", "cost"]


@dataclass(frozen=True)
class Drawing:
    """A figure: the name of its files, its caption, and the section that it belongs to."""

    name: str
    caption: str
    panel: Panel
    place: Place = "curves"


def drawings(summary: Summary) -> list[Drawing]:
    """Return the figures of an experiment in the order of the page."""
    metric = column(summary.experiment.metric)
    curves = {label: curve for label, curve in summary.curves.items() if curve}
    limits = (metric.lowest, metric.highest)
    found = [
        Drawing("learning-curves", _curves_caption(summary.curves),
                Panel("", metric.label, curves, limits=limits)),
        Drawing("loss-ranking", _curves_caption(summary.tau),
                Panel("", "Kendall's tau", summary.tau, limits=(-1, 1)), "loss"),
    ]  # fmt: skip
    if summary.is_comparison:
        found += _comparing(summary)
    return [each for each in found if each.panel.is_worth_drawing]


def _comparing(summary: Summary) -> list[Drawing]:
    metric = column(summary.experiment.metric)
    unit = difference_unit(metric.name)
    limits = (metric.lowest, metric.highest)
    interval = f" with its {CONFIDENCE:.0%} interval"
    enough = _has_intervals(summary.differences)
    found = [
        Drawing(
            "difference",
            f"Paired difference to {BASELINE}{interval if enough else ''}",
            Panel("", f"difference{f', {unit}' if unit else ''}", summary.differences,
                  to_baseline=True),
        ),
    ]  # fmt: skip
    if enough:
        found.append(
            Drawing(
                "labels-needed",
                f"Share of seeds and cycles in which a strategy reaches what {BASELINE} has with "
                "at most x times the labels of the best strategy",
                _profile(summary),
                "saved",
            )
        )
    found += [
        Drawing(f"over-{cost.replace(' ', '-')}", f"{metric.title.capitalize()} over {cost}",
                Panel("", metric.label, over, x_label=cost, limits=limits), "cost")
        for cost, over in summary.cost_curves.items()
    ]  # fmt: skip
    seconds = Panel("", "seconds", summary.query_seconds, limits=(0, None), from_limits=True)
    found.append(Drawing("query-seconds", "Scoring and querying, seconds a cycle", seconds, "cost"))
    return found


def learning_curves(summaries: Sequence[Summary]) -> list[Panel]:
    """Return one panel for each experiment, for the figure of all of them."""
    panels = []
    for summary in summaries:
        metric = column(summary.experiment.metric)
        limits = (metric.lowest, metric.highest)
        panels.append(Panel(summary.experiment.title, metric.label, summary.curves, limits=limits))
    return panels


def _curves_caption(curves: Mapping[str, Curve]) -> str:
    if _has_intervals(curves):
        return f"Mean over seeds with its {CONFIDENCE:.0%} interval"
    most = max((p.estimate.num_seeds for curve in curves.values() for p in curve), default=0)
    return "Mean over seeds, and a thin line for each seed" if most > 1 else "One run"


def _has_intervals(curves: Mapping[str, Curve]) -> bool:
    return any(p.estimate.num_seeds >= FEWEST_SEEDS for curve in curves.values() for p in curve)


def _profile(summary: Summary) -> Panel:
    """Return the Dolan-More profile as curves that keep their value up to the next point."""
    found, curves = summary.profile, {}
    if found is not None:
        grid = np.linspace(1.0, max(1.1, float(found.ratios[-1])), _PROFILE_POINTS)
        places = np.searchsorted(found.ratios, grid + 1e-9, side="right") - 1
        for label, shares in found.shares.items():
            curves[label] = tuple(
                Point(k, float(grid[k]), Estimate(float(shares[at]), None, None, 1))
                for k, at in enumerate(places)
            )
    return Panel("", "share", curves, x_label="x, times the labels of the best", steps=True,
                 limits=(0, 1), from_limits=True)  # fmt: skip
