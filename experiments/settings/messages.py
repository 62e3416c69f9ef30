"""One line for a command line that Hydra, or this project, refuses.

Imports nothing heavy.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra.errors import HydraException, OverrideParseException

from experiments.settings.known_keys import advice, composed
from experiments.settings.terminal import show_error
from experiments.settings.wording import escaped

CONFIG = Path(__file__).resolve().parents[2] / "conf"
ELSEWHERE = ("--config-dir", "-cd", "--config-path", "-cp", "hydra.searchpath")
"""Arguments that add choices which are not in `CONFIG`."""


def line(
    error: Exception, *, arguments: Sequence[str] | None = None, config_name: str = "config"
) -> str:
    """Return one line that describes an error.

    Args:
        error: Whatever a command has caught.
        arguments: The command line; None for that of this process.
        config_name: File in `conf` that the command composes.
    """
    text = str(error)
    if isinstance(error, OverrideParseException):
        text = _unreadable(error.override)
    elif several := re.match(r"Ambiguous value for argument '(.*)'\n1\.", text):
        text = _several(several[1])
    elif isinstance(error, HydraException):
        # Hydra advises to append unknown keys with "+", which is refused here, and lists its paths.
        text = re.split(r"\nTo append|\n*Config search path", text)[0]
        unknown = re.match(r"Could not override '(.*)'\.(?:$|\n)", text)
        if unknown:
            given = sys.argv[1:] if arguments is None else arguments
            text = _unknown_key(unknown[1], given, config_name)
    elif protocol := re.match(r"Interpolation key 'task\.protocols\.(\w+)\.", text):
        text = f"cycle={protocol[1]} has no numbers for this task: use cycle=quick or cycle=paper"
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}: {error.filename or 'while writing the run folder'}"
        text += " (all finished cycles are kept; the same command goes on from them)"
    return "error: " + escaped(" ".join(text.split()))


def check_mode(arguments: list[str]) -> None:
    """Stop at `--cfg` with `-m`, which Hydra answers with a raw traceback."""
    shown = any(argument in ("-c", "--cfg") or argument[:6] == "--cfg=" for argument in arguments)
    if shown and not {"-m", "--multirun"}.isdisjoint(arguments):
        _stop("--cfg shows one job: leave out -m, and all values of a key but one")


def check_groups(arguments: list[str]) -> None:
    """Stop at a choice that a group does not have, and suggest a similar one.

    Hydra answers `cycle=10`, meant as `cycles=10`, with a raw traceback, and a mistyped strategy
    with a list in which a user has to look for it.
    """
    if any(argument.startswith(ELSEWHERE) for argument in arguments):
        return
    for argument in arguments:
        key, given, value = argument.partition("=")
        if given and not key:
            _stop(_unreadable(argument))
        if not given or not _is_group(key):
            continue
        choices = sorted(path.stem for path in (CONFIG / key).glob("*.yaml"))
        for choice in value.split(","):
            # Only a plain word is checked here: null, glob(*) and lists are Hydra's syntax.
            if choice in choices or choice == "null" or not re.fullmatch(r"[\w.-]+", choice):
                continue
            meant = f"cycles={value}" if key == "cycle" and choice.isdigit() else None
            suggestion = _suggestion(choice, choices, meant) or ";"
            _stop(f"unknown {key} {choice!r}{suggestion} choices: {', '.join(choices)}")


def _stop(text: str) -> NoReturn:
    show_error(text)
    sys.exit(1)


def _is_group(key: str) -> bool:
    return re.fullmatch(r"\w+", key) is not None and (CONFIG / key).is_dir()


def _unreadable(argument: str) -> str:
    """Explain how an argument that is no override must be written."""
    key, given, _ = argument.partition("=")
    if not key or not given:
        return f"{argument}: not KEY=VALUE (--help shows examples)"
    return (
        f"{argument} cannot be read: brackets close as they open, and a text with any of ()[]{{}},:"
        f"= in it is quoted twice, {_quoted(argument)}"
    )


def _several(argument: str) -> str:
    """Explain how several values of one key must be written."""
    key, _, values = argument.partition("=")
    text = f"{argument} is several values: "
    if _is_group(key):
        return f"{text}choose one, or add -m to run each"
    return (
        f"{text}write '{key}=[{values}]' for a list, {_quoted(argument)} for one text, or add -m "
        "to run each"
    )


def _quoted(argument: str) -> str:
    """Write an argument so that its value is one text for the shell and for Hydra."""
    key, _, value = argument.partition("=")
    return f"""'{key}="{value}"'"""


def _unknown_key(key: str, arguments: Sequence[str], config_name: str) -> str:
    """Name an unknown key, the one that was probably meant, and those that there are."""
    text, more = f"unknown key {key}", " (--cfg job shows all)"
    if any(argument.startswith(ELSEWHERE) for argument in arguments):
        return text + more
    parts = [argument.partition("=") for argument in arguments]
    # Of the choices of a sweep the first will do: the key is unknown to one of them at least.
    choices = [f"{k}={value.split(',')[0]}" for k, given, value in parts if given and _is_group(k)]
    values = composed(choices, config_name=config_name)
    if values is None:
        return text + more
    group = key.partition(".")[0]
    if group != key and group not in values and _is_group(group):
        return f"{text}: no {group} is chosen; add {group}=...{more}"
    return text + advice(key, values) + more


def _suggestion(word: str, known: Iterable[str], meant: str | None = None) -> str:
    """Return the question whether a known word was meant, or nothing."""
    near = [meant] if meant else get_close_matches(word, sorted(set(known)), n=1)
    return f": did you mean {near[0]}?" if near else ""
