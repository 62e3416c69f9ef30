"""Words for numbers in messages."""

from __future__ import annotations

from collections.abc import Sequence

BLANKS = "\t\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
"""Characters that `str.isprintable` excludes, and that change nothing but the place of others."""


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "3 images", or with an irregular plural."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"


class Lines(str):
    """Text that is meant to have several lines; see `experiments.settings.terminal`."""

    __slots__ = ()


def escaped(text: str, *, keep: str = "") -> str:
    """Return text with everything that does not print, line breaks included, as escapes.

    Args:
        text: Text of unknown origin.
        keep: Characters that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter in keep
        else letter.encode("unicode_escape", "surrogatepass").decode("ascii")
        for letter in text
    )


def printable(text: str) -> str:
    """Return text of any number of lines, each as `escaped`, in which blanks stay."""
    return escaped(text, keep=f"\n{BLANKS}")


def one_line(text: str, limit: int = 300) -> str:
    """Return text of unknown origin as it can be printed: one line, UTF-8, at most `limit` long."""
    shown = escaped(text[:limit])
    return shown if len(shown) <= limit and len(text) <= limit else f"{shown[: limit - 3]}..."


def is_utf8(name: str) -> bool:
    """Tell whether a name from the file system can be written as text."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def listed(problems: Sequence[object], limit: int = 10) -> Lines:
    """Return the first few, one line each, and the number of the others."""
    lines = [f"  {escaped(str(problem))}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    return Lines("\n".join(lines))


def duration(seconds: float) -> str:
    """Return a duration in the unit in which people would state it."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
