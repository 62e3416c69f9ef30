"""Further tables: classes of a single run; cycle by cycle, pair by pair, ranks, labels saved."""

from __future__ import annotations

from experiments.metrics.columns import column
from experiments.reporting.grouping import BASELINE
from experiments.reporting.labels_needed import Saving
from experiments.reporting.numbers import NONE, count, estimate_text
from experiments.reporting.overall import Overall, rank_rows
from experiments.reporting.rankings import Penalties
from experiments.reporting.runs import Run
from experiments.reporting.statistics import CONFIDENCE, Comparison
from experiments.reporting.stopping import stop
from experiments.reporting.summary import Summary
from experiments.reporting.suspects import RELABEL, read_suspects
from experiments.reporting.tables import class_table
from experiments.reporting.text_table import Table
from experiments.reporting.verdicts import NOT_DISTINGUISHABLE, is_tested, pair_verdict
from experiments.settings.stop_settings import STABILIZING, StopSettings

SHOWN_SUSPECTS = 20
"""Labels that look wrong in the report; the file has all."""


def further_tables(summary: Summary) -> dict[str, Table]:
    """Return the tables that the experiment has numbers for, by their headings."""
    run = summary.only_run
    tables = {
        "Each class, cycle by cycle": class_table(run) if run and not summary.classes else None,
        "Labels that look wrong": suspect_table(run) if run else None,
        f"Against {BASELINE}, cycle by cycle (Holm over all cells)": cycle_table(summary),
        "Every pair, over the curve (Holm over all pairs)": pair_table(summary),
        "Pairwise penalty matrix (Ash et al., 2020)": penalty_table(summary),
        "Mean ranks": rank_table(summary),
        "When predictions were stable": stop_table(summary),
    }
    return {heading: table for heading, table in tables.items() if table is not None}


def suspect_table(run: Run) -> Table | None:
    """Return the labels of a run that look wrong, the most suspicious first."""
    found = read_suspects(run.folder)
    rows = [
        (one.name, one.label, one.suggested, f"{one.p_label:.2f}", f"{one.p_suggested:.2f}")
        for one in found[:SHOWN_SUSPECTS]
    ]
    more = len(found) - len(rows)
    if more:
        rows.append((f"and {more} more in {RELABEL}", "", "", "", ""))
    header = ("image", "label", "seems to be", "probability of the label", "of what it seems to be")
    return Table(header, tuple(rows)) if rows else None


def cycle_table(summary: Summary) -> Table | None:
    """Return one row for each strategy and one column for each cycle with the difference to the
    baseline, marked where it is distinguishable after Holm's correction over all cells.
    """
    cells = summary.cycle_comparisons
    if not any(is_tested(c) for by_cycle in cells.values() for c in by_cycle.values()):
        return None
    cycles = sorted({cycle for by_cycle in cells.values() for cycle in by_cycle})
    metric = summary.experiment.metric

    def cell(comparison: Comparison | None) -> str:
        if comparison is None:
            return NONE
        word = pair_verdict(comparison, metric)
        text = f"{comparison.difference.mean:+.3g}"
        return text if word == NOT_DISTINGUISHABLE else f"{text} {word}"

    rows = [(la, *(cell(by.get(cycle)) for cycle in cycles)) for la, by in cells.items()]
    header = (f"difference to {BASELINE}", *(f"cycle {cycle}" for cycle in cycles))
    return Table(header, tuple(rows))


def pair_table(summary: Summary) -> Table | None:
    """Return the verdict on each row's strategy against each column's, over the curve."""
    labels = [label for label in summary.experiment.runs if label in summary.areas]
    two_and_baseline = len(labels) < 3 and BASELINE in labels  # then it is in the table of results
    if two_and_baseline or not any(map(is_tested, summary.pairs.values())):
        return None
    metric, opposite = summary.experiment.metric, {"better": "worse", "worse": "better"}

    def cell(row: str, column: str) -> str:
        for pair in ((row, column), (column, row)):
            comparison = summary.pairs.get(pair)
            if comparison is not None and is_tested(comparison):
                word = pair_verdict(comparison, metric)
                word = word if pair == (row, column) else opposite.get(word, word)
                return "no difference shown" if word == NOT_DISTINGUISHABLE else word
        return NONE

    rows = [(row, *(cell(row, column) for column in labels)) for row in labels]
    words = frozenset(range(1, len(labels) + 1))
    return Table(("row against column", *labels), tuple(rows), words=words)


