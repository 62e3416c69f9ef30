"""Put the mistakes back, one by one, and see that tests fail:
`python -m tests.mutations [NAME ...] [--all-tests]`.

Prints a table; exit status 1 if a mistake is not noticed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

# Not used here: imported once, for all the processes that run tests.
import cv2  # noqa: F401
import pytest
import torch  # noqa: F401
import torchvision  # noqa: F401

from tests.mutations.edits import changed_files, find_test
from tests.mutations.mistakes import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
SOURCES = ("al_core", "benchmarks", "conf", "docs", "experiments", "tests", "vendored")
FILES = ("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)
"""A test that failed; a file that cannot even be imported has no `::` and does not count."""


def copy_tree(target: Path) -> Path:
    """Copy what tests need; with their times, so that bytecode need not be made again."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(".*"))
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    return target


def apply(mutation: Mutation, tree: Path) -> None:
    """Put a mistake into a copy of the project."""
    for path, text in changed_files(mutation.edits, ROOT).items():
        (tree / path).write_text(text, encoding="utf-8")


def failing(tree: Path, tests: Sequence[str]) -> str | None:
    """Run tests until one fails, in a process of their own; return that one, or None.

    The process is forked from this one, which has imported what takes long, and knows nothing of
    the project but this package.
    """
    output = tree.parent / "output"
    child = multiprocessing.get_context("fork").Process(
        target=_run_pytest, args=(tree, tests, output)
    )
    child.start()
    child.join()
    printed = output.read_text(encoding="utf-8")
    found = FAILED.search(printed)
    if child.exitcode == 1 and found:
        return found[1]
    assert child.exitcode == 0, f"the tests cannot be run:\n{printed}"
    return None


def _run_pytest(tree: Path, tests: Sequence[str], output: Path) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), descriptor)
    os.chdir(tree)
    sys.path[:] = [str(tree), *(place for place in sys.path[1:] if Path(place) != ROOT)]
    for name in [name for name in sys.modules if name.partition(".")[0] in SOURCES]:
        del sys.modules[name]
    os.environ.update(OMP_NUM_THREADS="1", CI="true", COLUMNS="400", PYTHONPATH=str(tree))
    options = ("-x", "-q", "-rfE", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow")
    sys.exit(pytest.main([*options, *tests]))


def put_back(mutation: Mutation, *, all_tests: bool = False) -> list[tuple[str, float]]:
    """Apply a mutation to a copy of the project and run the tests that have to notice it.

    Returns:
        For each of them the test that failed, or a text that begins with "SURVIVES", and seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder).resolve() / "tree")
        apply(mutation, tree)
        noticed = []
        for tests in ("tests",) if all_tests else caught_by(mutation):
            start = time.monotonic()
            test = failing(tree, [tests])
            noticed.append((test or f"SURVIVES {tests}", time.monotonic() - start))
        return noticed


def caught_by(mutation: Mutation) -> list[str]:
    """Return the tests that have to notice a mutation, as pytest takes them."""
    return [find_test(name, ROOT) for name in mutation.caught_by]


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    known = {mutation.name: mutation for mutation in MUTATIONS}
    parser = argparse.ArgumentParser(prog="tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="mutations; all of them if none")
    parser.add_argument("--all-tests", action="store_true", help="run the suite, not what is named")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(known))
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(known)}")
    chosen = [known[name] for name in given.names or known]
    missed = 0
    print("| mistake | mutation | noticed by | seconds |\n| --: | --- | --- | --: |")
    control = () if given.all_tests else {each for one in chosen for each in caught_by(one)}
    with tempfile.TemporaryDirectory() as folder:
        failed = failing(copy_tree(Path(folder).resolve() / "tree"), sorted(control))
        assert not failed, f"{failed} fails without any mutation"
    for name in given.names or known:
        for test, seconds in put_back(known[name], all_tests=given.all_tests):
            missed += test.startswith("SURVIVES")
            print(f"| {known[name].mistake} | {name} | {test} | {seconds:.0f} |", flush=True)
    if missed:
        print(f"{missed} were not noticed", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
