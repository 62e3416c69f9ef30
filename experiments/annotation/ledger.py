"""The record of requests and answers: the part of a run folder that nothing else holds.

- `requests/batch_00/request.json`: the images of a request, with scores and drafts.
- `annotations/images.json`: the names of all images, in an order that never changes.
- `annotations/accepted/000000.json`: accepted answers. A file is written once; a newer answer of an
  image is in a file with a higher number.
- `annotations/masks`: masks under the hash of their content.
- `annotations/seen.json`: the returned files that were read, with their problems.

A process may be killed at any moment: answers that were not accepted yet are still in the folder in
which they came back. Nothing imported here brings torch, so that `experiments.status` answers at
once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from al_core.files import write_bytes
from experiments.annotation.records import (
    ANSWERS,
    ITEMS,
    NAMES,
    REQUEST,
    SEEN,
    Draft,
    ItemRecord,
    Kept,
    Request,
    Seen,
    check_names,
    read_json,
    write_json,
)
from experiments.data.labels import Box, Item, Keypoint, Label, Rules, UnusableFile, shown
from experiments.data.untrusted import read_untrusted
from experiments.handoff.masks import read_png, write_png


@dataclass
class Ledger:
    """The whole record of a run.

    Attributes:
        folder: The run folder.
        names: Names of the images, in the order of their positions.
        requests: Requests of the cycles up to the next one, in their order.
        answers: The newest answer of each image.
        seen: Returned files, by their path below the folder in which annotations come back.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Kept] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, *, cycle: int) -> Ledger:
        """Read the record, with the requests up to the one that `cycle` trains on.

        A later request was written by a process that was killed before its cycle was recorded.

        Raises:
            UnusableFile: A file is damaged; the text names it.
        """
        ledger = cls(folder)
        ledger.names = read_json(ledger.manifest, NAMES) or []
        check_names(ledger.names, ledger.manifest)
        for _, path in _accepted_files(folder):
            accepted = read_json(path, ANSWERS)
            ledger.answers.update(accepted or {})
        ledger.seen = read_json(ledger._seen_file, SEEN) or {}
        for k in range(cycle + 1):
            file = request_folder(folder, k) / "request.json"
            request = read_json(file, REQUEST)
            if request is not None:
                ledger._check_request(request, k, file)
                ledger.requests.append(request)
        return ledger

    def _check_request(self, request: Request, cycle: int, file: Path) -> None:
        """Check that a request is one of this run: files elsewhere are never shown or exported.

        Raises:
            UnusableFile: It is of another batch, or names what is no image of the run.
        """
        known = set(self.names)
        unknown = [name for name in request.names if name not in known]
        for is_wrong, what in (
            (request.cycle != cycle, f"it is of batch {request.cycle}"),
            (unknown, f"{shown(unknown[0]) if unknown else ''} is no image of this run"),
            (len(set(request.names)) < len(request.names), "it names an image twice"),
            (len(request.scores or request.train) != len(request.train), "scores are missing"),
        ):
            if is_wrong:
                raise UnusableFile(f"{file} cannot be used ({what}): restore it from a copy")

    @property
    def manifest(self) -> Path:
        """The file that lists the images."""
        return self.folder / "annotations" / "images.json"

    @property
    def _seen_file(self) -> Path:
        return self.folder / "annotations" / "seen.json"

    @property
    def test(self) -> tuple[str, ...]:
        """Names of the images that are held out for measuring."""
        return tuple(name for request in self.requests for name in request.test)

    def answered(self, names: Iterable[str]) -> list[str]:
        """Return the names that have an answer, labeled or refused."""
        return [name for name in names if name in self.answers]

    def labeled(self, names: Iterable[str]) -> list[str]:
        """Return the names that are labeled."""
        return [name for name in names if name in self.answers and not self.answers[name].refused]

    def label(self, name: str, rules: Rules) -> Label:
        """Return the newest answer for an image.

        Raises:
            UnusableFile: Its mask is damaged.
        """
        kept = self.answers[name]
        mask = None
        if kept.mask is not None:
            folder = self.folder / "annotations"
            mask = read_png(read_untrusted(folder / kept.mask, inside=folder), rules)
        return Label(
            class_name=kept.class_name,
            boxes=kept.objects,
            mask=mask,
            keypoints=kept.joints,
            refused=kept.refused,
        )

    # -- writing ----------------------------------------------------------------------------------

    def add_images(self, names: Sequence[str]) -> int:
        """Append the names that are new, and return their number."""
        new = sorted(set(names) - set(self.names))
        if new:
            self.names += new
            write_json(self.manifest, self.names)
        return len(new)

    def keep(self, label: Label, *, source: str, order: int, write: bool = True) -> Kept:
        """Return an answer in the form in which it is kept; with `write`, write its mask first."""
        mask = None
        if label.mask is not None:
            data = write_png(label.mask)
            mask = f"masks/{hashlib.sha256(data).hexdigest()[:32]}.png"
            target = self.folder / "annotations" / mask
            if write and not target.exists():
                write_bytes(target, data)
        boxes = label.boxes
        return Kept(
            refused=label.refused,
            class_name=label.class_name,
            boxes=None
            if boxes is None
            else tuple((box.class_name, *box.corners, box.difficult) for box in boxes),
            mask=mask,
            keypoints=None
            if label.keypoints is None
            else tuple((each.name, each.x, each.y, each.visibility) for each in label.keypoints),
            source=source,
            order=order,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def accept(self, answers: Mapping[str, Kept], seen: Mapping[str, Seen]) -> None:
        """Write answers into the record, then the files from which they came."""
        if answers:
            numbers = [number for number, _ in _accepted_files(self.folder)]
            content = {name: asdict(kept) for name, kept in answers.items()}
            write_json(_accepted_file(self.folder, max(numbers, default=-1) + 1), content)
            self.answers.update(answers)
        if dict(seen) != self.seen:
            self.seen = dict(seen)
            content = {name: asdict(each) for name, each in self.seen.items()}
            write_json(self._seen_file, content)

    def write_request(self, request: Request, items: Sequence[Item]) -> None:
        """Write a request, with the size, the score and the model's draft of each image."""
        folder = request_folder(self.folder, request.cycle)
        kept = [
            ItemRecord(item.size, item.score, _kept_draft(item.draft, folder, place))
            for place, item in enumerate(items)
        ]
        self._write_items(request, kept)

    def renew_drafts(self, drafts: Mapping[str, Label]) -> None:
        """Replace the model's drafts of images in the requests that are written already.

        Raises:
            UnusableFile: A request is damaged.
        """
        for request in self.requests:
            if drafts.keys().isdisjoint(request.names):
                continue
            folder = request_folder(self.folder, request.cycle)
            kept = [
                replace(one, draft=_kept_draft(drafts[name], folder, place))
                if name in drafts
                else one
                for place, (name, one) in enumerate(self._read_items(request))
            ]
            self._write_items(request, kept)

    def items(self, request: Request, root: Path, rules: Rules) -> list[Item]:
        """Return the images of a request, in the order of its queue.

        Raises:
            UnusableFile: The request is damaged.
        """
        folder = request_folder(self.folder, request.cycle)
        items = {
            name: Item(name, root / name, one.size, one.score, _drawn(one.draft, folder, rules))
            for name, one in self._read_items(request)
        }
        return [items[name] for name in request.queue]

    def _write_items(self, request: Request, kept: Sequence[ItemRecord]) -> None:
        content = {**asdict(request), "items": [asdict(one) for one in kept]}
        write_json(request_folder(self.folder, request.cycle) / "request.json", content)

    def _read_items(self, request: Request) -> list[tuple[str, ItemRecord]]:
        file = request_folder(self.folder, request.cycle) / "request.json"
        kept = read_json(file, ITEMS)
        if kept is None or len(kept.items) != len(request.names):
            raise UnusableFile(f"{file} is incomplete: restore it from a copy")
        return list(zip(request.names, kept.items, strict=True))


def request_folder(folder: Path, cycle: int) -> Path:
    """Return the folder of a request in a run folder."""
    return folder / "requests" / f"batch_{cycle:02d}"


def _accepted_file(folder: Path, number: int) -> Path:
    return folder / "annotations" / "accepted" / f"{number:06d}.json"


def _accepted_files(folder: Path) -> list[tuple[int, Path]]:
    """Return the files of accepted answers with their numbers, in ascending order.

    Raises:
        UnusableFile: A file was put there under another name.
    """
    found = []
    for path in (folder / "annotations" / "accepted").glob("*.json"):
        if not (path.stem.isascii() and path.stem.isdecimal()):
            raise UnusableFile(f"{path} is no file of accepted answers: move it away")
        found.append((int(path.stem), path))
    return sorted(found)


def problems_in(seen: Mapping[str, Seen]) -> list[str]:
    """Return everything that could not be used, file by file."""
    return [problem for each in seen.values() for problem in each.problems]


def _kept_draft(draft: Label | None, folder: Path, place: int) -> Draft | None:
    """Return a draft in the form in which it is kept; its mask is written first."""
    if draft is None:
        return None
    mask = None
    if draft.mask is not None:
        mask = f"drafts/{place:06d}.png"
        write_bytes(folder / mask, write_png(draft.mask))
    boxes, keypoints = draft.boxes, draft.keypoints
    return Draft(
        class_name=draft.class_name,
        score=draft.score,
        boxes=None if boxes is None else tuple((b.class_name, *b.corners, b.score) for b in boxes),
        mask=mask,
        keypoints=None if keypoints is None else tuple((*each,) for each in keypoints),
    )


def _drawn(draft: Draft | None, folder: Path, rules: Rules) -> Label | None:
    if draft is None:
        return None
    boxes = draft.boxes
    return Label(
        class_name=draft.class_name,
        boxes=None
        if boxes is None
        else tuple(Box(name, (a, b, c, d), score=score) for name, a, b, c, d, score in boxes),
        mask=None
        if draft.mask is None
        else read_png(read_untrusted(folder / draft.mask, inside=folder), rules),
        keypoints=None
        if draft.keypoints is None
        else tuple(Keypoint(*each) for each in draft.keypoints),
        score=draft.score,
    )
