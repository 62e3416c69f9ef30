"""Class names of a data set that are probably one class, spelled in several ways."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from difflib import SequenceMatcher

from experiments.settings.wording import listed

log = logging.getLogger(__name__)

ALIKE, RARE = 0.85, 0.01
"""A name is doubtful if it shares so much with another one that is a hundred times as common."""
MAX_COMPARED = 2_000
"""Names beyond which spellings are not compared in pairs: it would take minutes."""


def warn_doubtful_names(counts: Mapping[str, int], *, advice: str) -> None:
    """Log names that look like one class; arguments as `doubtful_names`."""
    lines = doubtful_names(counts)
    if lines:
        log.warning(
            "class names of the pool that look alike; correct them, or %s:\n%s",
            advice, listed(lines),
        )  # fmt: skip


def doubtful_names(counts: Mapping[str, int]) -> list[str]:
    """Return one line for each group of names that look like one class.

    Args:
        counts: Number of objects by class name.
    """
    lines = []
    groups = defaultdict[str, list[str]](list)
    for name in sorted(counts, key=lambda name: (-counts[name], name)):
        groups[re.sub(r"[\s_-]+", "", name).casefold()].append(name)
    if empty := groups.pop("", None):
        lines.append(f"{sum(counts[name] for name in empty)} objects have no class name")
    for names in groups.values():
        if len(names) > 1:
            *first, last = (f"{name!r} ({counts[name]})" for name in names)
            lines.append(f"{', '.join(first)} and {last} differ only in case or blanks")
    totals = {key: sum(counts[name] for name in names) for key, names in groups.items()}
    if len(totals) > MAX_COMPARED:
        return lines
    for key, names in groups.items():
        for other, total in totals.items():
            if totals[key] <= RARE * total and _alike(key, other):
                lines.append(
                    f"{names[0]!r} ({totals[key]}) is spelled like {groups[other][0]!r} ({total})"
                )
                break
    return lines


def _alike(one: str, other: str) -> bool:
    """Tell whether two names differ in few letters, and in no digit."""
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    close = matcher.real_quick_ratio() >= ALIKE and matcher.ratio() >= ALIKE
    return close and re.findall(r"\d+", one) == re.findall(r"\d+", other)
