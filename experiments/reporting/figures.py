"""Learning curves with matplotlib, without pyplot and its global figures. A strategy has one
style in every figure of a report; the baseline is gray and dashed.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.reporting.curves import Curve, Point
from experiments.reporting.grouping import BASELINE

# Okabe and Ito's palette for the color-blind, without black and yellow: for light and dark pages.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_MARKERS = ("s", "^", "D", "v", "P", "X", "<", ">")
_DASHES = ("-", "--", "-.", ":")
_INK = "#0a0b0c"  # stands for the page's text color in an inline figure
_CURVE = "curve-"  # and its number: the id of a curve's group in the SVG
_WIDTH, _HEIGHT = 4.8, 3.1  # inches: small, so that text stays readable on a phone


@dataclass(frozen=True)
class Panel:
    """One set of axes: curves by strategy, in the order of the legend."""

    title: str
    y_label: str
    curves: Mapping[str, Curve]
    to_baseline: bool = False  # the curves are differences: mark the baseline's zero
    x_label: str = "labeled images"
    steps: bool = False  # the curves keep their value up to the next point


Style = dict[str, Any]


def styles(labels: Sequence[str]) -> dict[str, Style]:
    """A style for each label; more strategies than colors differ by marker and dashes too."""
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
    """The panels one below the other, each with its own legend below it."""
    rows = [-(-len(panel.curves) // _legend_columns(panel)) for panel in panels]
    heights = [_HEIGHT + 0.2 * row + (0.3 if panel.title else 0)
               for row, panel in zip(rows, panels, strict=True)]  # fmt: skip
    figure = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), squeeze=False)
    for axes, panel in zip(grid[:, 0], panels, strict=True):
        _draw_panel(axes, panel, look, ink)
    return figure


def _draw_panel(axes: Axes, panel: Panel, look: Mapping[str, Style], ink: str) -> None:
    lines = []
    shade = 0.18 * min(1, 5 / max(1, len(panel.curves)))  # many bands lie on one another
    axes.set_facecolor("none")
    if panel.to_baseline:
        axes.axhline(0, **{**look.get(BASELINE, {}), "marker": None}, linewidth=1.2)
    for label, curve in panel.curves.items():
        style = look[label]
        x = [point.x for point in curve]
        mean = [point.estimate.mean for point in curve]
        how = "steps-post" if panel.steps else "default"
        lines += axes.plot(x, mean, markersize=4, linewidth=1.5, drawstyle=how, **style)
        lines[-1].set_gid(f"{_CURVE}{len(lines) - 1}")
        band = [p for p in curve if p.estimate.low is not None]
        axes.fill_between(
            [p.x for p in band],
            [p.estimate.low or 0.0 for p in band],
            [p.estimate.high or 0.0 for p in band],
            color=style["color"], alpha=shade, linewidth=0,
        )  # fmt: skip
    _limit(axes, [point for curve in panel.curves.values() for point in curve])
    axes.grid(color=ink, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(ink)
    axes.tick_params(colors=ink, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=not panel.steps, steps=[1, 2, 2.5, 5, 10]))
    texts = [
        axes.set_xlabel(panel.x_label, color=ink, fontsize=9),
        axes.set_ylabel(panel.y_label, color=ink, fontsize=9),
    ]
    if panel.title:
        title = textwrap.fill(panel.title, 60)  # matplotlib's own wrapping reads $ as mathematics
        texts.append(axes.set_title(title, color=ink, fontsize=9, loc="left"))
    if lines:
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


def _legend_columns(panel: Panel) -> int:
    """As many columns as fit, each as wide as its longest entry; entries go down the columns."""
    inches = [0.45 + 0.067 * len(label) for label in panel.curves]
    for columns in range(min(6, len(inches)), 1, -1):
        rows = -(-len(inches) // columns)
        if sum(max(inches[k : k + rows]) for k in range(0, len(inches), rows)) <= _WIDTH:
            return columns
    return 1


def _limit(axes: Axes, points: Sequence[Point]) -> None:
    """Keep a wide interval of few seeds from flattening the curves: bands may be cut off where
    they reach further beyond the means than the means' own spread.
    """
    means = [point.estimate.mean for point in points]
    if not means or (spread := max(means) - min(means)) <= 0:
        return
    bands = [(p.estimate.low, p.estimate.high) for p in points]
    low = max(min([*means, *(b for b, _ in bands if b is not None)]), min(means) - spread)
    high = min(max([*means, *(b for _, b in bands if b is not None)]), max(means) + spread)
    margin = 0.04 * (high - low)
    axes.set_ylim(low - margin, high + margin)


def image(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's bytes, the same for the same figure; SVG text as outlines."""
    return _save(figure, kind, font="path", salt="report", facecolor="white")


def inline_svg(panel: Panel, look: Mapping[str, Style], *, salt: str) -> str:
    """An `<svg>` element for a page: its text in the page's font and color, its ids unlike those
    of another `salt`, no fixed size, nothing to fetch; each marker has its values as a title.
    """
    figure = draw([panel], look, ink=_INK)
    text = _save(figure, "svg", font="none", salt=salt, facecolor="none").decode()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    for number, (label, curve) in enumerate(panel.curves.items()):
        text = _with_titles(text, f"{_CURVE}{number}", [_title(label, p, panel) for p in curve])
    text = re.sub(rf' id="{_CURVE}\d+"', ' class="curve"', text)
    used = set(
        re.findall(r"(?:href=\"|url\()#([^\")]+)", text)
    )  # the other ids repeat in every figure
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', text, count=1)


def _title(label: str, point: Point, panel: Panel) -> str:
    e = point.estimate
    interval = "" if e.low is None else f" [{e.low:.4g}, {e.high:.4g}], {e.num_seeds} seeds"
    return f"{label}: {e.mean:.4g}{interval}, at {point.x:.4g} {panel.x_label}"


def _with_titles(text: str, group: str, titles: Sequence[str]) -> str:
    """Put a title into each marker of a curve's group, for the pointer to rest on."""
    start = text.index(f'<g id="{group}">')
    end = text.index("\n   <g ", text.index("<use ", start)) if "<use " in text[start:] else start
    waiting = iter(titles)

    def titled(marker: re.Match[str]) -> str:
        return f"{marker[1]}><title>{html.escape(next(waiting, ''))}</title></use>"

    part = re.sub(r"(<use [^>]*?)\s*/>", titled, text[start:end])
    assert next(waiting, None) is None, "a marker is missing"
    return text[:start] + part + text[end:]


def _save(figure: Figure, kind: str, *, font: str, salt: str, facecolor: str) -> bytes:
    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    metadata = nothing if kind == "svg" else {"Software": None}
    with (
        matplotlib.rc_context({"svg.fonttype": font, "svg.hashsalt": salt}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in any script
        figure.savefig(buffer, format=kind, dpi=200, facecolor=facecolor, metadata=metadata)
    return buffer.getvalue()
