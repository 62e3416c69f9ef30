"""Reading YAML that may come from anywhere: a run folder of somebody else has a `config.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import yaml

MAX_BYTES, MAX_VALUES = 2**24, 100_000
"""Limits of a file, and of its values with every alias counted as often as it is named. The
configuration of a run has about 5 kB and 250 values."""


def read_yaml(path: Path) -> object:
    """Return the contents of a YAML file: mappings, lists, texts, numbers, dates and None.

    Raises:
        ValueError: It is not YAML, or too large; one line. An alias of an alias of an alias lets a
            file of a kilobyte stand for a billion values.
        OSError: It cannot be read.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MiB")
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not YAML: {' '.join(str(error).split())}") from None
    left, count = [content], 0
    while left:
        value = left.pop()
        count += 1
        if count > MAX_VALUES:
            raise ValueError(f"it has more than {MAX_VALUES} values")
        if isinstance(value, Mapping):
            left.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            left.extend(value)
    return content
