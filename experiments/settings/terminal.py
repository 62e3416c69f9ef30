"""Text on terminals and in logs, where names, labels and errors of strangers end up.

A name may hold sequences that move the cursor, change the window's title or make a line look like
another message. All commands print by `show` and `show_error`, and all logs are written by
`PlainFormatter`. Text is escaped here only: files and reports have their own rules.
"""

from __future__ import annotations

import copy
import logging
import sys
from os import PathLike
from typing import Any

from experiments.settings.wording import Lines, escaped, printable


class PlainFormatter(logging.Formatter):
    """Formatter that writes control characters as escapes.

    Texts, paths and errors that a message is given become one line each, unless they are `Lines`.
    """

    def format(self, record: logging.LogRecord) -> str:
        plain = copy.copy(record)
        if isinstance(record.args, tuple):
            plain.args = tuple(map(_plain, record.args))
        return printable(super().format(plain))


def log_to_stdout() -> None:
    """Let the messages of this process appear on standard output, if nobody has set up logging."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def show(text: str, *, error: bool = False, flush: bool = False) -> None:
    """Print text in one or several lines; what the terminal cannot show is written as escapes."""
    stream = sys.stderr if error else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    shown = printable(text).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=stream, flush=flush)


def show_error(error: Exception | str) -> None:
    """Print an error as one line on standard error."""
    show(f"error: {escaped(str(error))}", error=True)


def _plain(value: Any) -> Any:
    if isinstance(value, (str, PathLike, BaseException)) and not isinstance(value, Lines):
        return escaped(str(value))
    return value
