"""What the entry points say of a command line that Hydra, or we, cannot take: one line.

Imports nothing heavy.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.errors import HydraException

CONFIG = Path(__file__).resolve().parent.parent / "conf"


def line(error: Exception) -> str:
    """Say in one line what is wrong."""
    text = str(error)
    if isinstance(error, HydraException):
        # Hydra advises to append unknown keys with "+", which is refused here, and lists its paths.
        text = re.split(r"\nTo append|\n*Config search path", text)[0]
        text = re.sub(
            r"^Could not override '(.*)'\.$", r"unknown key \1 (--cfg job shows all)", text
        )
    elif isinstance(error, OSError):
        text = f"{error.strerror or error}: {error.filename or 'while writing the run folder'}"
        text += " (all finished cycles are kept; the same command goes on from them)"
    return "error: " + " ".join(text.split())


def check_groups(arguments: list[str]) -> None:
    """Stop at `cycle=10`, meant as `cycles=10`, which Hydra answers with a raw traceback."""
    groups = {path.name: path for path in CONFIG.iterdir() if path.is_dir()}
    for argument in arguments:
        key, given, value = argument.partition("=")
        if given and key in groups and any(part.isdigit() for part in value.split(",")):
            choices = ", ".join(sorted(path.stem for path in groups[key].glob("*.yaml"))[:12])
            meant = f"; did you mean cycles={value}?" if key == "cycle" else ""
            print(
                f"error: {argument}: {key} is one of the choices {choices}{meant}", file=sys.stderr
            )
            sys.exit(1)
