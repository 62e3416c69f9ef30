"""Figures of curves with matplotlib, without pyplot and its global state.

A strategy has the same style in every figure of a report; the baseline is gray and dashed. A band
is an interval over at least FEWEST_SEEDS seeds; fewer seeds are drawn as a thin line each.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reporting.curves import Curve
from experiments.reporting.grouping import BASELINE
from experiments.reporting.statistics import FEWEST_SEEDS

# Okabe and Ito's palette for the color-blind, without black and yellow: for light and dark pages.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_DASHES = ("-", "--", "-.", ":")
CURVE = "curve-"
"""And its number: the id of a curve's group in the SVG."""
_WIDTH, _HEIGHT = 4.8, 3.1  # inches: small, so that text stays readable on a phone
# Least spread of a figure, as a fraction of the largest value; the second for axes from zero.
_ROUNDING, _LEAST_SPREAD = 1e-9, 0.01
_LEAST_SHARE = 0.1  # of a bounded quantity's range: an axis shows no less, or noise looks like news

Kind = Literal["png", "svg", "pdf"]
Limits = tuple[float | None, float | None]


@dataclass(frozen=True)
class Panel:
    """One set of axes.

    Attributes:
        title: Above the axes; may be empty.
        y_label: Quantity and unit.
        curves: By strategy, in the order of the legend.
        to_baseline: The curves are differences to the baseline, whose zero is marked.
        x_label: Position and unit.
        steps: The curves keep their value up to the next point.
        limits: Bounds that the quantity cannot exceed; the axis does not either.
        from_limits: The axis reaches the bounds, so that sizes can be compared by eye.
        markers: Each point is marked, which is too much for a curve of many.
        diagonal: The line where both axes are equal is marked.
        marks: Positions at which settings changed; each gets a dotted line.
    """

    title: str
    y_label: str
    curves: Mapping[str, Curve]
    to_baseline: bool = False
    x_label: str = "labeled images"
    steps: bool = False
    limits: Limits = (None, None)
    from_limits: bool = False
    markers: bool = True
    diagonal: bool = False
    marks: tuple[float, ...] = ()

    @property
    def counts_labels(self) -> bool:
        """False for shares and ratios, which have no whole numbers as ticks."""
        return not self.steps and not self.diagonal and self.markers

    @property
    def is_worth_drawing(self) -> bool:
        """False if no curve has two points, or all points are equally high."""
        means = [p.estimate.mean for curve in self.curves.values() for p in curve]
        means += [0.0] if self.to_baseline else []
        if max((len(curve) for curve in self.curves.values()), default=0) < 2:
            return False
        least = _LEAST_SPREAD if self.from_limits else _ROUNDING
        return max(means) - min(means) > least * max(map(abs, means))


Style = dict[str, Any]


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """Return a style for each label; beyond the number of colors, markers and dashes differ."""
    chosen: dict[str, Style] = {}
    number = 0
    for label in labels:
        if label == BASELINE:
            chosen[label] = {"color": "#808080", "marker": "o", "linestyle": "--"}
        elif label not in chosen:
            chosen[label] = {
                "color": _COLORS[number % len(_COLORS)],
                "marker": _MARKERS[number % len(_MARKERS)],
                "linestyle": _DASHES[number // len(_COLORS) % len(_DASHES)],
            }
            number += 1
    return chosen


def draw(panels: Sequence[Panel], look: Mapping[str, Style], *, ink: str = "black") -> Figure:
    """Draw the panels one below the other, each with its own legend below it."""
    rows = [_legend_rows(panel) for panel in panels]
    heights = [_HEIGHT + 0.2 * row + (0.3 if panel.title else 0)
               for row, panel in zip(rows, panels, strict=True)]  # fmt: skip
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_panel(axes, panel, look, ink)
    return figure


def _draw_panel(axes: Axes, panel: Panel, look: Mapping[str, Style], ink: str) -> None:
    lines = []
    shade = 0.18 * min(1, 2 / max(1, len(panel.curves)))  # many bands lie on one another
    axes.set_facecolor("none")
    if panel.to_baseline:
        axes.axhline(0, **{**look.get(BASELINE, {}), "marker": None}, linewidth=1.2)
    if panel.diagonal:
        axes.plot([0, 1], [0, 1], color=ink, alpha=0.5, linewidth=1, linestyle=":")
    for mark in panel.marks:
        axes.axvline(mark, color=ink, linestyle=":", linewidth=1.0, alpha=0.6)
    for label, curve in panel.curves.items():
        style = look[label]
        _draw_seeds(axes, curve, style["color"])
        x, mean = [point.x for point in curve], [point.estimate.mean for point in curve]
        how = "steps-post" if panel.steps else "default"
        size = (2.5 if panel.steps else 4) if panel.markers else 0
        lines += axes.plot(
            x, mean, markersize=size, linewidth=1.5, drawstyle=how, clip_on=False, **style
        )
        lines[-1].set_gid(f"{CURVE}{len(lines) - 1}")
        band = [(p.x, *interval) for p in curve if (interval := p.estimate.shown_interval)]
        if band:
            places, low, high = map(list, zip(*band, strict=True))
            color = style["color"]
            axes.fill_between(
                places, low, high, facecolor=(color, shade), edgecolor=(color, 0.35), linewidth=0.6
            )
    _limit(axes, panel)
    axes.grid(color=ink, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink, labelsize=8)
    axes.xaxis.set_major_locator(
        MaxNLocator(6, integer=panel.counts_labels, steps=[1, 2, 2.5, 5, 10])
    )
    texts = [
        axes.set_xlabel(panel.x_label, color=ink, fontsize=9),
        axes.set_ylabel(panel.y_label, color=ink, fontsize=9),
    ]
    if panel.title:
        title = textwrap.fill(panel.title, 60)  # matplotlib's own wrapping reads $ as mathematics
        texts.append(axes.set_title(title, color=ink, fontsize=9, loc="left"))
    if _legend_rows(panel):
        names = [f" {label}" for label in panel.curves]  # matplotlib hides names that begin with _
        legend = axes.legend(
            lines, names, loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False,
            borderaxespad=4.2,
            ncols=_legend_columns(panel), columnspacing=1.2, handlelength=2.2, fontsize=8,
            labelcolor=ink,
        )  # fmt: skip
        texts += legend.get_texts()
    for text in texts:
        text.set_parse_math(False)  # a $ in a name is a dollar


def _draw_seeds(axes: Axes, curve: Curve, color: str) -> None:
    """Draw a thin line for each seed where there are too few for an interval."""
    seeds = sorted({seed for point in curve for seed in point.seeds})
    if not 1 < len(seeds) < FEWEST_SEEDS:
        return
    for seed in seeds:
        points = [point.seeds[seed] for point in curve if seed in point.seeds]
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=color, linewidth=0.7, alpha=0.6, marker=".", markersize=2.5)


