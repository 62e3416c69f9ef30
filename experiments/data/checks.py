"""Checks of what users set for a data set: one clear line, naming the key and what is permitted."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting


def check_folder(key: str, value: Any) -> Path:
    """Return the absolute path, `~` expanded; it need not exist."""
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip():
        raise InvalidSetting(f"{key} must be the path of a folder; it is {value!r}")
    return Path(value).expanduser().absolute()


def check_flag(key: str, value: Any) -> None:
    """Refuse anything but a bool (the text "false" is true to Python)."""
    if not isinstance(value, bool):
        raise InvalidSetting(f"{key} must be true or false; it is {value!r}")


def check_whole_number(key: str, value: Any, *, low: int, high: int) -> None:
    """Refuse anything but an int in `low .. high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidSetting(f"{key} must be a whole number, {low} .. {high}; it is {value!r}")


def check_number(key: str, value: Any, *, low: float) -> None:
    """Refuse anything but a finite number from `low` on."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value or not math.isfinite(value):
        raise InvalidSetting(f"{key} must be a number from {low} on; it is {value!r}")
