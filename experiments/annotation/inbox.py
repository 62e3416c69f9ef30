"""Detect new and changed annotation files in the folder in which annotations come back.

A file that was read without a problem is not read again until it changes. Files are numbered in the
order in which they were noticed, and an answer carries the number of its file. The answer with the
highest number counts, however often an older file is read again. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from experiments.settings.wording import is_utf8, one_line


@dataclass(frozen=True)
class Returned:
    """Result of reading the folder in which annotations come back.

    Attributes:
        answers: New and changed answers, by the name of the image.
        confirmed: Answers that repeat the value on record in a later file. They must be accepted
            too: otherwise a file between the two, read again, would count as the newest.
        seen: Every file of the folder as it is now.
    """

    answers: dict[str, Kept]
    confirmed: dict[str, Kept]
    seen: dict[str, Seen]

    @property
    def problems(self) -> list[str]:
        """Everything that cannot be used, one line each."""
        return problems_in(self.seen)


def read_returned(
    ledger: Ledger, returned: Path, rules: Rules, root: Path, *, write: bool = True
) -> Returned:
    """Read the files that are new, changed, or had problems before. The ledger does not change.

    Args:
        ledger: The record so far.
        returned: Folder in which annotations come back.
        rules: Classes and task.
        root: Folder of the images, to check the size of what was drawn.
        write: Whether to write masks into the ledger's folder, so that they can be accepted.
    """
    names = ImageNames(ledger.names, {n for request in ledger.requests for n in request.names})
    orders = [each.order for each in ledger.seen.values()]
    order = max([*orders, *(each.order for each in ledger.answers.values())], default=0)
    seen: dict[str, Seen] = {}
    newest: dict[str, Kept] = {}
    foldered: list[Answer] = []

    def size_of(name: str) -> tuple[int, int]:
        return upright_size(root / name)

    def take(answer: Answer) -> None:
        number = seen[answer.source].order
        last = newest.get(answer.name, ledger.answers.get(answer.name))
        if last is None or last.order <= number:
            newest[answer.name] = ledger.keep(
                answer.label, source=answer.source, order=number, write=write
            )

    for path, fingerprint in files_in(returned).items():
        source = path if is_utf8(path) else one_line(path)  # it cannot be written down as it is
        before = ledger.seen.get(source)
        if before is not None and before.fingerprint == fingerprint:
            seen[source] = before
            if not before.problems:
                continue
        else:
            order += 1
            seen[source] = Seen(fingerprint, order)
        problems: list[str] = []
        for one in read_file(returned, path, rules, names, size_of):
            if isinstance(one, Problem):
                problems.append(str(one))
            elif is_class_folder(source, rules):
                foldered.append(one)
            else:
                take(one)
        seen[source] = replace(seen[source], problems=tuple(problems))
    kept, twice = one_class_each(foldered)
    for answer in kept:
        take(answer)
    for problem in twice:
        seen[problem.where] = replace(seen[problem.where], problems=(str(problem),))
    return _compared(ledger, newest, seen)


def _compared(ledger: Ledger, newest: dict[str, Kept], seen: dict[str, Seen]) -> Returned:
    """Tell changed answers from confirmed ones; drop those that are on record as they are."""
    answers, confirmed = {}, {}
    for name, kept in newest.items():
        before = ledger.answers.get(name)
        if before is None or before.value != kept.value:
            answers[name] = kept
        elif before.order < kept.order:
            confirmed[name] = kept
    return Returned(answers, confirmed, seen)
