"""Control characters of strangers reach neither a terminal nor a log, and all output goes there."""

from __future__ import annotations

import ast
import io
import logging
import sys
from pathlib import Path

import pytest

from experiments.settings.terminal import PlainFormatter, show, show_error
from experiments.settings.wording import Lines, escaped, listed, printable
from tests.imports import modules

HOSTILE = "a\x1b]0;title\x07\x1b[2K\r\n2026-01-01 INFO run: all is well\u202e\u009b\ud800\x00.jpg"


def formatted(message: str, *arguments: object, error: Exception | None = None) -> str:
    """Return a log line as it is written."""
    trace = None if error is None else (type(error), error, None)
    record = logging.LogRecord("name", logging.INFO, __file__, 1, message, arguments, trace)
    return PlainFormatter("%(levelname)s %(message)s").format(record)


def test_escaped_text_prints_and_can_be_read() -> None:
    """One line, and ordinary text of any language stays as it is."""
    assert escaped(HOSTILE).isprintable()
    assert escaped(HOSTILE).startswith(r"a\x1b]0;title\x07\x1b[2K\r\n2026")
    assert escaped("größe 大きさ 🙂.jpg") == "größe 大きさ 🙂.jpg"
    assert escaped("a\tb\N{NO-BREAK SPACE}") == r"a\tb\xa0"
    for text in ("", "a\tb", "10\N{NARROW NO-BREAK SPACE}000"):
        assert printable(text) == text
    assert printable("a\nb\x1b") == "a\nb\\x1b"


@pytest.mark.parametrize("value", [HOSTILE, Path("a/\x1b[31m\n.jpg"), ValueError("x\ny\x9b")])
def test_a_message_of_the_log_is_one_line(value: object) -> None:
    """A name, a path or an error with line breaks cannot look like a message of its own."""
    line = formatted("%s is gone, %d left", value, 3)
    assert line.isprintable()
    assert line.startswith(("INFO a", "INFO x"))
    assert line.endswith("is gone, 3 left")


def test_lines_that_are_meant_stay_lines() -> None:
    """Lists of problems, notes for people and tracebacks."""
    problems = listed(["one\n\x1b", "two"])
    assert formatted("problems:\n%s", problems) == "INFO problems:\n  one\\n\\x1b\n  two"
    assert formatted("%s", Lines("a\nb\x1b")) == "INFO a\nb\\x1b"
    trace = formatted("stopped", error=ValueError("\x1b[31m"))
    assert "ValueError: \\x1b[31m" in trace
    assert "\n" in trace


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_any_terminal_can_show_it(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """Characters that its encoding lacks are written as escapes; nothing ends in an error."""
    raw = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(raw, encoding=encoding, newline="\n"))
    show(f"日本.jpg\n{HOSTILE}", flush=True)
    show_error(ValueError(HOSTILE))
    sys.stderr.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert len(lines) == 4
    assert lines[0] == ("日本.jpg" if encoding == "utf-8" else r"\u65e5\u672c.jpg")
    assert all(line.isprintable() for line in lines)
    assert lines[-1].startswith("error: a\\x1b")


def test_commands_print_by_this_module_only() -> None:
    """`print` shows texts of the code itself; whatever has a value in it goes through `show`."""
    found = []
    for module, source in modules("experiments").items():
        for node in ast.walk(ast.parse(source)):
            is_print = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
            if not is_print or module == "experiments.settings.terminal":
                continue
            own = [ast.unparse(each) for each in node.args if not isinstance(each, ast.Constant)]
            found += [f"{module}: {text}" for text in own if text not in ("__doc__", "usage()")]
        if "logging.Formatter(" in source or (
            "basicConfig(" in source and module != "experiments.settings.terminal"
        ):
            found.append(f"{module}: logging.Formatter")
    assert found == []