def _legend_rows(panel: Panel) -> int:
    return -(-len(panel.curves) // _legend_columns(panel)) if len(panel.curves) > 1 else 0


def _legend_columns(panel: Panel) -> int:
    """Return how many columns fit; each is as wide as its longest entry, filled downwards."""
    inches = [0.45 + 0.067 * len(label) for label in panel.curves]
    for columns in range(min(6, len(inches)), 1, -1):
        rows = -(-len(inches) // columns)
        if sum(max(inches[k : k + rows]) for k in range(0, len(inches), rows)) <= _WIDTH:
            return columns
    return 1


def _limit(axes: Axes, panel: Panel) -> None:
    """Fit the axis to the curves and within the limits of the quantity.

    Bands are cut off where they reach further beyond the means than the means' own spread, so that
    a wide interval does not flatten the curves.
    """
    points = [point for curve in panel.curves.values() for point in curve]
    means = [point.estimate.mean for point in points]
    if not means:
        return
    low, high = min(means), max(means)
    if (spread := high - low) > 0:
        bands = [interval for p in points if (interval := p.estimate.shown_interval)]
        low = max(min([low, *(band[0] for band in bands)]), low - spread)
        high = min(max([high, *(band[1] for band in bands)]), high + spread)
        seeds = [
            value for p in points if len(p.seeds) < FEWEST_SEEDS for _, value in p.seeds.values()
        ]
        low, high = min([low, *seeds]), max([high, *seeds])
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    lowest, highest = panel.limits
    if lowest is not None and highest is not None:
        missing = _LEAST_SHARE * (highest - lowest) - (high - low)
        margin = max(margin, missing / 2)
    bottom, top = low - margin, high + margin
    if lowest is not None:
        bottom = lowest - 0.02 * (top - lowest) if panel.from_limits else max(bottom, lowest)
    if highest is not None:
        top = highest + 0.02 * (highest - bottom) if panel.from_limits else min(top, highest)
    if bottom < top:
        axes.set_ylim(bottom, top)
    if axes.get_xlim()[0] < 0:  # neither labels nor costs can be
        axes.set_xlim(left=0)


def image(figure: Figure, kind: Kind) -> bytes:
    """Return the bytes of the figure's file, the same for the same figure; SVG text is outlines."""
    return save(figure, kind, font="path", salt="report", facecolor="white")


def save(figure: Figure, kind: Kind, *, font: str, salt: str, facecolor: str) -> bytes:
    """Return the bytes of a figure; `salt` decides the ids of an SVG, `font` how it has text."""
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    metadata = {
        "svg": nothing,
        "png": {"Software": None},
        "pdf": dict.fromkeys(("Creator", "Producer", "CreationDate")),
    }[kind]
    with (
        matplotlib.rc_context({"svg.fonttype": font, "svg.hashsalt": salt, "pdf.fonttype": 42}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in any script
        figure.savefig(buffer, format=kind, dpi=200, facecolor=facecolor, metadata=metadata)
    return buffer.getvalue()