def penalty_table(summary: Summary) -> Table | None:
    """Return the pairwise penalty matrix of Ash et al. (2020), with the means of its columns."""
    penalties = summary.penalties
    if penalties is None or len(penalties.labels) < 3:
        return None
    return _penalties("share of cycles won", penalties)


def rank_table(summary: Summary) -> Table | None:
    """Return mean ranks, the best first; strategies not told apart share a letter."""
    ranks = summary.ranks
    if ranks is None:
        return None
    rows = [
        (label, f"{rank:.2f}", ranks.letters(label) or NONE)
        for label, rank in ranks.mean_ranks.items()
    ]
    return Table(("strategy", "mean rank", "not told apart"), tuple(rows))


def rank_sentence(summary: Summary) -> str:
    """Return the explanation of the mean ranks and of their differences."""
    ranks = summary.ranks
    if ranks is None:
        return ""
    return (
        f"Ranks of the areas over {ranks.num_blocks} seeds, 1 the best. Friedman's test of no "
        f"difference at all: p = {ranks.p_value:.2g}. Mean ranks less than "
        f"{ranks.critical_difference:.2f} apart (Nemenyi's critical difference, "
        f"{1 - CONFIDENCE:.0%}) share a letter."
    )


def saving_table(summary: Summary) -> Table | None:
    """Return the labels saved to reach what the baseline reaches at the middle and the end of the
    budget, with the number of seeds that reach it at all.
    """
    if not summary.savings:
        return None
    first = next(iter(summary.savings.values()))
    heads = [f"saved of {count(saving.num_labeled)}" for saving in first]
    rows = [(label, *map(_saving, found)) for label, found in summary.savings.items()]
    return Table(("labels", *heads), tuple(rows))


def stop_table(summary: Summary) -> Table | None:
    """Return the labels at which the usual stop rule would have ended the runs of each strategy,
    and what the metric would have lost.
    """
    rule = StopSettings(STABILIZING)
    found = {
        label: record
        for label, runs in summary.experiment.runs.items()
        if (record := stop(runs, summary.experiment.metric, rule))
    }
    if not any(record.num_stopped for record in found.values()):
        return None
    rows = [
        (
            label,
            f"{record.num_stopped} of {record.num_seeds}",
            NONE if record.num_labeled is None else count(record.num_labeled.mean),
            NONE if record.lost is None else estimate_text(record.lost, 2, signed=True),
        )
        for label, record in found.items()
    ]
    header = (
        f"kappa {rule.threshold:g} over {rule.window} cycles",
        "runs that stop early",
        "at labels",
        f"{column(summary.experiment.metric).title} that later labels add",
    )
    return Table(header, tuple(rows))


def overall_tables(overall: Overall) -> dict[str, Table]:
    """Return the tables of all experiments together, by their headings."""
    header = ("rank of the area", *overall.titles, "mean rank", "not told apart")
    tables = {"Ranks in each experiment": Table(header, tuple(rank_rows(overall)))}
    rows = [
        (label, *(_saving(by[t]) if t in by else NONE for t in overall.titles))
        for label, by in overall.savings.items()
        if by
    ]
    if rows:
        heading = f"Labels saved to reach what {BASELINE} reaches at the end"
        tables[heading] = Table(("labels", *overall.titles), tuple(rows))
    if (found := overall.penalties) is not None:
        heading = f"Pairwise penalty matrix, at most {len(overall.titles)} (Ash et al., 2020)"
        tables[heading] = _penalties("won against", found)
    return {heading: table.without_empty_columns() for heading, table in tables.items()}


def _penalties(corner: str, penalties: Penalties) -> Table:
    rows = [
        (label, *(NONE if a == b else f"{cell:.2f}" for b, cell in enumerate(row)))
        for a, (label, row) in enumerate(zip(penalties.labels, penalties.cells, strict=True))
    ]
    means = ("mean (less is better)", *(f"{value:.2f}" for value in penalties.columns))
    return Table((corner, *penalties.labels), (*rows, means))


def _saving(saving: Saving) -> str:
    seeds = f"({saving.num_reached} of {saving.num_seeds} seeds)"
    e = saving.saved
    if e is None:
        return f"never reached {seeds}"
    interval = e.shown_interval
    half = "" if interval is None else f" ± {interval[1] - e.mean:.0f}"
    return f"{round(e.mean):+d}{half} {seeds}"
