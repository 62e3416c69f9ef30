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


@pytest.mark.parametrize("module", ["experiments.run", "experiments.rank"])
@pytest.mark.parametrize("argument", ["--help", "cycels=3"])
def test_help_and_mistyped_keys_import_nothing_heavy(module: str, argument: str) -> None:
    """Neither torch nor NumPy, OpenCV or W&B is imported to say what is wrong, or what there is."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, module, argument], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == (argument != "--help"), done.stderr
    assert done.stdout.splitlines()[-1].strip() == "heavy:"
    assert argument == "--help" or "cycels" in done.stderr
