"""The report as Markdown: a part for the terminal, and `report.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments.metrics.columns import column
from experiments.reporting.comparison_tables import (
    further_tables,
    overall_tables,
    rank_sentence,
    saving_table,
)
from experiments.reporting.grouping import BASELINE
from experiments.reporting.headline import headline
from experiments.reporting.numbers import count
from experiments.reporting.overall import Overall, over_all, sentence
from experiments.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, POWER
from experiments.reporting.summary import Summary
from experiments.reporting.tables import (
    cost_table,
    curve_table,
    history_table,
    provenance_facts,
    result_table,
    run_table,
)
from experiments.reporting.text_table import escape, render

_INTERVALS = (
    f"Means over seeds with {CONFIDENCE:.0%} Student t intervals, from {FEWEST_SEEDS} seeds on."
)
_AREA = (
    "The area under the budget curve is the mean of the metric over the budget range (trapezoid "
    "rule), for each seed first."
)
_COMPARISONS = (
    f"Differences to {BASELINE} are paired by seed; their intervals and p-values are those of "
    "paired t tests, Holm-corrected over the strategies, and an interval that contains zero reads "
    "'not distinguishable at these seeds'. The number of seeds that would tell is that which a t "
    f"test needs for a difference of the observed size, with a chance of {POWER:.0%}. Labels saved "
    "are averaged over the seeds that reach the level; they have an interval only if all do. "
    "Intervals in figures are for each cycle by itself, uncorrected."
)


def method(summaries: Sequence[Summary]) -> str:
    """Return how the numbers of the report are made, as far as it has such numbers."""
    parts = []
    if any(len(runs) > 1 for s in summaries for runs in s.experiment.runs.values()):
        parts.append(_INTERVALS)
    if any(len(s.experiment.runs) > 1 for s in summaries):
        parts.append(_AREA)
    if any(s.is_comparison for s in summaries):
        parts.append(_COMPARISONS)
    return " ".join(parts)


def area_range(summary: Summary) -> str:
    """Return the metric and the range of labels that areas are taken over."""
    name = column(summary.experiment.metric).label
    if not summary.area_range:
        return f"Metric: {name}."
    low, high = map(count, summary.area_range)
    return f"Metric: {name}; area from {low} to {high} labeled images."


def results(summary: Summary, *, width: int | None = None) -> str:
    """Return the part for the terminal: headline, results, cycle by cycle, and the notes.

    Tables are at most `width` characters wide, as far as their columns permit.
    """
    experiment, run = summary.experiment, summary.only_run
    parts = [f"## {escape(experiment.title)}\n", escape(headline(summary)) + "\n"]
    if len(experiment.runs) > 1:
        parts += [escape(area_range(summary)) + "\n", render(result_table(summary), width=width)]
    if summary.sentences:
        parts += [*(f"- {escape(sentence)}" for sentence in summary.sentences), ""]
    if any(summary.curves.values()):
        table = history_table(run) if run else curve_table(summary.curves)
        parts.append(render(table, width=width))
    parts += [f"- {escape(note)}" for note in summary.notes]
    return "\n".join(parts).rstrip() + "\n"


def overall(together: Overall, *, width: int | None = None) -> str:
    """Return the part on all experiments together."""
    parts = ["## All experiments together\n", escape(sentence(together)) + "\n"]
    for heading, table in overall_tables(together).items():
        parts += [f"### {escape(heading)}\n", render(table, width=width)]
    return "\n".join(parts)


def document(summaries: Sequence[Summary], root: Path) -> str:
    """Return the text of report.md; run folders are given below `root`."""
    parts = ["# Active learning report\n", "![learning curves](learning_curves.png)\n"]
    if (together := over_all(summaries)) is not None:
        parts.append(overall(together))
    for summary in summaries:
        runs = summary.experiment.all_runs
        parts.append(results(summary))
        if savings := saving_table(summary):
            parts += [f"### Labels saved to reach what {BASELINE} reaches\n", render(savings)]
        for heading, table in further_tables(summary).items():
            parts += [f"### {heading}\n", render(table)]
        if summary.ranks:
            parts.append(escape(rank_sentence(summary)) + "\n")
        if summary.tau:
            parts += ["### Loss-ranking Kendall tau\n", render(curve_table(summary.tau))]
        if summary.costs:
            parts += ["### Cost\n", render(cost_table(summary))]
        parts += ["### Provenance\n", render(run_table(runs, root))]
        facts = provenance_facts(runs)
        parts += [f"- {escape(key)}: {escape(value)}" for key, value in facts.items()]
        parts.append("")
    if text := method(summaries):
        parts += ["## How the numbers are made\n", text + "\n"]
    return "\n".join(parts)
