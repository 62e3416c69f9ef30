"""Check how docstrings and messages begin: `python -m tests.prose [FILE ...]`.

A docstring or a message begins with the noun or the verb that it is about, not with "What", "Of",
"Who" or "Whether". A method of a protocol is documented there, so "As in `X`" is left out. Prints
each offender as `file:line: text`; exit status 1 if there are any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("al_core", "vendored", "experiments", "benchmarks", "conf", "tests")
UNWANTED = re.compile(r"([Ww]hat|Of|[Ww]ho|[Ww]hether)\s|As in `")
LOGGERS = ("log", "logger", "logging", "warnings")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical", "log", "warn")


def offenders(source: str) -> Iterator[tuple[int, str]]:
    """Yield line number and text of every docstring and message that begins badly."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value  # docstrings, of attributes too
            if isinstance(text, str) and UNWANTED.match(text):
                yield node.lineno, text
        for message in _messages(node):
            text = _beginning(message)
            if UNWANTED.match(text):
                yield message.lineno, text


def _messages(node: ast.AST) -> Iterator[ast.expr]:
    """Yield the first argument of whatever is raised, logged or printed."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from node.exc.args[:1]
    elif isinstance(node, ast.Call):
        function = ast.unparse(node.func)
        owner, _, method = function.rpartition(".")
        if function in ("print", "parser.error") or (owner in LOGGERS and method in LEVELS):
            yield from node.args[:1]


def _beginning(node: ast.expr) -> str:
    """Return the constant text that an expression begins with, "" if it begins otherwise."""
    if isinstance(node, ast.JoinedStr):
        return _beginning(node.values[0]) if node.values else ""
    if isinstance(node, ast.BinOp):
        return _beginning(node.left)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ""


def main(arguments: Sequence[str]) -> int:
    """Check the files that are named, or all of the project."""
    named = [Path(name) for name in arguments]
    files = named or [p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py"))]
    found = [
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{line}: "
        + text.strip().partition("\n")[0]
        for path in files
        for line, text in sorted(offenders(path.read_text(encoding="utf-8")))
    ]
    print("\n".join(found) if found else "Every docstring and message begins as it should.")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
