"""What comparisons mean, in words: better, worse or not distinguishable at these seeds, and how
many more seeds would be needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.metrics.columns import larger_is_better as larger_is_better
from experiments.reporting.grouping import BASELINE
from experiments.reporting.statistics import MOST_SEEDS, POWER, Comparison

SEEDS_FOR_A_CLAIM = 5
NOT_DISTINGUISHABLE = "not distinguishable at these seeds"


def verdict(
    label: str,
    areas: Mapping[str, Mapping[int, float]],
    comparison: Comparison | None,
    metric: str,
) -> str:
    """The verdict on a strategy against the baseline; where there is none, why.

    `areas` has the area under the budget curve by strategy and seed; `comparison` is made of them.
    """
    if BASELINE not in areas:
        return f"no runs of {BASELINE} to compare with"
    if comparison is None:
        missing = [name for name in (label, BASELINE) if not areas[name]]
        return f"no area for {' and '.join(missing)}" if missing else "no common seed"
    if comparison.difference.num_seeds == 1:
        return "one common seed: no interval"
    if comparison.p_value is None:
        return "no test: the differences do not vary over the seeds"
    word = pair_verdict(comparison, metric)
    if word != NOT_DISTINGUISHABLE and comparison.difference.num_seeds < SEEDS_FOR_A_CLAIM:
        word += f" (fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim)"
    return word


def pair_verdict(comparison: Comparison, metric: str) -> str:
    """better, worse or not distinguishable, of one strategy against another."""
    if not comparison.distinguishable:
        return NOT_DISTINGUISHABLE
    return "better" if (comparison.difference.mean > 0) == larger_is_better(metric) else "worse"


def more_seeds(comparison: Comparison | None) -> str:
    """How many more common seeds would show a difference of the observed size; empty where it is
    shown already or nothing was tested.
    """
    if comparison is None or comparison.p_value is None or comparison.distinguishable:
        return ""
    if comparison.seeds_needed is None:
        return f"over {MOST_SEEDS}"
    return f"about {max(1, comparison.seeds_needed - comparison.difference.num_seeds)}"


def sentence(label: str, word: str, comparison: Comparison | None, metric: str) -> str:
    """The verdict on a strategy as a sentence with its numbers."""
    if comparison is None or comparison.p_value is None:
        return f"{label}: {word}."
    d = comparison.difference
    size = f"{d.mean:+.3g} {metric} over the budget [{d.low:+.3g}, {d.high:+.3g}]"
    if not comparison.distinguishable:
        return (
            f"{label} and {BASELINE} are {word} ({size}, {d.num_seeds} seeds): if the difference "
            f"is what it seems, {more_seeds(comparison)} more seeds would show it with a chance of "
            f"{POWER:.0%}."
        )
    verb, _, rest = word.partition(" ")
    return f"{label} is {verb} than {BASELINE}: {size}, {d.num_seeds} seeds" + (
        f" {rest}." if rest else "."
    )
