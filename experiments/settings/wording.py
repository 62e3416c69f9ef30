"""Words for numbers in messages."""

from __future__ import annotations


def counted(count: int, singular: str, plural: str = "") -> str:
    """Return a count with its noun: "1 image", "3 images", or with an irregular plural."""
    return f"{count} {singular if count == 1 else plural or singular + 's'}"
