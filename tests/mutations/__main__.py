"""Put the mistakes back, one by one, and see that tests fail:
`python -m tests.mutations [NAME ...] [--all-tests]`.

Prints a table; exit status 1 if a mistake is not noticed or its patch does not apply any more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Not used here: imported once, for all the processes that run tests.
import cv2  # noqa: F401
import pytest
import torch  # noqa: F401
import torchvision  # noqa: F401

ROOT = Path(__file__).parents[2]
SOURCES = ("al_core", "benchmarks", "conf", "docs", "experiments", "tests", "vendored")
FILES = ("pyproject.toml", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")
FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)
"""A test that failed; a file that cannot even be imported has no `::` and does not count."""


@dataclass(frozen=True)
class Mutation:
    """A patch, and who has to notice it.

    Attributes:
        path: The patch.
        mistake: Which of the ten it puts back.
        what: What it does.
        caught_by: Tests, as pytest takes them; each has to fail.
    """

    path: Path
    mistake: int
    what: str
    caught_by: tuple[str, ...]

    @property
    def name(self) -> str:
        """What the table calls it."""
        return self.path.stem


def mutations() -> list[Mutation]:
    """Read all patches."""
    found = []
    for path in sorted(Path(__file__).parent.glob("*.patch")):
        head = path.read_text(encoding="utf-8").partition("\ndiff --git ")[0]
        first = re.match(r"Mistake (\d+): (.+)\.\n", head)
        caught_by = re.findall(r"^Caught by: (\S+)$", head, re.MULTILINE)
        assert first, f"{path.name} does not begin with its mistake"
        assert caught_by, f"{path.name} does not say who has to notice it"
        found.append(Mutation(path, int(first[1]), first[2], tuple(caught_by)))
    return found


def copy_tree(target: Path) -> Path:
    """Copy what tests need; with their times, so that bytecode need not be made again."""
    for name in SOURCES:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns(".*"))
    for name in FILES:
        shutil.copy2(ROOT / name, target / name)
    return target


def apply(patch: Path, tree: Path, *, check: bool = False) -> str:
    """Apply a patch, or see whether it can be; return why not, or nothing."""
    command = ["git", "apply", "--check"] if check else ["git", "apply"]
    # Below a repository git passes over, without a word, what the repository does not know.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(
        [*command, str(patch)], cwd=tree, env=environment, capture_output=True, text=True
    )
    return done.stderr.strip().replace("\n", "; ")


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
    """Apply a mutation to a copy of the project; return what each of its tests said, and seconds.

    What was said is the test that failed, or begins with "SURVIVES" or "DOES NOT APPLY".
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder).resolve() / "tree")
        refused = apply(mutation.path, tree)
        if refused:
            return [(f"DOES NOT APPLY: {refused}", 0.0)]
        said = []
        for tests in ("tests",) if all_tests else mutation.caught_by:
            start = time.monotonic()
            test = failing(tree, [tests])
            said.append((test or f"SURVIVES {tests}", time.monotonic() - start))
        return said


def main(arguments: Sequence[str]) -> int:
    """Run the command line."""
    known = {mutation.name: mutation for mutation in mutations()}
    parser = argparse.ArgumentParser(prog="tests.mutations", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches; all of them if none")
    parser.add_argument("--all-tests", action="store_true", help="run the suite, not what is named")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(known))
    if unknown:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(known)}")
    chosen = [known[name] for name in given.names or known]
    missed = 0
    print("| mistake | mutation | noticed by | seconds |\n| --: | --- | --- | --: |")
    control = () if given.all_tests else {each for one in chosen for each in one.caught_by}
    with tempfile.TemporaryDirectory() as folder:
        test = failing(copy_tree(Path(folder).resolve() / "tree"), sorted(control))
        assert not test, f"{test} fails without any mutation"
    for name in given.names or known:
        for said, seconds in put_back(known[name], all_tests=given.all_tests):
            missed += said.startswith(("SURVIVES", "DOES NOT"))
            print(f"| {known[name].mistake} | {name} | {said} | {seconds:.0f} |", flush=True)
    if missed:
        print(f"{missed} were not noticed", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
