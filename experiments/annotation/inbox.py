"""Detect new and changed annotation files in the folder in which annotations come back.

A file that was read without a problem is not read again until it changes. Files are numbered in the
order in which they were noticed, and an answer carries the number of its file. The answer with the
highest number counts, however often an older file is read again. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from experiments.annotation.ledger import Ledger, problems_in
from experiments.annotation.records import Kept, Seen
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
        notes: Names in the files that were taken for classes although case or surrounding blanks
            differ, one line each.
    """

    answers: dict[str, Kept]
    confirmed: dict[str, Kept]
    seen: dict[str, Seen]
    notes: tuple[str, ...] = ()

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
    notes: dict[str, None] = {}

    def notice(given: str, meant: str) -> None:
        notes[one_line(f"{given!r} was taken for the class {meant}")] = None

    names = ImageNames(ledger.names, {n for request in ledger.requests for n in request.names})
    reading = _Reading(ledger, returned, replace(rules, notice=notice), names, root, write)
    orders = [each.order for each in ledger.seen.values()]
    order = max([*orders, *(each.order for each in ledger.answers.values())], default=0)
    for path, fingerprint in files_in(returned).items():
        source = path if is_utf8(path) else one_line(path)  # it cannot be written down as it is
        before = ledger.seen.get(source)
        if before is not None and before.fingerprint == fingerprint:
            reading.seen[source] = before
            if not before.problems:
                continue
        else:
            order += 1
            reading.seen[source] = Seen(fingerprint, order)
        reading.read(path, source)
    reading.finish()
    return _compared(ledger, reading.newest, reading.seen, tuple(notes))


@dataclass
class _Reading:
    """The files of a folder as they are read, the oldest first."""

    ledger: Ledger
    returned: Path
    rules: Rules
    names: ImageNames
    root: Path
    write: bool
    seen: dict[str, Seen] = field(default_factory=dict)
    newest: dict[str, Kept] = field(default_factory=dict)
    foldered: list[Answer] = field(default_factory=list)
    file_of: dict[str, str] = field(default_factory=dict)
    """The file of an answer's source, which may lie in an archive."""

    def read(self, path: str, source: str) -> None:
        """Take the answers of a file, and note its problems."""
        problems: list[str] = []
        for one in read_file(self.returned, path, self.rules, self.names, self._size_of):
            if isinstance(one, Problem):
                problems.append(str(one))
                continue
            self.file_of[one.source] = source
            if is_class_folder(one.source, self.rules):
                self.foldered.append(one)
            else:
                self._take(one)
        self.seen[source] = replace(self.seen[source], problems=tuple(problems))

    def finish(self) -> None:
        """Take images in the folders of classes, but for those that lie in two."""
        kept, twice = one_class_each(self.foldered)
        for answer in kept:
            self._take(answer)
        for problem in twice:
            file = self.file_of[problem.where]
            known = self.seen[file].problems
            self.seen[file] = replace(self.seen[file], problems=(*known, str(problem)))

    def _take(self, answer: Answer) -> None:
        number = self.seen[self.file_of[answer.source]].order
        last = self.newest.get(answer.name, self.ledger.answers.get(answer.name))
        if last is None or last.order <= number:
            self.newest[answer.name] = self.ledger.keep(
                answer.label, source=answer.source, order=number, write=self.write
            )

    def _size_of(self, name: str) -> tuple[int, int]:
        return upright_size(self.root / name)


def _compared(
    ledger: Ledger, newest: dict[str, Kept], seen: dict[str, Seen], notes: tuple[str, ...]
) -> Returned:
    """Tell changed answers from confirmed ones; drop those that are on record as they are."""
    answers, confirmed = {}, {}
    for name, kept in newest.items():
        before = ledger.answers.get(name)
        if before is None or before.value != kept.value:
            answers[name] = kept
        elif before.order < kept.order:
            confirmed[name] = kept
    return Returned(answers, confirmed, seen, notes)
