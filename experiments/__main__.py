"""All commands under one name: `learning-loss COMMAND ...`, or `python -m experiments COMMAND ...`.

Each is the same as `python -m experiments.COMMAND ...`. Nothing is imported before the command is
known, so that `--help` answers at once.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches

from experiments.settings.terminal import show_error

NAME = "learning-loss"
COMMANDS = {
    "run": "train, score and ask for labels, cycle by cycle: an experiment or a sweep",
    "status": "report what a run does or waits for, and what more labels would bring",
    "annotate": "annotate a folder in Label Studio, or exchange a batch with another tool",
    "export": "write the labels of a run as a data set, or its network as ONNX",
    "predict": "predict images with the last model of a run",
    "rank": "rank a folder of images with a trained model",
    "report": "write tables, learning curves and a page from run folders",
    "preflight": "tell from a pilot run and a folder of images whether active learning will pay",
    "compare": "find out which strategy is better, at the least cost",
    "dashboard": "write a W&B workspace that compares strategies",
}
"""The commands, in the order in which most people meet them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 2, with one line on standard error, for an unknown one."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if not given or given[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    command, *rest = given
    if command not in COMMANDS:
        near = get_close_matches(command, COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
        show_error(f"unknown command {' '.join(command.split())!r}: {hint}")
        return 2
    sys.argv = [f"{NAME} {command}", *rest]
    # As `python -m` does, so that the processes that a command starts find their way back.
    runpy.run_module(f"experiments.{command}", run_name="__main__", alter_sys=True)
    return 0


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {text}" for command, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {NAME} COMMAND ...",
            "",
            *lines,
            "",
            f"{NAME} COMMAND --help explains a command.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
