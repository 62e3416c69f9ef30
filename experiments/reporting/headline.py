"""The first sentences on an experiment: which strategy to use, and what it saves."""

from __future__ import annotations

from experiments.metrics.columns import column, larger_is_better
from experiments.reporting.class_views import weakest
from experiments.reporting.grouping import BASELINE
from experiments.reporting.labels_needed import Saving
from experiments.reporting.learning_curve import next_gain
from experiments.reporting.numbers import (
    area_gain,
    change,
    count,
    listed,
    quantity,
)
from experiments.reporting.runs import Run
from experiments.reporting.summary import Summary
from experiments.reporting.verdicts import (
    NOT_DISTINGUISHABLE,
    SEEDS_FOR_A_CLAIM,
    is_tested,
    more_seeds,
    pair_verdict,
)
from experiments.settings.stop_settings import AGREEMENT


def headline(summary: Summary) -> str:
    """Return the sentences that open the report on an experiment."""
    if not any(summary.curves.values()):
        return "No cycle is finished yet."
    if len(summary.experiment.runs) == 1:
        return _of_one_strategy(summary)
    if not summary.areas:
        return "Fewer than two cycles are finished, so strategies cannot be compared yet."
    return _of_a_comparison(summary) if summary.is_comparison else _without_baseline(summary)


def _of_one_strategy(summary: Summary) -> str:
    ((label, curve),) = summary.curves.items()
    metric, last = summary.experiment.metric, curve[-1]
    runs = list(summary.experiment.runs[label].values())
    over = "" if len(runs) == 1 else f" (mean of {last.estimate.num_seeds} seeds)"
    text = (
        f"{label} reaches {quantity(last.estimate.mean, metric)} with {count(last.x)} labeled "
        f"images{over}, {_progress(runs[0], last.cycle)}."
    )
    if len(curve) > 1 and (labels := last.x - curve[-2].x) > 0:
        step = last.estimate.mean - curve[-2].estimate.mean
        name = column(metric).title
        text += f" The last {count(labels)} labels changed the {name} by {change(step, metric)}."
    rows = [{"num_labeled": point.x, metric: point.estimate.mean} for point in curve]
    if ahead := next_gain(rows, metric):
        text += f" If the learning curve goes on like this, {ahead}."
    if agreements := [
        a for run in runs if (a := run.series(AGREEMENT).get(last.cycle)) is not None
    ]:
        mean = sum(agreements) / len(agreements)
        text += (
            f" Its predictions for unlabeled images agree with those of the cycle before to kappa "
            f"{mean:.2f}."
        )
    if (result := summary.classes.get(label)) and (ends := weakest(list(result.last.values()))):
        worst, low, best, high = ends
        text += (
            f" Best class: {best} ({result.any.score} {high:.0f} %); worst: {worst} ({low:.0f} %)."
        )
    return text


def _progress(run: Run, cycle: int) -> str:
    planned = run.config.get("cycles")
    return f"after {cycle + 1} of {planned} cycles" if planned else f"after {cycle + 1} cycles"


def _of_a_comparison(summary: Summary) -> str:
    sign = 1 if larger_is_better(summary.experiment.metric) else -1
    gains = {la: sign * c.difference.mean for la, c in summary.comparisons.items()}
    order = sorted(gains, key=lambda label: -gains[label])
    tested = [label for label in order if is_tested(summary.comparisons[label])]
    better = [label for label in tested if summary.verdicts[label].startswith("better")]
    claimed = [label for label in better if _num_seeds(summary, label) >= SEEDS_FOR_A_CLAIM]
    if claimed:
        return _recommendation(summary, claimed)
    if better:
        n = _num_seeds(summary, better[0])
        return (
            f"{better[0]} looks better than {BASELINE} ({_size(summary, better[0])}), but {n} "
            f"seeds are an indication only: run {SEEDS_FOR_A_CLAIM} or more before you rely on it."
        )
    if not tested:
        first = f" So far the largest difference is that of {order[0]}, " if order else ""
        size = f"{_size(summary, order[0])}." if order else ""
        return f"There are too few common seeds to compare strategies.{first}{size}"
    if all(summary.verdicts[label].startswith("worse") for label in tested):
        return f"Use {BASELINE}: every other strategy is worse."
    text = f"No strategy is shown to be better than {BASELINE} at these seeds."
    open_ones = [la for la in tested if gains[la] > 0 and more_seeds(summary.comparisons[la])]
    if open_ones:
        best = open_ones[0]
        text += (
            f" {best} has the largest gain, {_size(summary, best)}; if it is what it seems, "
            f"{more_seeds(summary.comparisons[best])} more seeds would show it."
        )
    return text


def _recommendation(summary: Summary, better: list[str]) -> str:
    best, *others = better
    saving = next((s for s in reversed(summary.savings.get(best, ())) if s.num_reached), None)
    saved = f"{_saved(saving)}, and it" if saving and _mean(saving) >= 0.5 else "it"
    text = f"Use {best}: {saved} is better than {BASELINE} by {_size(summary, best)} "
    text += f"({_num_seeds(summary, best)} seeds)."
    equal = [
        other for other in others
        if (c := summary.pairs.get((best, other)) or summary.pairs.get((other, best)))
        and pair_verdict(c, summary.experiment.metric) == NOT_DISTINGUISHABLE
    ]  # fmt: skip
    if equal:
        be = "is" if len(equal) == 1 else "are"
        text += f" {listed(equal)} {be} better than {BASELINE} too, and not distinguishable from "
        text += f"{best} at these seeds."
    return text


def _saved(saving: Saving) -> str:
    n = saving.num_seeds
    seeds = f"mean of {n} seeds" if saving.by_all else f"in {saving.num_reached} of {n} seeds"
    return (
        f"it needs {count(_mean(saving))} labels fewer to reach what {BASELINE} reaches with "
        f"{count(saving.num_labeled)} ({seeds})"
    )


def _mean(saving: Saving) -> float:
    return saving.saved.mean if saving.saved else 0.0


def _without_baseline(summary: Summary) -> str:
    sign = 1 if larger_is_better(summary.experiment.metric) else -1
    order = sorted(summary.areas, key=lambda label: -sign * summary.areas[label].mean)
    if len(order) < 2:
        return f"Only {order[0]} has an area under the budget curve yet."
    best, second = order[:2]
    pair = summary.pairs.get((best, second)) or summary.pairs.get((second, best))
    text = f"{best} has the best area under the budget curve"
    if pair is None or not is_tested(pair):
        text += "; there are too few common seeds to compare it with the next"
    elif pair_verdict(pair, summary.experiment.metric) == NOT_DISTINGUISHABLE:
        text += f"; {second} is not distinguishable from it at these seeds"
    else:
        text += f" and is better than {second}, the next"
        if (n := pair.difference.num_seeds) < SEEDS_FOR_A_CLAIM:
            text += f" ({n} seeds: an indication, no claim)"
    return f"{text}. Without runs of {BASELINE} the labels that a strategy saves are unknown."


def _size(summary: Summary, label: str) -> str:
    d = summary.comparisons[label].difference
    return area_gain(d.mean, summary.experiment.metric, d.shown_interval)


def _num_seeds(summary: Summary, label: str) -> int:
    return summary.comparisons[label].difference.num_seeds
