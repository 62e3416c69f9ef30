"""The mistakes that the reference code makes, put into this code: tests notice each of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.__main__ import ROOT, Mutation, apply, mutations

MISTAKES = range(1, 11)


def test_each_of_the_ten_mistakes_can_be_put_back() -> None:
    """There is a patch of each; those that exist in several tasks name tests of each of them."""
    named: dict[int, str] = {}
    for mutation in mutations():
        for tests in mutation.caught_by:
            assert (ROOT / tests.partition("::")[0]).is_file(), (mutation.name, tests)
        named[mutation.mistake] = named.get(mutation.mistake, "") + " ".join(mutation.caught_by)
    assert sorted(named) == list(MISTAKES)
    for mistake in (1, 4, 5, 9):  # those of segmentation
        assert "test_segmentation" in named[mistake] or "test_regions.py" in named[mistake]
    for mistake in (1, 2, 8, 9):  # and of detection
        assert "tasks/test_detection.py" in named[mistake]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: mutation.name)
def test_a_mutation_applies_to_the_code_as_it_is(mutation: Mutation) -> None:
    """A patch that does not apply any more is to be made again where the code has moved."""
    assert apply(mutation.path, ROOT, check=True) == ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_mutation_is_noticed_by_the_tests_that_it_names(tmp_path: Path) -> None:
    """Each is applied to a copy, and a test of each file that it names fails there."""
    command = [sys.executable, "-m", "tests.mutations"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = done.stdout.splitlines()[2:]
    assert len(rows) == sum(len(mutation.caught_by) for mutation in mutations())
