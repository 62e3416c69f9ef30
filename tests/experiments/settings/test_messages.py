"""The entry points that Hydra composes answer at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = """
import importlib, sys
main = importlib.import_module(sys.argv.pop(1)).main
try:
    main()
finally:
    print("heavy:", *sorted({"torch", "cv2", "numpy", "wandb"} & set(sys.modules)))
"""
README = ["images=.", "checkpoint=README.md"]
"""Arguments of the right kind, as far as can be seen without torch."""


@pytest.mark.parametrize(
    ("module", "arguments", "status", "says"),
    [
        ("run", ["--help"], 0, "python -m experiments.run task=cifar10"),
        ("run", ["cycels=3"], 1, "error: unknown key cycels"),
        ("rank", ["--help"], 0, "python -m experiments.rank images=FOLDER"),
        ("rank", [], 1, "error: images must be given: images=... (--help shows examples)"),
        ("rank", ["images=."], 1, "error: checkpoint must be given"),
        ("rank", ["images=nowhere", "checkpoint=x"], 1, "images=nowhere: there is no such folder"),
        ("rank", ["images=.", "checkpoint=no, such (file)"], 1, "checkpoint=no, such (file) does"),
        ("rank", ["imges=."], 1, "error: unknown key imges"),
        ("rank", [*README, "budget=0"], 1, "error: budget must be a whole"),
        ("rank", [*README, "executor=x"], 1, "inline, processes, ray, got 'x'"),
        ("rank", [*README, "+x=1"], 1, "error: unknown key x; there are "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_bad_input_answer_at_once(
    module: str, arguments: list[str], status: int, says: str
) -> None:
    """One line, and neither torch nor NumPy, OpenCV or W&B has been imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, f"experiments.{module}", *arguments],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert says in (done.stderr if status else done.stdout)
    assert status == 0 or len(done.stderr.splitlines()) == 1
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
