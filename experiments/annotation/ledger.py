"""What people were asked and what they answered: the part of a run folder that nothing else holds.

`requests/batch_00/request.json` says what was asked, `annotations/images.json` which images there
are, in an order that never changes, and every `annotations/accepted/0000.json` is a set of answers
as they were taken over, never written again: a newer answer stands in a later file. Masks lie in
`annotations/masks` under the hash of what they hold. Killed at any moment, nothing is lost: what
was not taken over yet still lies where people put it.

Nothing imported here brings torch, so that `experiments.status` answers at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from al_core.files import atomic_write, write_bytes
from experiments.data.labels import Box, Item, Label, Rules, UnusableFile
from experiments.handoff.masks import read_png, write_png


@dataclass(frozen=True)
class Request:
    """Images that people are asked to annotate, in the order in which they are wanted.

    Attributes:
        cycle: Which one trains on them.
        train: Names, most wanted first.
        test: Names of those that are held out for measuring, of batch 0 only.
        scores: Of `train`, or None.
    """

    cycle: int
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.train, *self.test)


@dataclass(frozen=True)
class Kept:
    """An answer as it is kept.

    Attributes:
        refused: The image cannot be labeled.
        class_name: Of a classified image.
        boxes: [class, x_min, y_min, x_max, y_max, difficult] of each object.
        mask: Path of a PNG below `annotations`.
        source: The file it came from.
        order: Of that file among all that came: a later file says more.
        at: When it was taken over, UTC.
    """

    refused: bool = False
    class_name: str | None = None
    boxes: tuple[tuple[str, float, float, float, float, bool], ...] | None = None
    mask: str | None = None
    source: str = ""
    order: int = 0
    at: str = ""

    @property
    def objects(self) -> tuple[Box, ...] | None:
        """The boxes, as they were drawn."""
        if self.boxes is None:
            return None
        return tuple(
            Box(name, (x_min, y_min, x_max, y_max), difficult)
            for name, x_min, y_min, x_max, y_max, difficult in self.boxes
        )

    @property
    def said(self) -> tuple[Any, ...]:
        """What it says, without where it came from."""
        return self.refused, self.class_name, self.boxes, self.mask


@dataclass(frozen=True)
class Seen:
    """A returned file that was read.

    Attributes:
        fingerprint: Size and time of change then.
        order: As in `Kept`.
        problems: What of it was not used; it is read again while there are any.
    """

    fingerprint: str
    order: int
    problems: tuple[str, ...] = ()


@dataclass
class Ledger:
    """All of it, read from a run folder.

    Attributes:
        folder: The run folder.
        names: Of the images, in the order of their positions.
        requests: By cycle; those that were made in earnest.
        answers: The newest of each image.
        seen: By the file's path below the folder of what came back.
    """

    folder: Path
    names: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    answers: dict[str, Kept] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, *, cycle: int) -> Ledger:
        """Read what there is; of requests, those up to the one that `cycle` trains on.

        A request beyond that was written by a process that was killed before its cycle counted.

        Raises:
            UnusableFile: A file is damaged; the text names it.
        """
        ledger = cls(folder)
        ledger.names = _read_json(ledger.manifest, [])
        for _, path in _accepted_files(folder):
            for name, kept in _read_json(path, {}).items():
                boxes = kept.pop("boxes")
                ledger.answers[name] = Kept(
                    **kept, boxes=None if boxes is None else tuple(tuple(box) for box in boxes)
                )
        for name, seen in _read_json(folder / "annotations" / "seen.json", {}).items():
            ledger.seen[name] = Seen(seen["fingerprint"], seen["order"], tuple(seen["problems"]))
        for k in range(cycle + 1):
            path = request_folder(folder, k) / "request.json"
            if path.exists():
                ledger.requests.append(_request(_read_json(path, {})))
        return ledger

    @property
    def manifest(self) -> Path:
        """The file that lists the images."""
        return self.folder / "annotations" / "images.json"

    @property
    def test(self) -> tuple[str, ...]:
        """Names that are held out for measuring."""
        return tuple(name for request in self.requests for name in request.test)

    def answered(self, names: Iterable[str]) -> list[str]:
        """Return those that came back, labeled or refused."""
        return [name for name in names if name in self.answers]

    def labeled(self, names: Iterable[str]) -> list[str]:
        """Return those that are labeled."""
        return [name for name in names if name in self.answers and not self.answers[name].refused]

    def label(self, name: str, rules: Rules) -> Label:
        """Return the newest answer for an image.

        Raises:
            UnusableFile: Its mask is damaged.
        """
        kept = self.answers[name]
        mask = None
        if kept.mask is not None:
            mask = read_png((self.folder / "annotations" / kept.mask).read_bytes(), rules)
        return Label(
            class_name=kept.class_name, boxes=kept.objects, mask=mask, refused=kept.refused
        )

    # -- writing ----------------------------------------------------------------------------------

    def add_images(self, names: Sequence[str]) -> int:
        """Append the names that are new; return how many."""
        new = sorted(set(names) - set(self.names))
        if new:
            self.names += new
            _write_json(self.manifest, self.names)
        return len(new)

    def keep(self, label: Label, *, source: str, order: int, write: bool = True) -> Kept:
        """Return an answer in the form in which it is kept; with `write` its mask is there then."""
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
            source=source,
            order=order,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def accept(self, answers: Mapping[str, Kept], seen: Mapping[str, Seen]) -> None:
        """Take over answers, then note which files they came from."""
        if answers:
            numbers = [number for number, _ in _accepted_files(self.folder)]
            content = {name: asdict(kept) for name, kept in answers.items()}
            _write_json(_accepted_file(self.folder, max(numbers, default=-1) + 1), content)
            self.answers.update(answers)
        if dict(seen) != self.seen:
            self.seen = dict(seen)
            content = {name: asdict(each) for name, each in self.seen.items()}
            _write_json(self.folder / "annotations" / "seen.json", content)

    def write_request(self, request: Request, items: Sequence[Item]) -> None:
        """Write what is asked, with what the model makes of each image."""
        folder = request_folder(self.folder, request.cycle)
        drafts = []
        for place, item in enumerate(items):
            draft = item.draft
            kept: dict[str, Any] | None = None
            if draft is not None:
                kept = {"class_name": draft.class_name, "score": draft.score, "boxes": None}
                if draft.boxes is not None:
                    kept["boxes"] = [[b.class_name, *b.corners, b.score] for b in draft.boxes]
                if draft.mask is not None:
                    kept["mask"] = f"drafts/{place:06d}.png"
                    write_bytes(folder / kept["mask"], write_png(draft.mask))
            drafts.append({"size": list(item.size), "score": item.score, "draft": kept})
        _write_json(folder / "request.json", {**asdict(request), "items": drafts})

    def items(self, request: Request, root: Path, rules: Rules) -> list[Item]:
        """Return what a request hands out, in its order.

        Raises:
            UnusableFile: The request is damaged.
        """
        folder = request_folder(self.folder, request.cycle)
        kept = _read_json(folder / "request.json", {})["items"]
        return [
            Item(
                name,
                root / name,
                (one["size"][0], one["size"][1]),
                one["score"],
                _draft(one["draft"], folder, rules),
            )
            for name, one in zip(request.names, kept, strict=True)
        ]


def request_folder(folder: Path, cycle: int) -> Path:
    """Return where a request lies in a run folder."""
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
    """Return what could not be used, file by file."""
    return [problem for each in seen.values() for problem in each.problems]


def _request(content: Mapping[str, Any]) -> Request:
    scores = content["scores"]
    return Request(
        content["cycle"],
        tuple(content["train"]),
        tuple(content["test"]),
        None if scores is None else tuple(scores),
    )


def _draft(kept: Mapping[str, Any] | None, folder: Path, rules: Rules) -> Label | None:
    if kept is None:
        return None
    boxes = kept["boxes"]
    return Label(
        class_name=kept["class_name"],
        boxes=None
        if boxes is None
        else tuple(Box(b[0], (b[1], b[2], b[3], b[4]), score=b[5]) for b in boxes),
        mask=read_png((folder / kept["mask"]).read_bytes(), rules) if "mask" in kept else None,
        score=kept["score"],
    )


def _read_json(path: Path, default: Any) -> Any:
    if not path.exists():
        return default
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise UnusableFile(f"{path} cannot be read ({error}): restore it from a copy") from None


def _write_json(path: Path, content: Any) -> None:
    with atomic_write(path) as file:
        json.dump(content, file, ensure_ascii=False)
