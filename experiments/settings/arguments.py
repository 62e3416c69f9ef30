"""The arguments of small commands: folders, and settings as `key=value`."""

from __future__ import annotations

from collections.abc import Sequence

from al_core.errors import InvalidSetting


def folders_and_settings(
    arguments: Sequence[str], keys: Sequence[str]
) -> tuple[list[str], dict[str, str]]:
    """Divide arguments into folders and settings.

    The folder of a sweep may contain `=`, as in `runs/data.imbalance=20`, but what is before it is
    then no name.

    Args:
        arguments: Of the command line.
        keys: The settings that there are.

    Raises:
        InvalidSetting: A key is unknown, or has no value.
    """
    folders, settings = [], dict[str, str]()
    for argument in arguments:
        key, given, text = argument.partition("=")
        if not given or not key.isidentifier():
            folders.append(argument)
        elif key not in keys:
            raise InvalidSetting(f"unknown key {key}; there are {', '.join(keys)}")
        elif not text:
            raise InvalidSetting(f"{key} must not be empty")
        else:
            settings[key] = text
    return folders, settings
