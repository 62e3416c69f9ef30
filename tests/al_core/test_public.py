"""`from al_core import ...`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import al_core

ROOT = Path(__file__).parents[2]


def test_every_public_name_is_there_and_no_other() -> None:
    """By attribute, by `from`, in `dir`, and with a star."""
    names = al_core.__all__  # type: ignore[attr-defined]
    assert {"ActiveLearning", "Pool", "run_cycles", "badge"} <= set(names) <= set(dir(al_core))
    star: dict[str, object] = {}
    exec("from al_core import *", star)
    assert {name: star[name] for name in names} == {name: getattr(al_core, name) for name in names}
    with pytest.raises(AttributeError, match="module 'al_core' has no attribute 'Pooll'"):
        al_core.Pooll  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Pooll'"):
        exec("from al_core import Pooll")


def test_errors_and_files_need_no_torch() -> None:
    """Programs that answer at once use them."""
    code = "import sys, al_core.errors, al_core.files; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
