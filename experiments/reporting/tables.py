"""The report's tables as text cells, the same for the terminal, `report.md` and the page, and the
tidy rows of `report.csv`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.reporting.curves import Curve
from experiments.reporting.grouping import BASELINE
from experiments.reporting.runs import Run, one_line
from experiments.reporting.statistics import CONFIDENCE, Estimate
from experiments.reporting.summary import Summary
from experiments.reporting.verdicts import more_seeds

CSV_HEADER = (
    "experiment", "metric", "strategy", "cycle", "num_labeled", "num_seeds", "mean", "low", "high",
    "runs",
)  # fmt: skip
NONE = "\N{EN DASH}"


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row, and of the others those in `words` hold
    text and the rest numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset()


def result_table(summary: Summary) -> Table:
    """A row a strategy: seeds, area under the budget curve, and its difference to the baseline."""
    runs = summary.experiment.runs
    decimals = _decimals([e.mean for e in summary.areas.values()])
    return Table(
        (
            "strategy",
            f"area, {CONFIDENCE:.0%} interval",
            f"against {BASELINE}",
            "difference [interval]",
            "Holm p",
            "seeds",
            "more seeds to tell",
        ),
        tuple(
            (
                label,
                _estimate(summary.areas.get(label), decimals, num_seeds=len(runs[label])),
                *_comparison(summary, label, decimals),
                str(len(runs[label])),
                more_seeds(summary.comparisons.get(label)) or NONE,
            )
            for label in runs
        ),
        words=frozenset({2}),
    )


def _comparison(summary: Summary, label: str, decimals: int) -> tuple[str, str, str]:
    if label == BASELINE:
        return "the baseline", NONE, NONE
    comparison = summary.comparisons.get(label)
    if comparison is None:
        return summary.verdicts[label], NONE, NONE
    d = comparison.difference
    interval = "" if d.low is None else f" [{d.low:+.{decimals}f}, {d.high:+.{decimals}f}]"
    p = NONE if comparison.p_value is None else _p_value(comparison.p_value)
    return summary.verdicts[label], f"{d.mean:+.{decimals}f}{interval}", p


def curve_table(curves: Mapping[str, Curve]) -> Table:
    """A row a strategy, a column a cycle under its number of labels; (n=2) tells how many seeds
    have the cycle where it is fewer than the strategy's most.
    """
    points = [point for curve in curves.values() for point in curve]
    decimals = _decimals([point.estimate.mean for point in points])
    cycles = sorted({point.cycle for point in points})
    heads = []
    for cycle in cycles:
        counts = {point.x for point in points if point.cycle == cycle}
        heads.append(count(counts.pop()) if len(counts) == 1 else f"cycle {cycle}")
    rows = []
    for label, curve in curves.items():
        most = max((point.estimate.num_seeds for point in curve), default=0)
        cells = {p.cycle: _estimate(p.estimate, decimals, num_seeds=most) for p in curve}
        rows.append((label, *(cells.get(cycle, NONE) for cycle in cycles)))
    return Table(("labeled images", *heads), tuple(rows))


def cost_table(summary: Summary) -> Table:
    """A row a strategy: seconds a cycle by phase, seconds of all its runs, peak memory."""
    costs = summary.costs
    phases = list(dict.fromkeys(phase for cost in costs.values() for phase in cost.seconds))
    rows = []
    for label, cost in costs.items():
        cells = [_seconds(cost.seconds[p]) if p in cost.seconds else NONE for p in phases]
        memory = NONE if cost.peak_memory_mb is None else count(cost.peak_memory_mb)
        cycle = _seconds(sum(cost.seconds.values()))
        rows.append((label, *cells, cycle, _seconds(cost.total_seconds), memory))
    header = ("seconds a cycle", *phases, "all phases", "all runs together", "peak memory, MB")
    return Table(header, tuple(rows))


def run_table(runs: Sequence[Run], root: Path) -> Table:
    """A row a run: its folder (below `root`), cycles, state, commit and start."""
    rows = []
    for run in runs:
        started = one_line(run.provenance.get("started") or "unknown")
        state = "finished" if run.finished else "unfinished"
        row = (run_id(run, root), str(len(run.rows)), state, commit_of(run), started[:19])
        rows.append(row)
    header = ("run folder", "cycles", "state", "commit", "started")
    return Table(header, tuple(rows), words=frozenset({2, 3, 4}))


def run_id(run: Run, root: Path) -> str:
    """What a run is called in every file of a report: its folder, below `root` where it is."""
    inside = run.folder.is_relative_to(root)
    return (run.folder.relative_to(root) if inside else run.folder).as_posix()


def provenance_facts(runs: Sequence[Run]) -> dict[str, str]:
    """Commit, versions and hardware of all runs, every differing value once."""
    facts: dict[str, dict[str, None]] = {}
    for run in runs:
        facts.setdefault("commit", {})[commit_of(run)] = None
        for group in ("versions", "hardware"):
            value = run.provenance.get(group)
            items = value.items() if isinstance(value, dict) else [(group, value or "unknown")]
            for key, text in items:
                facts.setdefault(one_line(key), {})["none" if text is None else one_line(text)] = (
                    None
                )
    return {key: " / ".join(values) for key, values in facts.items()}


def commit_of(run: Run) -> str:
    """Twelve digits and, as the run wrote it, whether the code had been changed since."""
    digits, *changed = one_line(run.provenance.get("commit") or "unknown").split("-")
    return "-".join([digits[:12], *changed])


def csv_rows(summaries: Sequence[Summary], root: Path) -> list[tuple[str, ...]]:
    """The rows under CSV_HEADER, each with the runs behind it; an area's metric is named
    `<metric>_area`, without a cycle.
    """
    rows = []
    for summary in summaries:
        title, metric = summary.experiment.title, summary.experiment.metric
        ids = {
            label: " ".join(run_id(run, root) for run in runs.values())
            for label, runs in summary.experiment.runs.items()
        }
        for label, curve in summary.curves.items():
            for p in curve:
                start = (title, metric, label, str(p.cycle), f"{p.x:.10g}")
                rows.append((*start, *_csv(p.estimate), ids[label]))
        for label, area in summary.areas.items():
            rows.append((title, f"{metric}_area", label, "", "", *_csv(area), ids[label]))
    return rows


def _csv(e: Estimate) -> tuple[str, ...]:
    numbers = ("" if v is None else f"{v:.10g}" for v in (e.mean, e.low, e.high))
    return (str(e.num_seeds), *numbers)


def _estimate(e: Estimate | None, decimals: int, *, num_seeds: int | None = None) -> str:
    if e is None:
        return NONE
    half = "" if e.half_width is None else f" ± {e.half_width:.{decimals}f}"
    fewer = num_seeds is not None and e.num_seeds < num_seeds
    return f"{e.mean:.{decimals}f}{half}" + (f" (n={e.num_seeds})" if fewer else "")


def _decimals(values: Sequence[float]) -> int:
    largest = max((abs(value) for value in values), default=0.0)
    return 2 if largest >= 10 else 3


def count(value: float) -> str:
    """A whole number with its thousands set apart."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _seconds(value: float) -> str:
    if value >= 1000:
        return count(value)
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _p_value(p: float) -> str:
    return f"{p:.1g}" if p < 0.001 else f"{p:.3f}"
