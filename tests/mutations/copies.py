"""Copies of the project with a mistake in them, and the tests that fail there."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mutations.edits import changed_files, find_test
from tests.mutations.mistakes import Mutation
from tests.small_runs import warmed_up

ROOT = Path(__file__).parents[2]
SOURCES = ("al_core", "benchmarks", "conf", "docs", "experiments", "tests", "vendored")
FILES = ("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def copy_tree(target: Path) -> Path:
    """Copy all files that tests need; with their times, so that their bytecode stays valid."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(".*"))
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    return target


@contextmanager
def mutated(tree: Path, mutation: Mutation) -> Iterator[None]:
    """Put a mistake into a copy of the project, and take it out at the end."""
    files = changed_files(mutation.edits, ROOT)
    for path, text in files.items():
        (tree / path).write_text(text, encoding="utf-8")
    try:
        yield
    finally:
        for path in files:
            shutil.copy2(ROOT / path, tree / path)


def failing(tree: Path, tests: Sequence[str]) -> str | None:
    """Run tests until one fails, in a process of their own; return that one, or None.

    The process is forked from the server of `tests.small_runs`, where the libraries are imported.
    """
    failed, output = tree.parent / "failed", tree.parent / "output"
    failed.unlink(missing_ok=True)
    child = warmed_up().Process(target=_run_pytest, args=(tree, tests, failed, output))
    child.start()
    child.join()
    if child.exitcode == 1 and failed.exists():
        return failed.read_text(encoding="utf-8")
    printed = output.read_text(encoding="utf-8")
    assert child.exitcode == 0, f"the tests cannot be run:\n{printed}"
    return None


def _run_pytest(tree: Path, tests: Sequence[str], failed: Path, output: Path) -> None:
    import pytest

    class Failed:
        """Write down a test that fails; a file that cannot be imported does not count."""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                failed.write_text(report.nodeid, encoding="utf-8")

    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
    os.chdir(tree)
    sys.dont_write_bytecode = True  # of files that change within a second
    sys.path[:] = [str(tree), *(place for place in sys.path[1:] if Path(place) != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in SOURCES]:
        del sys.modules[name]
    os.environ.update(OMP_NUM_THREADS="1", CI="true", PYTHONPATH=str(tree))
    options = ("-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:xdist")
    sys.exit(pytest.main([*options, "-m", "not slow", *tests], [Failed()]))


def noticed_by(mutation: Mutation, tree: Path, *, all_tests: bool = False) -> list[str]:
    """Apply a mutation to a copy of the project and run the tests that have to notice it.

    Returns:
        For each of them the test that failed, or a text that begins with "SURVIVES".

    Raises:
        AssertionError: One of them fails without the mutation, too.
    """
    with mutated(tree, mutation):
        found = [
            (failing(tree, [tests]), tests)
            for tests in (("tests",) if all_tests else caught_by(mutation))
        ]
    control = failing(tree, failed) if (failed := [test for test, _ in found if test]) else None
    assert control is None, f"{control} fails without any mutation"
    return [test or f"SURVIVES {tests}" for test, tests in found]


def caught_by(mutation: Mutation) -> list[str]:
    """Return the tests that have to notice a mutation, as pytest takes them."""
    return [find_test(name, ROOT) for name in mutation.caught_by]
