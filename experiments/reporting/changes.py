"""Settings that changed while a run with people went on, for the report: `changes.csv`."""

from __future__ import annotations

import csv

from experiments.reporting.runs import ReportError, Run

CHANGES = "changes.csv"
LEFT_OUT = ("cycles",)
"""Keys whose change means nothing for the curve: a run that goes on has more cycles."""
LONGEST = 3
"""Settings of one cycle that are named; of more the number is given."""


def changed_settings(run: Run) -> tuple[tuple[float, str], ...]:
    """Return positions on the curve of a run, in labels, and what changed there.

    Raises:
        ReportError: The file is damaged.
    """
    file = run.folder / CHANGES
    if not file.exists():
        return ()
    labeled = run.series("num_labeled")
    by_cycle: dict[int, list[str]] = {}
    try:
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["key"] not in LEFT_OUT and int(row["cycle"]) in labeled:
                    text = f"{row['key']} became {row['after']}"
                    by_cycle.setdefault(int(row["cycle"]), []).append(text)
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"{file}: not a list of changes ({error})") from None
    return tuple(
        (
            labeled[cycle],
            ", ".join(texts) if len(texts) <= LONGEST else f"{len(texts)} settings changed",
        )
        for cycle, texts in sorted(by_cycle.items())
    )
