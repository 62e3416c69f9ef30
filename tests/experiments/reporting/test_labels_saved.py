"""Labels saved: only seeds that reach the level can be averaged, and the report counts them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.reporting.comparison_tables import saving_table
from experiments.reporting.grouping import group_runs
from experiments.reporting.labels_needed import Saving, savings
from experiments.reporting.runs import find_runs
from experiments.reporting.summary import Summary, summarize
from tests.experiments.synthetic_runs import RANDOM, write_run


def last_saving(reached: int) -> Saving:
    """Labels saved at the end by a strategy that is above the baseline in `reached` of 5 seeds."""
    counts = {name: {s: np.array([100.0, 200.0, 300.0]) for s in range(5)} for name in "rs"}
    base = {s: np.array([0.0, 1.0, 2.0]) for s in range(5)}
    own = {s: np.array([0.0, 1.5 + s / 10, 2.5 if s < reached else 1.9]) for s in range(5)}
    ((saving,),) = savings({"r": base, "s": own}, counts, "r", [2]).values()
    return saving


def test_all_seeds_reached_have_an_interval() -> None:
    """The mean over all common seeds has its Student t interval."""
    saving = last_saving(5)
    assert (saving.num_reached, saving.num_seeds) == (5, 5)
    assert saving.saved is not None
    assert saving.saved.low is not None


@pytest.mark.parametrize("reached", [1, 3, 4])
def test_a_part_of_the_seeds_has_no_interval(reached: int) -> None:
    """Seeds that never reach the level are missing from the mean, so no interval may pretend to
    cover them.
    """
    saving = last_saving(reached)
    assert (saving.num_reached, saving.num_seeds) == (reached, 5)
    assert saving.saved is not None
    assert saving.saved.low is None
    assert saving.saved.high is None


def summary_of(root: Path, gains: list[float]) -> Summary:
    """The summary of random and of a strategy with these gains by seed."""
    for seed, gain in enumerate(gains):
        write_run(root, "random", seed, accuracy=RANDOM[seed])
        accuracy = [RANDOM[seed][0], RANDOM[seed][1], RANDOM[seed][2] + gain]
        write_run(root, "margin", seed, accuracy=accuracy)
    (experiment,) = group_runs(find_runs([root]))
    return summarize(experiment)


def test_the_table_names_the_seeds_that_reached(tmp_path: Path) -> None:
    """Beside every number stands how many of the seeds it is of; ± only where it is all of them."""
    table = saving_table(summary_of(tmp_path / "a", [2.0, 2.0, 2.0, -2.0, -2.0]))
    assert table is not None
    ((_, middle, last),) = table.rows
    assert last.startswith("+")
    assert last.endswith("(3 of 5 seeds)")
    assert "±" not in last
    assert middle == "+0 ± 0 (5 of 5 seeds)"
    table = saving_table(summary_of(tmp_path / "b", [-2.0] * 3))
    assert table is not None
    assert table.rows[0][-1] == "never reached (0 of 3 seeds)"
