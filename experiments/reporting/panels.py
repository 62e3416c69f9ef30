"""The figures of the report on one experiment. A figure without anything to see is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from experiments.metrics.columns import column
from experiments.metrics.evaluation import RECALLS, FloatArray
from experiments.reporting.changes import changed_settings
from experiments.reporting.class_views import by_class
from experiments.reporting.curves import Curve, Point, curve_of
from experiments.reporting.evaluations import ClassResults
from experiments.reporting.figures import Panel, Style, styles
from experiments.reporting.grouping import BASELINE
from experiments.reporting.numbers import difference_unit
from experiments.reporting.overall import Overall
from experiments.reporting.rankings import Profile
from experiments.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, Estimate
from experiments.reporting.summary import Summary

_PROFILE_POINTS = 26  # as many as can be told apart
_MOST_CLASSES = 12  # curves that can be told apart in one figure
_FEWEST_PREDICTIONS = 10  # in a bin of the reliability diagram, whose share of right ones is noise
Place = Literal["curves", "saved", "classes", "confidence", "loss", "cost"]


@dataclass(frozen=True)
class Drawing:
    """A figure: the name of its files, its caption, and the section that it belongs to."""

    name: str
    caption: str
    panel: Panel
    place: Place = "curves"

    def look(self, strategies: Mapping[str, Style]) -> Mapping[str, Style]:
        """Return the styles of the curves: those of the strategies, or of classes their own."""
        of_classes = self.place == "classes"
        return styles(list(self.panel.curves)) if of_classes else strategies


def drawings(summary: Summary) -> list[Drawing]:
    """Return the figures of an experiment in the order of the page."""
    metric = column(summary.experiment.metric)
    curves = {label: curve for label, curve in summary.curves.items() if curve}
    limits = (metric.lowest, metric.highest)
    changes = changed_settings(summary.only_run) if summary.only_run else ()
    noted = "".join(f"; at {x:,.0f} labels {text}" for x, text in changes)
    found = [
        Drawing("learning-curves", f"{_curves_caption(summary.curves)}{noted}",
                Panel("", metric.label, curves, limits=limits, marks=tuple(x for x, _ in changes))),
        Drawing("loss-ranking", _curves_caption(summary.tau),
                Panel("", "Kendall's tau", summary.tau, limits=(-1, 1)), "loss"),
    ]  # fmt: skip
    found += [*_by_class(summary), *_reliability(summary)]
    if summary.is_comparison:
        found += _comparing(summary)
    return [each for each in found if each.panel.is_worth_drawing]


def _by_class(summary: Summary) -> list[Drawing]:
    """Return the scores of the classes over the labels, and precision over recall, of one
    strategy.
    """
    if len(summary.classes) != 1 or len(summary.experiment.runs) > 1:
        return []
    ((label, result),) = summary.classes.items()
    runs, one = summary.experiment.runs[label], result.any
    scores = {
        name: curve_of(
            {
                seed: (by_cycle, runs[seed].series("num_labeled"))
                for seed, by_cycle in by_seed.items()
            }
        )
        for name, by_seed in by_class(result).items()
    }
    scores = {name: points for name, points in scores.items() if points}
    found = []
    if 1 < len(scores) <= _MOST_CLASSES:
        found.append(
            Drawing(
                "classes",
                f"{one.score} by class. {_curves_caption(scores)}",
                Panel("", f"{one.score}, %", scores, limits=(0, 100)),
                "classes",
            )
        )
    if (precision := _precision(result)) and len(precision) <= _MOST_CLASSES:
        found.append(
            Drawing(
                "precision-recall",
                "Precision over recall at an overlap of 0.5, after the last cycle",
                Panel("", "precision", precision, x_label="recall", limits=(0, 1),
                      from_limits=True, markers=False),
                "classes",
            )
        )  # fmt: skip
    return found


def _precision(result: ClassResults) -> dict[str, Curve]:
    """Return precision over recall by class, means over the seeds, as far as anything is found."""
    rows = [each.precision for each in result.last.values() if each.precision is not None]
    if not rows:
        return {}
    means = dict(zip(result.any.class_names, np.mean(rows, axis=0), strict=True))
    return {
        name: _line(RECALLS[found], row[found])
        for name, row in means.items()
        if not np.isnan(row).any()
        for found in [np.append(True, row[:-1] > 0)]
    }


def _reliability(summary: Summary) -> list[Drawing]:
    """Return the share of right predictions over their confidence, after the last cycle."""
    curves = {}
    for label, result in summary.classes.items():
        bins = result.calibration()
        kept = np.flatnonzero(bins.counts >= _FEWEST_PREDICTIONS)
        confidence, right = (
            each[kept] / bins.counts[kept] for each in (bins.confidence, bins.right)
        )
        curves[label] = _line(confidence, right)
    panel = Panel("", "share of right predictions", curves, x_label="confidence", limits=(0, 1),
                  from_limits=True, diagonal=True)  # fmt: skip
    caption = "Share of right predictions over their confidence; on the dotted line both agree"
    return [Drawing("reliability", caption, panel, "confidence")] if curves else []


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
                profile_panel(summary.profile),
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


def overall_drawings(overall: Overall) -> list[Drawing]:
    """Return the figures of all experiments together."""
    drawing = Drawing(
        "labels-needed",
        f"Share of experiments, seeds and cycles in which a strategy reaches what {BASELINE} has "
        "with at most x times the labels of the best strategy",
        profile_panel(overall.profile),
        "saved",
    )
    return [drawing] if drawing.panel.is_worth_drawing else []


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


def _line(x: FloatArray, y: FloatArray) -> Curve:
    """Return a curve of values that have no seeds."""
    return tuple(
        Point(k, float(at), Estimate(float(value), None, None, 1))
        for k, (at, value) in enumerate(zip(x, y, strict=True))
    )


def profile_panel(found: Profile | None) -> Panel:
    """Return the Dolan-More profile as curves that keep their value up to the next point."""
    curves = {}
    if found is not None:
        grid = np.linspace(1.0, max(1.1, float(found.ratios[-1])), _PROFILE_POINTS)
        places = np.searchsorted(found.ratios, grid + 1e-9, side="right") - 1
        for label, shares in found.shares.items():
            curves[label] = _line(grid, shares[places])
    return Panel("", "share", curves, x_label="x, times the labels of the best", steps=True,
                 limits=(0, 1), from_limits=True)  # fmt: skip
