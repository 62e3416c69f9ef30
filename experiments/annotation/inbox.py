"""What is new in the folder in which annotations come back, compared with what is known.

A file that was read without a problem is not read again until it changes. Files have numbers in the
order in which they were noticed, and an answer carries that of its file, so that the newest one
counts however often an older file is read again. Nothing here needs torch.
"""

from __future__ import annotations

from pathlib import Path

from experiments.annotation.ledger import Kept, Ledger, Seen, problems_in
from experiments.data.labels import Problem, Rules
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import (
    Answer,
    files_in,
    is_class_folder,
    one_class_each,
    read_file,
    upright_size,
)


def read_returned(
    ledger: Ledger, returned: Path, rules: Rules, root: Path, *, write: bool = True
) -> tuple[dict[str, Kept], dict[str, Seen], list[str]]:
    """Read the files that are new, changed, or were not wholly usable; nothing is taken over yet.

    Args:
        ledger: What is known.
        returned: Folder of what came back.
        rules: Classes.
        root: Folder of the images, to check sizes.
        write: Whether masks are written to the ledger's folder, to be taken over.

    Returns:
        The answers that say something new, the files as they are now, and what cannot be used.
    """
    names = ImageNames(ledger.names, {n for request in ledger.requests for n in request.names})
    orders = [each.order for each in ledger.seen.values()]
    order = max([*orders, *(each.order for each in ledger.answers.values())], default=0)
    seen: dict[str, Seen] = {}
    taken: dict[str, Kept] = {}
    foldered: list[tuple[Answer, int]] = []

    def size_of(name: str) -> tuple[int, int]:
        return upright_size(root / name)

    for source, fingerprint in files_in(returned).items():
        before = ledger.seen.get(source)
        same = before is not None and before.fingerprint == fingerprint
        if before is not None and same and not before.problems:
            seen[source] = before
            continue
        if before is not None and same:
            number = before.order
        else:
            order += 1
            number = order
        problems: list[str] = []
        for one in read_file(returned, source, rules, names, size_of):
            if isinstance(one, Problem):
                problems.append(str(one))
            elif is_class_folder(source, rules):
                foldered.append((one, number))
            else:
                _take(ledger, taken, one, number, write=write)
        seen[source] = Seen(fingerprint, number, tuple(problems))
    kept, twice = one_class_each([answer for answer, _ in foldered])
    numbers = {answer.source: number for answer, number in foldered}
    for answer in kept:
        _take(ledger, taken, answer, numbers[answer.source], write=write)
    for problem in twice:
        each = seen[problem.where]
        seen[problem.where] = Seen(each.fingerprint, each.order, (str(problem),))
    return taken, seen, problems_in(seen)


def _take(
    ledger: Ledger, taken: dict[str, Kept], answer: Answer, order: int, *, write: bool
) -> None:
    """Note an answer if it is the newest, and says something new."""
    before = ledger.answers.get(answer.name)
    last = taken.get(answer.name, before)
    if last is not None and last.order > order:
        return
    kept = ledger.keep(answer.label, source=answer.source, order=order, write=write)
    if before is not None and before.said == kept.said:
        taken.pop(answer.name, None)
    else:
        taken[answer.name] = kept
