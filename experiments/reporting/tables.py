"""Tables of the report on one experiment, as text in cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from experiments.metrics.columns import SECONDS, column
from experiments.reporting.curves import Curve
from experiments.reporting.grouping import BASELINE
from experiments.reporting.numbers import (
    NONE,
    count,
    decimals_of,
    estimate_text,
    p_text,
    seconds_text,
)
from experiments.reporting.runs import Run, one_line
from experiments.reporting.statistics import CONFIDENCE, FEWEST_SEEDS, Estimate
from experiments.reporting.summary import Summary
from experiments.reporting.text_table import Table
from experiments.reporting.verdicts import is_tested, more_seeds


def result_table(summary: Summary) -> Table:
    """Return one row for each strategy: area under the budget curve, the metric at its end, and the
    difference to the baseline. Columns without a value are left out.
    """
    runs, points = summary.experiment.runs, _last_points(summary)
    decimals = decimals_of([e.mean for e in (*summary.areas.values(), *points.values())])
    seeds = max((e.num_seeds for e in summary.areas.values()), default=0)
    compared = summary.comparisons.values()
    labels = count(summary.area_range[1]) if summary.area_range else ""
    rows = [
        (
            label,
            *_comparison(summary, label, decimals),
            _estimate(summary.areas.get(label), decimals, num_seeds=len(runs[label])),
            _estimate(points.get(label), decimals, num_seeds=len(runs[label])),
            p_text(p) if (p := _p_value(summary, label)) is not None else NONE,
            str(len(runs[label])),
            more_seeds(summary.comparisons.get(label)) or NONE,
        )
        for label in runs
    ]
    header = (
        "strategy",
        f"against {BASELINE}",
        "difference [interval]" if any(map(is_tested, compared)) else "difference",
        f"area, {CONFIDENCE:.0%} interval" if seeds >= FEWEST_SEEDS else "area",
        f"at {labels} labels",
        "Holm p",
        "seeds",
        "more seeds to tell",
    )
    return Table(header, tuple(rows), words=frozenset({1})).without_empty_columns()


def _last_points(summary: Summary) -> dict[str, Estimate]:
    """Return the metric at the last cycle of the area, by strategy."""
    if not summary.area_range:
        return {}
    last = summary.cycles[-1]
    return {
        label: point.estimate
        for label, curve in summary.curves.items()
        for point in curve
        if point.cycle == last
    }


def _comparison(summary: Summary, label: str, decimals: int) -> tuple[str, str]:
    if not summary.is_comparison:
        return NONE, NONE
    if label == BASELINE:
        return "the baseline", NONE
    comparison = summary.comparisons.get(label)
    if comparison is None:
        return summary.verdicts[label], NONE
    return summary.verdicts[label], estimate_text(comparison.difference, decimals, signed=True)


def _p_value(summary: Summary, label: str) -> float | None:
    comparison = summary.comparisons.get(label)
    return comparison.p_value if comparison and is_tested(comparison) else None


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """Return one row for each strategy and one column for each cycle, headed by its labels.

    A cell ends with (n=2) where fewer seeds have the cycle than the most of that strategy.
    """
    points = [point for curve in curves.values() for point in curve]
    decimals = decimals_of([point.estimate.mean for point in points])
    cells = pd.DataFrame(
        [
            (label, p.cycle, p.x, _estimate(p.estimate, decimals, num_seeds=_most_seeds(curve)))
            for label, curve in curves.items()
            for p in curve
        ],
        columns=["strategy", "cycle", "x", "text"],
    )
    heads = [
        count(x.iloc[0]) if x.nunique() == 1 else f"cycle {cycle}"
        for cycle, x in cells.groupby("cycle")["x"]
    ]
    wide = cells.pivot(index="strategy", columns="cycle", values="text").reindex(list(curves))
    rows = wide.fillna(NONE).itertuples(name=None)
    return Table(("labeled images", *heads), tuple(rows))


def _most_seeds(curve: Curve) -> int:
    return max(point.estimate.num_seeds for point in curve)


def history_table(run: Run) -> Table:
    """Return one row for each cycle of a single run: labels, metrics, seconds of training."""
    counts = [name for name in run.columns if name.startswith("num_labeled")]
    others = [m for m in run.metrics if m != run.metric and not column(m).is_member]
    wanted = [*counts, run.metric, *others, "seconds_fit"]
    names = [name for name in wanted if name in run.columns]
    decimals = {name: decimals_of(list(run.series(name).values())) for name in names}

    def cell(row: Mapping[str, float | None], name: str) -> str:
        value = row[name]
        if value is None:
            return NONE
        if name in counts:
            return count(value)
        is_time = column(name).unit == "s"
        return seconds_text(value) if is_time else f"{value:.{decimals[name]}f}"

    rows = [(str(int(row["cycle"] or 0)), *(cell(row, name) for name in names)) for row in run.rows]
    heads = (column(name).label for name in names)
    return Table(("cycle", *heads), tuple(rows)).without_empty_columns()


def class_table(run: Run) -> Table | None:
    """Return one row for each metric of a single class and one column for each cycle of a run."""
    names = [name for name in run.metrics if column(name).is_member]
    if not names or not run.rows:
        return None
    decimals = decimals_of([value for name in names for value in run.series(name).values()])
    rows = [
        (
            column(name).label,
            *(NONE if (v := row[name]) is None else f"{v:.{decimals}f}" for row in run.rows),
        )
        for name in names
    ]
    return Table(
        ("labeled images", *(count(row["num_labeled"] or 0) for row in run.rows)), tuple(rows)
    )


def cost_table(summary: Summary) -> Table:
    """Return one row for each strategy: seconds a cycle by phase, of all runs, and peak memory."""
    costs = summary.costs
    phases = list(dict.fromkeys(phase for cost in costs.values() for phase in cost.seconds))
    rows = []
    for label, cost in costs.items():
        cells = [seconds_text(cost.seconds[p]) if p in cost.seconds else NONE for p in phases]
        memory = NONE if cost.peak_memory_mb is None else count(cost.peak_memory_mb)
        cycle = seconds_text(sum(cost.seconds.values()))
        rows.append((label, *cells, cycle, seconds_text(cost.total_seconds), memory))
    titles = (column(SECONDS + phase).title for phase in phases)
    header = ("seconds a cycle", *titles, "all phases", "all runs together", "peak memory, MB")
    return Table(header, tuple(rows)).without_empty_columns()


def run_table(runs: Sequence[Run], root: Path) -> Table:
    """Return one row for each run: its folder (below `root`), cycles, state, commit and start."""
    rows = []
    for run in runs:
        started = one_line(run.provenance.get("started") or "unknown")
        state = "finished" if run.finished else "unfinished"
        row = (run_id(run, root), str(len(run.rows)), state, commit_of(run), started[:19])
        rows.append(row)
    header = ("run folder", "cycles", "state", "commit", "started")
    return Table(header, tuple(rows), words=frozenset({2, 3, 4}))


def run_id(run: Run, root: Path) -> str:
    """Return the name of a run in every file of a report: its folder, below `root` if it is."""
    inside = run.folder.is_relative_to(root)
    return (run.folder.relative_to(root) if inside else run.folder).as_posix()


def provenance_facts(runs: Sequence[Run]) -> dict[str, str]:
    """Return commit, versions and hardware of all runs; differing values are joined by a slash."""
    facts: dict[str, dict[str, None]] = {}
    for run in runs:
        facts.setdefault("commit", {})[commit_of(run)] = None
        for group in ("versions", "hardware"):
            value = run.provenance.get(group)
            items = value.items() if isinstance(value, dict) else [(group, value or "unknown")]
            for key, text in items:
                fact = "none" if text is None else one_line(text)
                facts.setdefault(one_line(key), {})[fact] = None
    return {key: " / ".join(values) for key, values in facts.items()}


def commit_of(run: Run) -> str:
    """Return twelve digits of the commit, and the run's own mark if the code had been changed."""
    digits, *changed = one_line(run.provenance.get("commit") or "unknown").split("-")
    return "-".join([digits[:12], *changed])


def _estimate(e: Estimate | None, decimals: int, *, num_seeds: int | None = None) -> str:
    if e is None:
        return NONE
    fewer = num_seeds is not None and e.num_seeds < num_seeds
    return estimate_text(e, decimals) + (f" (n={e.num_seeds})" if fewer else "")
