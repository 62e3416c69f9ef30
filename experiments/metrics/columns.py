"""The schema of `cycles.csv`: its columns, their order, and what each of them means.

A row has the leading columns, then what the task measured in the order in which it came, then the
trailing columns. The metrics of a task are declared where they are computed. The file itself holds
names and numbers only, so files of older versions and of other programs can be read as well: a
column that nobody declares counts as a metric of which more is better, unless one of the words of
its name (between underscores) is in `SMALLER_IS_BETTER`.

Neither this module nor the modules that declare metrics may import torch when they are imported:
reports read the schema and must start at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from experiments.metrics import classification, detection, pose, segmentation
from experiments.metrics.declaration import Column
from experiments.settings.stop_settings import AGREEMENT

LABELED = "num_labeled_"
"""Prefix of the counts of labels in units other than images, such as boxes or pixels."""
SECONDS = "seconds_"
"""Prefix of the durations of a cycle's phases."""
SMALLER_IS_BETTER = frozenset({"loss", "error", "seconds", "memory", "steps"})
"""Words in the name of an undeclared column of which less is better."""


def _phase(name: str, title: str) -> Column:
    return Column(SECONDS + name, title, "cost", "smaller", unit="s", lowest=0)


_LEADING = (
    Column("cycle", "cycle", "position", None, lowest=0),
    Column("num_labeled", "labeled images", "position", None, lowest=0),
)
_TRAILING = (
    Column("loss_ranking_tau", "Kendall's tau of predicted and true losses", "diagnostic",
           "larger", lowest=-1, highest=1),
    Column("optimizer_steps", "optimizer steps", "cost", "smaller", lowest=0),
    Column("train_loss", "training loss", "diagnostic", "smaller"),
    Column("train_ranking_accuracy", "pairs of training images ranked right", "diagnostic",
           "larger", lowest=0, highest=1),
    Column(AGREEMENT, "agreement of predictions with the cycle before (kappa)",
           "diagnostic", "larger", lowest=-1, highest=1),
    _phase("fit", "training"),
    _phase("evaluate", "evaluation"),
    _phase("score", "scoring"),
    _phase("query", "querying"),
    Column("query_memory_mb", "memory of the query", "cost", "smaller", unit="MB", lowest=0),
    Column("peak_memory_mb", "peak memory", "cost", "smaller", unit="MB", lowest=0),
)  # fmt: skip
_FAMILIES = (
    Column(f"{LABELED}<unit>", "labeled <unit>", "cost", "smaller", lowest=0),
    _phase("<phase>", "<phase>"),
    Column(
        "tau_<score>",
        "Kendall's tau of <score> and true losses",
        "diagnostic",
        "larger",
        lowest=-1,
        highest=1,
    ),
)

LEADING = tuple(each.name for each in _LEADING)
"""The first columns of every file."""
TRAILING = tuple(each.name for each in _TRAILING)
"""The last columns of every file that this version writes; an empty cell where a run lacks one."""
COLUMNS = (
    *_LEADING,
    *classification.COLUMNS,
    *detection.COLUMNS,
    *segmentation.COLUMNS,
    *pose.COLUMNS,
    *_TRAILING,
    *_FAMILIES,
)
"""Every declaration."""
_BY_NAME = {each.name: each for each in COLUMNS if not each.prefix}
_BY_PREFIX = sorted((each for each in COLUMNS if each.prefix), key=lambda c: -len(c.prefix))


def column(name: str) -> Column:
    """Return the declaration of a column.

    An exact name comes first, then the family with the longest prefix that leaves a rest, then the
    rule for undeclared columns.
    """
    if name in _BY_NAME:
        return _BY_NAME[name]
    for family in _BY_PREFIX:
        if name.startswith(family.prefix) and name != family.prefix:
            return family.member(name)
    smaller = SMALLER_IS_BETTER.intersection(name.split("_"))
    return Column(name, name, "metric", "smaller" if smaller else "larger", is_declared=False)


def larger_is_better(name: str) -> bool:
    """Return the direction of a column.

    Raises:
        ValueError: The column is a position, which has none.
    """
    better = column(name).better
    if better is None:
        raise ValueError(f"{name} has no better direction: it places a row, it measures nothing")
    return better == "larger"


def in_order(values: Mapping[str, float | int | None]) -> dict[str, float | int | None]:
    """Return a row of `cycles.csv`: `values` in the order of the schema.

    Trailing columns that are missing, and diagnostics that are NaN (a rank correlation of constant
    losses, for example) become None.
    """

    def cell(name: str) -> float | int | None:
        value = values.get(name)
        is_nothing = column(name).role == "diagnostic" or name in TRAILING
        return None if is_nothing and math.isnan(value or 0.0) else value

    own = [name for name in values if name not in LEADING and name not in TRAILING]
    return {name: cell(name) for name in (*LEADING, *own, *TRAILING)}
