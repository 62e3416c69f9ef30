"""The check of how docstrings and messages begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.prose import main, offenders

BAD = [
    '"""What a module knows."""',
    'class A:\n    """Whether it is one."""',
    'LIMIT = 3\n"""Of the shelf."""',
    'def f():\n    """As in `Unit`: a row."""',
    'raise ValueError("what is given is wrong")',
    'raise ValueError(f"Who asked for {x} is unknown")',
    'log.info("Of %d images", n)',
    'print("Whether it " + "works")',
    'parser.error("what?" if x else "")\nparser.error("who is that")',
]
GOOD = [
    '"""Whatever comes first, offers and whoever asks."""',
    'def f():\n    """Return whether it is one, and what of it."""',
    'raise ValueError("of must be input or output")',
    'text = "What is not shown to anybody"',
    'log.info("%d images", n)\nraise error\nprint()',
]


@pytest.mark.parametrize("source", BAD)
def test_a_bad_beginning_is_found(source: str) -> None:
    """Docstrings of any kind and what is raised, logged or printed are looked at."""
    ((line, text),) = offenders(source)
    assert text.strip() in source.splitlines()[line - 1]


@pytest.mark.parametrize("source", GOOD)
def test_other_texts_are_left_alone(source: str) -> None:
    """Words inside a sentence, and texts that are no messages, may be anything."""
    assert list(offenders(source)) == []


def test_the_command_names_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It prints `file:line: text` and ends with 1, or with 0 if all is well."""
    file = tmp_path / "module.py"
    file.write_text('"""Good."""\n\nX = 1\n"""Of the rest,\nand more."""\n')
    assert main([str(file)]) == 1
    assert capsys.readouterr().out == f"{file}:4: Of the rest,\n"
    file.write_text('"""Good."""\n')
    assert main([str(file)]) == 0


def test_the_project_begins_its_sentences_well(capsys: pytest.CaptureFixture[str]) -> None:
    """No docstring or message of the project has an unwanted beginning."""
    assert main([]) == 0, capsys.readouterr().out
