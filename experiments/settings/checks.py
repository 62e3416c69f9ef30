"""Checks of settings; each raises InvalidSetting: one line with key, bounds and value."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting

KEEP, DROP = "keep", "drop"
"""Choices of `near_duplicates`."""


def check_folder(key: str, value: Any) -> Path:
    """Return the absolute path of a folder, with `~` expanded; it need not exist."""
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise InvalidSetting(f"{key} must be the path of a folder, got {value!r}")
    return Path(value).expanduser().absolute()


def check_flag(key: str, value: Any) -> None:
    """Refuse anything but a bool: the text "false" would be true in Python."""
    if not isinstance(value, bool):
        raise InvalidSetting(f"{key} must be true or false, got {value!r}")


def check_whole_number(key: str, value: Any, *, low: int, high: int | None = None) -> None:
    """Refuse anything but an int in `low .. high`; without `high` there is no upper bound."""
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < low or (high is not None and value > high):
        permitted = f" of at least {low}" if high is None else f", {low} .. {high}"
        raise InvalidSetting(f"{key} must be a whole number{permitted}, got {value!r}")


def check_number(key: str, value: Any, *, low: float, high: float = math.inf) -> None:
    """Refuse anything but a finite number in [low, high]."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not low <= value <= high:
        permitted = f"at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
        raise InvalidSetting(f"{key} must be a number, {permitted}, got {value!r}")


def check_near_duplicates(key: str, value: object) -> None:
    """Raise InvalidSetting unless near-duplicates are kept or dropped."""
    if value not in (KEEP, DROP):
        raise InvalidSetting(f"{key} must be {KEEP} or {DROP}, got {value!r}")
