"""The report as one self-contained page: nothing to fetch (a policy in it forbids that too), every
text escaped by the template `page.html.jinja`, whose small script sorts tables and shows values.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup

from experiments.reporting.comparison_tables import further_tables, rank_sentence
from experiments.reporting.curves import Point
from experiments.reporting.figures import Panel, Style, inline_svg
from experiments.reporting.gallery import Gallery, galleries
from experiments.reporting.grouping import BASELINE
from experiments.reporting.markdown import METHOD
from experiments.reporting.statistics import Estimate
from experiments.reporting.summary import Summary
from experiments.reporting.tables import (
    Table,
    cost_table,
    count,
    curve_table,
    provenance_facts,
    result_table,
    run_id,
    run_table,
)

_GALLERY_BYTES = 1_100_000  # of image files; a third more as data URIs, so a page under 2 MB
_PROFILE_POINTS = 26  # as many as can be told apart


@dataclass(frozen=True)
class Drawing:
    """A figure with its heading and the sentence below that."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """What the template shows of one experiment."""

    title: str
    metric: str
    area_range: tuple[str, str] | None
    num_runs: int
    sentences: Sequence[str]
    notes: Sequence[str]
    results: Table
    curves: Table | None
    drawings: Sequence[Drawing]
    further: Mapping[str, Table]
    ranks: str
    tau: Table | None
    loss_drawings: Sequence[Drawing]
    costs: Table
    cost_drawings: Sequence[Drawing]
    galleries: Sequence[Gallery]
    runs: Table
    links: Mapping[str, str]  # run id to its folder, from the report's own
    facts: Mapping[str, str]


def render(
    summaries: Sequence[Summary], look: Mapping[str, Style], root: Path, *, out: Path
) -> str:
    """The page's HTML; run folders are given below `root`, and linked from the folder `out`."""
    shown, gallery_note = galleries([s.experiment for s in summaries], max_bytes=_GALLERY_BYTES)
    sections = [
        _section(summary, look, root, out, shown.get(summary.experiment.title, []), number)
        for number, summary in enumerate(summaries, start=1)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja")
    return page.render(sections=sections, method=METHOD, gallery_note=gallery_note, count=count)


def _section(
    summary: Summary,
    look: Mapping[str, Style],
    root: Path,
    out: Path,
    shown: Sequence[Gallery],
    number: int,
) -> Section:
    experiment = summary.experiment
    runs, metric = experiment.all_runs, experiment.metric
    area = summary.area_range

    def drawings(panels: Mapping[str, Panel]) -> list[Drawing]:
        # matplotlib escapes the texts of its own SVG
        return [
            Drawing(caption, Markup(inline_svg(panel, look, salt=f"{caption}-{number}")))
            for caption, panel in panels.items()
            if any(panel.curves.values())
        ]

    curves = {label: curve for label, curve in summary.curves.items() if curve}
    return Section(
        title=experiment.title,
        metric=metric,
        area_range=(count(area[0]), count(area[1])) if area else None,
        num_runs=len(runs),
        sentences=summary.sentences,
        notes=summary.notes,
        results=result_table(summary),
        curves=curve_table(summary.curves) if curves else None,
        drawings=drawings(
            {
                "Mean over seeds with its 95% interval": Panel("", metric, curves),
                f"Difference to {BASELINE}, paired by seed; 95% for each cycle, uncorrected": Panel(
                    "", f"{metric}, difference to {BASELINE}", summary.differences, True
                ),
                f"To reach what {BASELINE} reaches: share of seeds and cycles in which a strategy "
                "needs at most so many times the labels of the best": _profile(summary),
            }
        ),
        further=further_tables(summary),
        ranks=rank_sentence(summary),
        tau=curve_table(summary.tau) if summary.tau else None,
        loss_drawings=drawings(
            {"Kendall's tau, mean over seeds": Panel("", "Kendall tau", summary.tau)}
        ),
        costs=cost_table(summary),
        cost_drawings=drawings(
            {
                **{
                    f"The metric over {what}": Panel("", metric, over, x_label=what)
                    for what, over in summary.cost_curves.items()
                },
                "Scoring and querying, seconds a cycle": Panel(
                    "", "seconds", summary.query_seconds
                ),
            }
        ),
        galleries=shown,
        runs=run_table(runs, root),
        links={run_id(run, root): _link(run.folder, out) for run in runs},
        facts=provenance_facts(runs),
    )


def _link(folder: Path, out: Path) -> str:
    return quote(Path(os.path.relpath(folder, out)).as_posix())


def _profile(summary: Summary) -> Panel:
    """The Dolan-More profile as curves that keep their value up to the next point."""
    found, curves = summary.profile, {}
    if found is not None:
        grid = np.linspace(1.0, max(1.1, float(found.ratios[-1])), _PROFILE_POINTS)
        places = np.searchsorted(found.ratios, grid + 1e-9, side="right") - 1
        for label, shares in found.shares.items():
            curves[label] = tuple(
                Point(k, float(grid[k]), Estimate(float(shares[at]), None, None, 1))
                for k, at in enumerate(places)
            )
    return Panel("", "share", curves, x_label="times the labels of the best", steps=True)
