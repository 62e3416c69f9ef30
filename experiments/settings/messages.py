"""What the entry points say of a command line that Hydra, or we, cannot take: one line.

Imports nothing heavy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException, OverrideParseException

CONFIG = Path(__file__).resolve().parents[2] / "conf"
ELSEWHERE = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")
"""What adds choices that are not in `CONFIG`."""


def line(error: Exception) -> str:
    """Say in one line what is wrong."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        text = _unread(error.override)
    elif several := re.match(r"Ambiguous value for argument '(.*)'\n1\.", text):
        text = _several(several[1])
    elif isinstance(error, HydraException):
        # Hydra advises to append unknown keys with "+", which is refused here, and lists its paths.
        text = re.split(r"\nTo append|\n*Config search path", text)[0]
        unknown = re.match(r"Could not override '(.*)'\.(?:$|\n)", text)
        if unknown:
            key = unknown[1]
            text = f"unknown key {key}{_meant(key, _keys(key))} (--cfg job shows all)"
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}: {error.filename or 'while writing the run folder'}"
        text += " (all finished cycles are kept; the same command goes on from them)"
    return "error: " + " ".join(text.split())


def check_mode(arguments: list[str]) -> None:
    """Stop at `--cfg` with `-m`, which Hydra answers with a raw traceback."""
    shown = any(argument in ("-c", "--cfg") or argument[:6] == "--cfg=" for argument in arguments)
    if shown and not {"-m", "--multirun"}.isdisjoint(arguments):
        _stop("--cfg shows one job: leave out -m, and all values of a key but one")


def check_groups(arguments: list[str]) -> None:
    """Stop at a choice that a group does not have, with the one that was probably meant.

    `cycle=10`, meant as `cycles=10`, Hydra answers with a raw traceback, and a mistyped strategy
    with a list in which a user has to look for it.
    """
    if any(argument.startswith(ELSEWHERE) for argument in arguments):
        return
    groups = {path.name: path for path in CONFIG.iterdir() if path.is_dir()}
    for argument in arguments:
        key, given, value = argument.partition("=")
        if given and not key:
            _stop(_unread(argument))
        if not given or key not in groups:
            continue
        choices = sorted(path.stem for path in groups[key].glob("*.yaml"))
        for choice in value.split(","):
            # What is not one plain word is Hydra's to understand: null, glob(*), a list.
            if choice in choices or choice == "null" or not re.fullmatch(r"[\w.-]+", choice):
                continue
            meant = f"cycles={value}" if key == "cycle" and choice.isdigit() else None
            asked = _meant(choice, choices, meant) or ";"
            _stop(f"unknown {key} {choice!r}{asked} choices: {', '.join(choices)}")


def _stop(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(1)


def _unread(argument: str) -> str:
    """Say how an argument is written that is no override."""
    key, given, _ = argument.partition("=")
    if not key or not given:
        return f"{argument}: not KEY=VALUE (--help shows examples)"
    return (
        f"{argument} cannot be read: brackets close as they open, and a text with any of ()[]{{}},:"
        f"= in it is quoted twice, {_quoted(argument)}"
    )


def _several(argument: str) -> str:
    """Say how several values are meant."""
    key, _, values = argument.partition("=")
    said = f"{argument} is several values: "
    if (CONFIG / key).is_dir():
        return f"{said}choose one, or add -m to run each"
    return (
        f"{said}write '{key}=[{values}]' for a list, {_quoted(argument)} for one text, or add -m "
        "to run each"
    )


def _quoted(argument: str) -> str:
    """Write an argument so that its value is one text for the shell and for Hydra."""
    key, _, value = argument.partition("=")
    return f"""'{key}="{value}"'"""


def _keys(key: str) -> set[str]:
    """Return the keys that there are in the configuration, at any depth, in the parent of `key`."""
    parent = key.rpartition(".")[0]
    lines = {
        line
        for file in CONFIG.rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").partition("\nhydra:")[0].splitlines()
    }
    names = {match[1] for line in lines if (match := re.match(r" *(\w+):", line))}
    groups = {path.name for path in CONFIG.iterdir() if path.is_dir()}
    return {f"{parent}.{name}" for name in names} if parent else names | groups


def _meant(word: str, known: Iterable[str], meant: str | None = None) -> str:
    """Return the question whether a known word was meant, or nothing."""
    near = [meant] if meant else get_close_matches(word, sorted(set(known) - {word}), n=1)
    return f": did you mean {near[0]}?" if near else ""
