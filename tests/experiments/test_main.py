"""`learning-loss COMMAND`: one name for all commands, which answers at once."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS, main
from tests.imports import ROOT
from tests.test_layers import LAYERS


def test_every_command_of_the_project_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A new command cannot be forgotten, and none is listed that does not exist."""
    assert {*COMMANDS, "__main__"} == set(LAYERS["experiments"][0])
    assert main(["--help"]) == main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {command} " in shown for command in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    """Neither torch nor numpy nor Hydra is imported for the list of commands."""
    code = (
        "import sys; from experiments.__main__ import main; main(['--help']); "
        "print(sorted({'torch', 'numpy', 'hydra', 'pandas', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("rnu", "unknown command 'rnu': did you mean run?"),
        ("exprot", "did you mean export?"),
        ("\n", "unknown command '': there are run, status"),
        ("--version", "there are run, status"),
    ],
)
def test_an_unknown_command_is_one_line_with_the_nearest_name(
    command: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit status is that of wrong usage."""
    assert main([command]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("status", "nowhere"), 1, "nowhere is no run folder"),
        (("export", "nowhere", "csv"), 1, "nowhere is no run folder"),
        (("predict", "nowhere"), 1, "images must be given"),
        (("rank", "imags=x"), 1, "imags"),
        (("run", "task=cifar1"), 1, "cifar10"),
    ],
)
def test_a_command_behaves_as_its_module(
    arguments: tuple[str, ...], status: int, says: str, tmp_path: Path
) -> None:
    """Arguments, messages and the exit status are those of `python -m experiments.COMMAND`."""
    results = []
    for start in (["experiments", arguments[0]], [f"experiments.{arguments[0]}"]):
        done = subprocess.run(
            [sys.executable, "-m", *start, *arguments[1:]],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == status
        results.append(done.stderr)
    assert results[0] == results[1]
    assert says in results[0]


def test_the_console_script_is_declared() -> None:
    """`pip install` puts the command on the path."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"learning-loss": "experiments.__main__:main"}
