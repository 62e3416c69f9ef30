"""What holds for all tests, and the small run that many of them look at."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

import experiments  # noqa: F401  # it sets a bound that OpenCV reads when it is loaded
from tests.small_runs import run_here, write_image_folder

# Machines are shared, so no example fails for being slow; a change is checked by the same examples
# every time, and by new ones on a developer's machine.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 + 30 images of three classes; not to be changed."""
    return write_image_folder(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def unbroken(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with learning loss that went through in one go; not to be changed."""
    out = tmp_path_factory.mktemp("unbroken")
    run_here(f"data.root={images}", f"out={out}")
    return out / "small" / "learning_loss" / "seed0"


@pytest.fixture
def place(unbroken: Path, tmp_path: Path) -> Path:
    """A copy of that folder under `tmp_path`/runs, times included."""
    copy = tmp_path / "runs" / "small" / "learning_loss" / "seed0"
    shutil.copytree(unbroken, copy)
    return copy
