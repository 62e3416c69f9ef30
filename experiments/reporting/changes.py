"""Settings that changed while a run with people went on, for the report: `changes.csv`."""

from __future__ import annotations

import csv
from collections.abc import Sequence

from experiments.reporting.runs import ReportError, Run
from experiments.settings.wording import counted

CHANGES = "changes.csv"
LEFT_OUT = ("cycles",)
"""Keys whose change means nothing for the curve: a run that goes on has more cycles."""
LONGEST = 3
"""Settings of one cycle that are named; of more the number is given."""
CHOICE = ".name"
"""End of the key of a choice, such as `backbone.name`, which brings other settings with it."""


def described(changes: Sequence[tuple[str, str]]) -> str:
    """Describe changed settings in a few words: choices first, without the settings below them.

    Args:
        changes: Keys and new values.

    Returns:
        Text such as "backbone became lenet, cycle.query_size became 50"; empty if no change means
        anything for the curve.
    """
    changes = [(key, after) for key, after in changes if key not in LEFT_OUT]
    choices = {key.removesuffix(CHOICE): after for key, after in changes if key.endswith(CHOICE)}
    others = {
        key: after for key, after in changes if not key.startswith(tuple(f"{c}." for c in choices))
    }
    named = [f"{key} became {after}" for key, after in {**choices, **others}.items()]
    left = len(named) - LONGEST
    more = f" and {counted(left, 'other setting')}" if left > 0 else ""
    return ", ".join(named[:LONGEST]) + more


def changed_settings(run: Run) -> tuple[tuple[float, str], ...]:
    """Return positions on the curve of a run, in labels, and what changed there.

    Raises:
        ReportError: The file is damaged.
    """
    file = run.folder / CHANGES
    if not file.exists():
        return ()
    labeled = run.series("num_labeled")
    by_cycle: dict[int, list[tuple[str, str]]] = {}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if int(row["cycle"]) in labeled:
                    change = (str(row["key"]), str(row["after"]))
                    by_cycle.setdefault(int(row["cycle"]), []).append(change)
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{file}: not a list of changes ({error})") from None
    told = [(labeled[cycle], described(changes)) for cycle, changes in sorted(by_cycle.items())]
    return tuple((place, text) for place, text in told if text)
