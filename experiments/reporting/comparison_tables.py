"""The report's further tables: cycle by cycle, pair by pair, ranks, and labels saved."""

from __future__ import annotations

from experiments.reporting.grouping import BASELINE
from experiments.reporting.statistics import CONFIDENCE, Comparison
from experiments.reporting.summary import Summary
from experiments.reporting.tables import NONE, Table, count
from experiments.reporting.verdicts import NOT_DISTINGUISHABLE, pair_verdict


def further_tables(summary: Summary) -> dict[str, Table]:
    """Those that the experiment has numbers for, under their headings."""
    tables = {
        f"Labels saved to reach what {BASELINE} reaches": saving_table(summary),
        f"Against {BASELINE}, cycle by cycle (Holm over all cells)": cycle_table(summary),
        "Every pair, over the curve (Holm over all pairs)": pair_table(summary),
        "Pairwise penalty matrix (Ash et al., 2020)": penalty_table(summary),
        "Mean ranks": rank_table(summary),
    }
    return {heading: table for heading, table in tables.items() if table is not None}


def cycle_table(summary: Summary) -> Table | None:
    """A row a strategy, a column a cycle: the difference to the baseline, marked where it is
    distinguishable after Holm's correction over all cells.
    """
    cells = summary.cycle_comparisons
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
    return Table(header, tuple(rows)) if rows else None


def pair_table(summary: Summary) -> Table | None:
    """The verdict on each row's strategy against each column's, over the curve."""
    labels = [label for label in summary.experiment.runs if label in summary.areas]
    if len(labels) < 3:  # two are in the table of results
        return None
    metric, opposite = summary.experiment.metric, {"better": "worse", "worse": "better"}

    def cell(row: str, column: str) -> str:
        for pair in ((row, column), (column, row)):
            comparison = summary.pairs.get(pair)
            if comparison is not None and comparison.p_value is not None:
                word = pair_verdict(comparison, metric)
                word = word if pair == (row, column) else opposite.get(word, word)
                return "no difference shown" if word == NOT_DISTINGUISHABLE else word
        return NONE

    rows = [(row, *(cell(row, column) for column in labels)) for row in labels]
    words = frozenset(range(1, len(labels) + 1))
    return Table(("row against column", *labels), tuple(rows), words=words)


def penalty_table(summary: Summary) -> Table | None:
    """The pairwise penalty matrix of Ash et al. (2020), with the columns' means."""
    penalties = summary.penalties
    if penalties is None or len(penalties.labels) < 3:
        return None
    rows = [
        (label, *(NONE if a == b else f"{cell:.2f}" for b, cell in enumerate(row)))
        for a, (label, row) in enumerate(zip(penalties.labels, penalties.cells, strict=True))
    ]
    means = ("mean (less is better)", *(f"{value:.2f}" for value in penalties.columns))
    return Table(("share of cycles won", *penalties.labels), (*rows, means))


def rank_table(summary: Summary) -> Table | None:
    """Mean ranks, the best first, and which strategies the critical difference leaves together."""
    ranks = summary.ranks
    if ranks is None:
        return None
    letters = {clique: chr(ord("a") + number) for number, clique in enumerate(ranks.cliques)}
    rows = [
        (
            label,
            f"{rank:.2f}",
            " ".join(letter for clique, letter in letters.items() if label in clique) or NONE,
        )
        for label, rank in ranks.mean_ranks.items()
    ]
    return Table(("strategy", "mean rank", "not told apart"), tuple(rows))


def rank_sentence(summary: Summary) -> str:
    """What the mean ranks are and what their differences mean."""
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
    """Labels saved to reach what the baseline reaches at the middle and the end of the budget."""
    if not summary.savings:
        return None
    first = next(iter(summary.savings.values()))
    heads = [f"saved of {count(saving.num_labeled)}" for saving in first]
    rows = []
    for label, found in summary.savings.items():
        cells = []
        for saving in found:
            reached = f"{saving.num_reached} of {saving.num_seeds}"
            if saving.saved is None:
                cells.append(f"never reached ({reached})")
                continue
            e = saving.saved
            half = "" if e.half_width is None else f" ± {e.half_width:.0f}"
            cells.append(f"{e.mean:+.0f}{half} (reached in {reached})")
        rows.append((label, *cells))
    return Table(("labels", *heads), tuple(rows))
