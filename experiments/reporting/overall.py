"""Strategies over several experiments: data sets, tasks or networks together.

An experiment is a block of Demsar's mean ranks (JMLR 2006), which rank the mean areas. The pairwise
penalty matrix adds those of the experiments, as Ash et al. (ICLR 2020) do. The performance profile
of Dolan and More (2002) has the levels, seeds and experiments as its problems. None of them
compares units of one metric with those of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from experiments.reporting.grouping import BASELINE
from experiments.reporting.labels_needed import Saving
from experiments.reporting.numbers import NONE, listed
from experiments.reporting.rankings import Penalties, Profile, Ranks, mean_ranks, profile
from experiments.reporting.summary import Summary
from experiments.reporting.verdicts import larger_is_better


@dataclass(frozen=True)
class Overall:
    """The strategies that all experiments have in common.

    Attributes:
        titles: Of the experiments.
        labels: The strategies, the baseline first.
        ranks: (strategies, experiments), rank of the mean area in each experiment, 1 the best.
        tested: Mean ranks with Friedman's and Nemenyi's tests; None for fewer than three strategies
            or experiments.
        penalties: Cells are the number of experiments times the share of their cycles in which the
            row won; None if an experiment has no such matrix.
        profile: Labels needed, over all levels, seeds and experiments; None without the baseline.
        savings: Labels saved at the end of the budget by strategy and experiment.
    """

    titles: tuple[str, ...]
    labels: tuple[str, ...]
    ranks: pd.DataFrame
    tested: Ranks | None
    penalties: Penalties | None
    profile: Profile | None
    savings: Mapping[str, Mapping[str, Saving]]

    @property
    def mean_ranks(self) -> dict[str, float]:
        """Mean ranks over the experiments, the best first."""
        means = self.ranks.mean(axis=1).sort_values(kind="stable")
        return {str(label): float(mean) for label, mean in means.items()}


def over_all(summaries: Sequence[Summary]) -> Overall | None:
    """Compare the strategies over the experiments that compare any; None for fewer than two
    experiments or common strategies.
    """
    comparing = [summary for summary in summaries if len(summary.areas) > 1]
    if len(comparing) < 2:
        return None
    labels = [la for la in comparing[0].areas if all(la in s.areas for s in comparing)]
    if len(labels) < 2:
        return None
    areas = pd.DataFrame(
        {
            summary.experiment.title: {
                label: _sign(summary) * summary.areas[label].mean for label in labels
            }
            for summary in comparing
        }
    )
    by_block = {
        label: dict(enumerate(row)) for label, row in zip(labels, areas.to_numpy(), strict=True)
    }
    return Overall(
        titles=tuple(areas.columns),
        labels=tuple(labels),
        ranks=areas.rank(ascending=False),
        tested=mean_ranks(by_block),
        penalties=_penalties(comparing, labels),
        profile=_profile(comparing, labels),
        savings={
            label: {
                s.experiment.title: s.savings[label][-1] for s in comparing if s.savings.get(label)
            }
            for label in labels
            if label != BASELINE
        },
    )


def sentence(overall: Overall) -> str:
    """Return the first sentence: the best strategy over the experiments, and where it saves."""
    means = overall.mean_ranks
    best = next(iter(means))
    text = (
        f"Over {len(overall.titles)} experiments {best} has the best mean rank, {means[best]:.2g} "
        f"of {len(overall.labels)} strategies"
    )
    if overall.tested is not None:
        equal = [
            other
            for clique in overall.tested.cliques
            if best in clique
            for other in clique
            if other != best
        ]
        if equal:
            text += f", not told apart from {listed(list(dict.fromkeys(equal)))}"
    saving = [
        title
        for title, each in overall.savings.get(best, {}).items()
        if each.saved is not None and each.saved.mean > 0
    ]
    if best != BASELINE and overall.savings.get(best):
        text += (
            f"; it saves labels against {BASELINE} in {len(saving)} of "
            f"{len(overall.savings[best])} experiments"
        )
    return f"{text}."


def overall_frame(overall: Overall) -> pd.DataFrame:
    """Return a row for each strategy and experiment, with the columns of `results.across`."""
    rows = [
        {
            "strategy": label,
            "experiment": title,
            "rank": float(overall.ranks.at[label, title]),
            "labels_saved": each.saved.mean if each is not None and each.saved else None,
            "seeds_that_reach": None if each is None else each.num_reached,
        }
        for label in overall.labels
        for title in overall.titles
        for each in [overall.savings.get(label, {}).get(title)]
    ]
    return pd.DataFrame(rows)


def rank_rows(overall: Overall) -> list[tuple[str, ...]]:
    """Return rows of text: strategy, rank in each experiment, mean rank, letters that are shared by
    strategies not told apart.
    """
    return [
        (
            label,
            *(f"{overall.ranks.at[label, title]:.3g}" for title in overall.titles),
            f"{mean:.2f}",
            (overall.tested.letters(label) if overall.tested else "") or NONE,
        )
        for label, mean in overall.mean_ranks.items()
    ]


def _sign(summary: Summary) -> float:
    return 1.0 if larger_is_better(summary.experiment.metric) else -1.0


def _penalties(summaries: Sequence[Summary], labels: Sequence[str]) -> Penalties | None:
    total = np.zeros((len(labels), len(labels)))
    num_cycles = 0
    for summary in summaries:
        found = summary.penalties
        if found is None or not set(labels) <= set(found.labels):
            return None
        at = [found.labels.index(label) for label in labels]
        total += found.cells[np.ix_(at, at)]
        num_cycles += found.num_cycles
    return Penalties(tuple(labels), total, total.mean(axis=0), num_cycles)


def _profile(summaries: Sequence[Summary], labels: Sequence[str]) -> Profile | None:
    pooled: dict[str, list[float]] = {label: [] for label in labels}
    for summary in summaries:
        if not set(labels) <= set(summary.needed):
            return None
        for label in labels:
            pooled[label] += summary.needed[label]
    return profile(pooled)
