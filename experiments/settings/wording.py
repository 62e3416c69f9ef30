"""Words for numbers in messages."""

from __future__ import annotations

from collections.abc import Sequence


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "3 images", or with an irregular plural."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


def one_line(text: str, limit: int = 300) -> str:
    """Return text of unknown origin as it can be printed: one line, UTF-8, at most `limit` long."""
    shown = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text[:limit]
    )
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[: limit - 3]}..."


def is_utf8(name: str) -> bool:
    """Tell whether a name from the file system can be written as text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def listed(problems: Sequence[object], limit: int = 10) -> str:
    """Return the first few, one line each, and the number of the others."""
    lines = [f"  {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a duration in the unit in which people would state it."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
