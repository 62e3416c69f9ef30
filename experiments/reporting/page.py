"""The report as one self-contained page: no script, nothing to fetch, every text escaped by the
template `page.html.jinja`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from experiments.reporting.figures import Panel, Style, inline_svg
from experiments.reporting.gallery import Gallery, galleries
from experiments.reporting.grouping import BASELINE
from experiments.reporting.markdown import METHOD
from experiments.reporting.summary import Summary
from experiments.reporting.tables import (
    Table,
    cost_table,
    count,
    curve_table,
    provenance_facts,
    result_table,
    run_table,
)

_GALLERY_BYTES = 1_100_000  # of image files; a third more as data URIs, so a page under 2 MB


@dataclass(frozen=True)
class Section:
    """What the template shows of one experiment."""

    title: str
    metric: str
    area_range: tuple[str, str] | None
    num_runs: int
    notes: Sequence[str]
    results: Table
    curves: Table | None
    figure: str
    difference_figure: str
    tau: Table | None
    tau_figure: str
    costs: Table
    galleries: Sequence[Gallery]
    runs: Table
    facts: Mapping[str, str]


def render(summaries: Sequence[Summary], look: Mapping[str, Style], root: Path) -> str:
    """The page's HTML; run folders are given below `root`."""
    shown, gallery_note = galleries([s.experiment for s in summaries], max_bytes=_GALLERY_BYTES)
    sections = [
        _section(summary, look, root, shown.get(summary.experiment.title, []), number)
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
    shown: Sequence[Gallery],
    number: int,
) -> Section:
    experiment = summary.experiment
    runs = experiment.all_runs
    curves = {label: curve for label, curve in summary.curves.items() if curve}
    area = summary.area_range
    return Section(
        title=experiment.title,
        metric=experiment.metric,
        area_range=(count(area[0]), count(area[1])) if area else None,
        num_runs=len(runs),
        notes=summary.notes,
        results=result_table(summary),
        curves=curve_table(summary.curves) if curves else None,
        figure=_figure(Panel("", experiment.metric, curves), look, f"curves-{number}"),
        difference_figure=_figure(
            Panel("", f"{experiment.metric}, difference to {BASELINE}", summary.differences, True),
            look,
            f"differences-{number}",
        ),
        tau=curve_table(summary.tau) if summary.tau else None,
        tau_figure=_figure(Panel("", "Kendall tau", summary.tau), look, f"tau-{number}"),
        costs=cost_table(summary),
        galleries=shown,
        runs=run_table(runs, root),
        facts=provenance_facts(runs),
    )


def _figure(panel: Panel, look: Mapping[str, Style], salt: str) -> Markup:
    # matplotlib escapes the texts of its own SVG
    return Markup(inline_svg(panel, look, salt=salt)) if panel.curves else Markup("")
