"""The report as Markdown: what the terminal shows and, with more below it, `report.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.reporting.comparison_tables import further_tables, rank_sentence
from experiments.reporting.runs import one_line
from experiments.reporting.statistics import CONFIDENCE, POWER
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

METHOD = (
    f"Means over seeds with {CONFIDENCE:.0%} Student t intervals. The area under the budget curve "
    "is the mean of the metric over the budget range (trapezoid rule), for each seed first. "
    "Differences to random are paired by seed; their intervals and p-values are those of paired "
    "t tests, Holm-corrected over the strategies, and an interval that contains zero reads "
    "'not distinguishable at these seeds'. How many more seeds would tell is what a t test needs "
    f"for a difference of the observed size, with a chance of {POWER:.0%}."
)


def render(table: Table) -> str:
    """`table` as Markdown with aligned columns."""
    cells = [[_escape(cell) for cell in row] for row in (table.header, *table.rows)]
    left = [column == 0 or column in table.words for column in range(len(table.header))]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]

    def line(row: Sequence[str]) -> str:
        pads = zip(row, widths, left, strict=True)
        return "| " + " | ".join(c.ljust(w) if at else c.rjust(w) for c, w, at in pads) + " |"

    rule = ["-" * w if at else "-" * (w - 1) + ":" for w, at in zip(widths, left, strict=True)]
    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])]) + "\n"


def _escape(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def results(summary: Summary) -> str:
    """The part for the terminal: results, the metric cycle by cycle, and the notes."""
    experiment = summary.experiment
    parts = [f"## {_escape(experiment.title)}\n"]
    area = ""
    if summary.area_range:
        low, high = map(count, summary.area_range)
        area = f"; area from {low} to {high} labeled images"
    parts.append(f"Metric: {_escape(experiment.metric)}{area}.\n")
    parts.append(render(result_table(summary)))
    parts += [f"- {_escape(sentence)}" for sentence in summary.sentences]
    parts.append("")
    if any(summary.curves.values()):
        parts.append(render(curve_table(summary.curves)))
    parts += [f"- {_escape(note)}" for note in summary.notes]
    return "\n".join(parts).rstrip() + "\n"


def document(summaries: Sequence[Summary], root: Path) -> str:
    """The text of report.md; run folders are given below `root`."""
    parts = [
        "# Active learning report\n",
        METHOD + "\n",
        "![learning curves](learning_curves.png)\n",
    ]
    for summary in summaries:
        runs = summary.experiment.all_runs
        parts.append(results(summary))
        for heading, table in further_tables(summary).items():
            parts += [f"### {heading}\n", render(table)]
        if summary.ranks:
            parts.append(_escape(rank_sentence(summary)) + "\n")
        if summary.tau:
            parts += ["### Loss-ranking Kendall tau\n", render(curve_table(summary.tau))]
        if summary.costs:
            parts += ["### Cost\n", render(cost_table(summary))]
        parts += ["### Provenance\n", render(run_table(runs, root))]
        facts = provenance_facts(runs)
        parts += [f"- {_escape(key)}: {_escape(value)}" for key, value in facts.items()]
        parts.append("")
    return "\n".join(parts)
