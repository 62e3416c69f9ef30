"""Put the mistakes back, one by one, and see that tests fail:
`python -m tests.mutations [NAME ...] [--all-tests]`.

Prints a table; exit status 1 if a mistake is not noticed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutations.copies import copy_tree, noticed_by
from tests.mutations.mistakes import MUTATIONS


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
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder).resolve() / "tree")
        for mutation in chosen:
            start = time.monotonic()
            tests = noticed_by(mutation, tree, all_tests=given.all_tests)
            seconds = time.monotonic() - start
            missed += sum(test.startswith("SURVIVES") for test in tests)
            row = (mutation.mistake, mutation.name, ", ".join(tests), f"{seconds:.1f}")
            print("|", " | ".join(map(str, row)), "|", flush=True)
    if missed:
        print(f"{missed} were not noticed", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
