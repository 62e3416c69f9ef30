"""The report as one self-contained page, laid out by the template `page.html.jinja`. A small script
of the page sorts its tables and shows the values of its figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args
from urllib.parse import quote

from markupsafe import Markup

from experiments.metrics.columns import column
from experiments.reporting import figure_files
from experiments.reporting.class_views import (
    Matrix,
    calibration_sentence,
    class_table,
    matrix,
    mistakes,
)
from experiments.reporting.comparison_tables import (
    further_tables,
    overall_tables,
    rank_sentence,
    saving_table,
)
from experiments.reporting.figures import Style
from experiments.reporting.gallery import (
    Gallery,
    Room,
    Thumbnail,
    data_uri,
    galleries,
    link,
    num_bytes,
)
from experiments.reporting.grouping import BASELINE
from experiments.reporting.headline import headline
from experiments.reporting.html import render as render_template
from experiments.reporting.inline_figures import inline_svg
from experiments.reporting.markdown import area_range, method
from experiments.reporting.overall import over_all, sentence
from experiments.reporting.panels import Drawing, Place, drawings, overall_drawings
from experiments.reporting.summary import Summary
from experiments.reporting.tables import (
    cost_table,
    curve_table,
    history_table,
    provenance_facts,
    result_table,
    run_id,
    run_table,
)
from experiments.reporting.text_table import Table


@dataclass(frozen=True)
class Shown:
    """A figure on the page; `files` are its links by kind of file."""

    caption: str
    svg: Markup
    files: Mapping[str, str]


@dataclass(frozen=True)
class Behind:
    """Test images behind a cell of the confusion matrix."""

    anchor: str
    about: str
    images: Sequence[Thumbnail]


@dataclass(frozen=True)
class Section:
    """Everything that the template shows of one experiment."""

    title: str
    headline: str
    range: str
    num_runs: int
    notes: Sequence[str]
    results: Table | None
    curves_title: str
    curves: Table | None
    drawings: Mapping[str, Sequence[Shown]]  # by the place on the page
    savings: Table | None
    classes: Table | None
    matrix: Matrix | None
    behind: Sequence[Behind]
    calibration: str
    further: Mapping[str, Table]
    ranks: str
    tau: Table | None
    costs: Table
    galleries: Sequence[Gallery]
    runs: Table
    links: Mapping[str, str]  # run id to its folder, relative to that of the report
    facts: Mapping[str, str]


def render(
    summaries: Sequence[Summary], look: Mapping[str, Style], root: Path, *, out: Path
) -> str:
    """Return the page's HTML; run folders are named below `root` and linked from `out`."""
    room = Room()
    shown, gallery_note = galleries([s.experiment for s in summaries], room=room, out=out)
    places = figure_files.folders([s.experiment.title for s in summaries])
    sections = [
        _section(summary, root, out, shown.get(summary.experiment.title, []),
                 _figures(drawings(summary), look, place, number), number, room)
        for number, (summary, place) in enumerate(zip(summaries, places, strict=True), start=1)
    ]  # fmt: skip
    together = over_all(summaries)
    return render_template(
        Path(__file__).with_name("page.html.jinja"),
        sections=sections,
        overall=None
        if together is None
        else {
            "sentence": sentence(together),
            "tables": overall_tables(together),
            "figures": _figures(overall_drawings(together), look, figure_files.OVERALL, 0)["saved"],
        },
        method=method(summaries),
        gallery_note=gallery_note,
        baseline=BASELINE,
    )


def _figures(
    found: Sequence[Drawing], look: Mapping[str, Style], folder: str, number: int
) -> dict[str, list[Shown]]:
    by_place: dict[str, list[Shown]] = {place: [] for place in get_args(Place)}
    for drawing in found:
        # The texts of the SVG are escaped by what writes its elements.
        salt = f"{drawing.name}-{number}"
        svg = Markup(
            inline_svg(drawing.panel, drawing.look(look), salt=salt, about=drawing.caption)
        )
        files = {kind: quote(path) for kind, path in figure_files.links(drawing, folder).items()}
        by_place[drawing.place].append(Shown(drawing.caption, svg, files))
    return by_place


def _section(
    summary: Summary,
    root: Path,
    out: Path,
    shown: Sequence[Gallery],
    figures: Mapping[str, Sequence[Shown]],
    number: int,
    room: Room,
) -> Section:
    experiment, run = summary.experiment, summary.only_run
    runs, metric = experiment.all_runs, column(experiment.metric)
    has_curves = any(summary.curves.values())
    curves = curve_table(summary.curves) if has_curves else None
    alone = next(iter(summary.classes.values()), None) if len(experiment.runs) == 1 else None
    errors = mistakes(alone, f"cell-{number}") if alone else []
    behind = [
        Behind(
            each.anchor,
            each.about,
            [
                Thumbnail(image.name, "", "", data_uri(file), link(file, out))
                for image in each.images
                if _takes(room, file := each.folder / image.file)
            ],
        )
        for each in errors
    ]
    behind = [each for each in behind if each.images]
    kept = {each.anchor for each in behind}
    return Section(
        title=experiment.title,
        headline=headline(summary),
        range=area_range(summary),
        num_runs=len(runs),
        notes=summary.notes,
        results=result_table(summary) if len(experiment.runs) > 1 else None,
        curves_title="Cycle by cycle" if run else f"Learning curves: {metric.label}",
        curves=history_table(run) if run and has_curves else curves,
        drawings=figures,
        savings=saving_table(summary),
        classes=class_table(summary),
        matrix=matrix(alone, [each for each in errors if each.anchor in kept]) if alone else None,
        behind=behind,
        calibration=calibration_sentence(summary),
        further=further_tables(summary),
        ranks=rank_sentence(summary),
        tau=curve_table(summary.tau) if summary.tau else None,
        costs=cost_table(summary),
        galleries=shown,
        runs=run_table(runs, root),
        links={run_id(run, root): link(run.folder, out) for run in runs},
        facts=provenance_facts(runs),
    )


def _takes(room: Room, file: Path) -> bool:
    """Return whether a file fits into the page, and take its room."""
    size = num_bytes(file)
    fits = 0 < size <= room.thumbnails
    room.thumbnails -= size if fits else 0
    return fits
