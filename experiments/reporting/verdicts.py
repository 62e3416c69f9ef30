"""Comparisons in words: better, worse or not distinguishable at these seeds, and how many more
seeds would be needed.
"""

from __future__ import annotations

from collections.abc import Mapping

from experiments.metrics.columns import larger_is_better as larger_is_better
from experiments.reporting.grouping import BASELINE
from experiments.reporting.numbers import area_gain, listed, signed
from experiments.reporting.statistics import FEWEST_SEEDS, MOST_SEEDS, POWER, Comparison

SEEDS_FOR_A_CLAIM = 5
NOT_DISTINGUISHABLE = "not distinguishable at these seeds"


def verdict(
    label: str,
    areas: Mapping[str, Mapping[int, float]],
    comparison: Comparison | None,
    metric: str,
) -> str:
    """Return the verdict on a strategy against the baseline, or why there is none.

    `areas` holds the area under the budget curve by strategy and seed, and `comparison` compares
    them.
    """
    if comparison is None:
        missing = [name for name in (label, BASELINE) if not areas[name]]
        return f"no area for {' and '.join(missing)}" if missing else "no common seed"
    num_seeds = comparison.difference.num_seeds
    if num_seeds == 1:
        return "one common seed: no interval"
    if num_seeds < FEWEST_SEEDS:
        return f"{num_seeds} common seeds: too few to tell"
    if comparison.p_value is None:
        return "no test: the differences do not vary over the seeds"
    word = pair_verdict(comparison, metric)
    if word != NOT_DISTINGUISHABLE and num_seeds < SEEDS_FOR_A_CLAIM:
        word += f" (fewer than {SEEDS_FOR_A_CLAIM} seeds: no claim)"
    return word


def is_tested(comparison: Comparison | None) -> bool:
    """Return True if the comparison has a test and seeds enough to report it."""
    return (
        comparison is not None
        and comparison.p_value is not None
        and comparison.difference.num_seeds >= FEWEST_SEEDS
    )


def pair_verdict(comparison: Comparison, metric: str) -> str:
    """Return "better", "worse" or NOT_DISTINGUISHABLE for one strategy against another."""
    if not is_tested(comparison) or not comparison.distinguishable:
        return NOT_DISTINGUISHABLE
    return "better" if (comparison.difference.mean > 0) == larger_is_better(metric) else "worse"


def more_seeds(comparison: Comparison | None) -> str:
    """Return how many more common seeds would show a difference of the observed size.

    Empty where the difference is shown already or nothing was tested.
    """
    if comparison is None or not is_tested(comparison) or comparison.distinguishable:
        return ""
    if comparison.seeds_needed is None:
        return f"over {MOST_SEEDS}"
    return f"about {max(1, comparison.seeds_needed - comparison.difference.num_seeds)}"


def sentence(label: str, word: str, comparison: Comparison | None, metric: str) -> str:
    """Return the verdict on a strategy as a sentence with its numbers."""
    if comparison is None:
        return f"{label}: {word}."
    d = comparison.difference
    if not is_tested(comparison):
        size = area_gain(d.mean, metric, None)
        values = listed([signed(value) for value in d.values])
        by_seed = f", by seed {values}" if len(d.values) > 1 else ""
        return f"{label} against {BASELINE}: {size}{by_seed} ({word})."
    size = area_gain(d.mean, metric, (d.low or 0.0, d.high or 0.0))
    if not comparison.distinguishable:
        return (
            f"{label} and {BASELINE} are {word} ({size}, {d.num_seeds} seeds). If the difference "
            f"is what it seems, {more_seeds(comparison)} more seeds would show it with a chance of "
            f"{POWER:.0%}."
        )
    verb, _, rest = word.partition(" ")
    return f"{label} is {verb} than {BASELINE}: {size}, {d.num_seeds} seeds" + (
        f" {rest}." if rest else "."
    )
