"""The images of a run keep their positions when the images on disk change between two starts.

A run knows the images of its pool and of its test set by position, in its state and in its files.
`images.csv` in its folder says which image each position stands for, and these are the rules:

- An image that was added to the pool gets a position after all others.
- An image that is gone keeps its position and is left out until it is back.
- An image that was renamed keeps its position; it is recognized by its content.
- A run measures with the test set that it began with. Images that were added to it are left out,
  and a run whose test images are gone, changed or unreadable is refused, because its cycles could
  no longer be compared.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from al_core.errors import InvalidSetting
from experiments.data.arranged import GONE, Arrangement, T, arranged
from experiments.data.content import content_hashes
from experiments.data.pictures import Pictures
from experiments.data.samples import Samples
from experiments.runs.known_images import Known, Record
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)

HASHED_BYTES = 500_000_000
"""Bytes of a set up to which its contents are hashed at each start, in less than a second."""
IS_GONE = "it is gone"
NUM_NAMED = 3
"""Names in a line of the log."""


@dataclass
class Present:
    """The files of a set as they are now; contents are hashed when they are asked for."""

    samples: Samples | Pictures
    stats: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self._contents: dict[int, str] = {}
        self.stats = [_stat(path) for path in self.samples.paths or ()]
        if sum(max(0, size) for size, _ in self.stats) <= HASHED_BYTES:
            self.hash(range(len(self.stats)))

    def hash(self, indices: Sequence[int]) -> None:
        """Hash the contents of files, as far as that has not been done."""
        paths = self.samples.paths
        assert paths is not None, "a set without files has no contents"
        # What could not be read a moment ago is not tried once more.
        left = [i for i in indices if i not in self._contents and i not in self.samples.unreadable]
        hashes = content_hashes([paths[index] for index in left])
        for index, found in zip(left, hashes, strict=True):
            self._contents[index] = "" if found is None else found.hex()

    def content(self, index: int) -> str:
        """Return the hash of a file, or "" where there is none."""
        return self._contents.get(index, "")

    def entry(self, index: int, *, left_out: str) -> Known:
        """Return what is to be known of a file."""
        name = self.samples.names[index]
        return Known(name, *self.stats[index], self.content(index), left_out)

    def entries(self) -> list[Known]:
        """Return what is to be known of all files, in their order."""
        unreadable = self.samples.unreadable
        return [
            self.entry(index, left_out=unreadable.get(index, ""))
            for index in range(len(self.samples))
        ]


@dataclass(frozen=True)
class Changes:
    """How a set differs from what a run knows of it.

    Attributes:
        order: Where each known image is in the set as it is now, or `GONE`.
        added: Positions in the set as it is now of the images that the run does not know.
        gone: Known positions of images that have gone since the last start.
        back: Likewise, of images that were gone then.
        renamed: Likewise, of images with another name now.
        changed: Likewise, of images with another content now.
        rewritten: Likewise, of images that were written again, the size being the same and the
            content not on record.
    """

    order: list[int]
    added: list[int]
    gone: list[int]
    back: list[int]
    renamed: list[int]
    changed: list[int]
    rewritten: list[int]


def changes(known: Sequence[Known], now: Present) -> Changes:
    """Find the images that a run knows among those that there are."""
    where = {name: index for index, name in enumerate(now.samples.names)}
    order = [where.get(one.name, GONE) for one in known]
    names = {one.name for one in known}
    added = [index for name, index in where.items() if name not in names]
    renamed = _renamed(known, order, added, now)
    for position, index in renamed.items():
        order[position] = index
    taken = set(renamed.values())
    found = Changes(order, [i for i in added if i not in taken], [], [], sorted(renamed), [], [])
    for position, (one, index) in enumerate(zip(known, order, strict=True)):
        if index == GONE:
            if one.left_out != IS_GONE:
                found.gone.append(position)
            continue
        if one.left_out == IS_GONE:
            found.back.append(position)
        if position in renamed or one.size < 0 or now.stats[index][0] < 0:
            continue
        if one.content and now.stats[index] != (one.size, one.modified_ns):
            now.hash([index])
        if one.content and now.content(index):
            if one.content != now.content(index):
                found.changed.append(position)
        elif one.size != now.stats[index][0]:
            found.changed.append(position)
        elif one.modified_ns != now.stats[index][1]:
            found.rewritten.append(position)
    return found


def _renamed(
    known: Sequence[Known], order: Sequence[int], added: Sequence[int], now: Present
) -> dict[int, int]:
    """Return position -> index of the missing images whose content has a new name.

    Without contents on record, an image is taken for the same if it is the only one of its size
    and time.
    """
    missing = [p for p, index in enumerate(order) if index == GONE and known[p].size >= 0]
    if not missing or not added:
        return {}
    sizes = {known[position].size for position in missing}
    candidates = [index for index in added if now.stats[index][0] in sizes]
    if any(known[position].content for position in missing):
        now.hash(candidates)
    by_content: dict[str, list[int]] = {}
    by_stat: dict[tuple[int, int], list[int]] = {}
    for index in candidates:
        by_content.setdefault(now.content(index), []).append(index)
        by_stat.setdefault(now.stats[index], []).append(index)
    found: dict[int, int] = {}
    for position in missing:
        one = known[position]
        same = by_content.get(one.content, []) if one.content else []
        if not one.content and len(by_stat.get((one.size, one.modified_ns), [])) == 1:
            same = by_stat[one.size, one.modified_ns]
        same = [index for index in same if index not in found.values()]
        if same:
            found[position] = same[0]
    return found


@dataclass(frozen=True)
class RunImages:
    """The images of a run at this start.

    Attributes:
        record: What `images.csv` is to say.
        recorded: Whether an earlier start has written the file.
        came_back: Positions in the pool of images that were left out and no longer are.
        lost: Positions in the pool of images that were used and are left out now.
        changed: Positions in the pool of images with another content now.
    """

    record: Record
    recorded: bool = False
    came_back: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()


def settled(
    data: T, record: Record | None, *, fixed: bool, of_regions: bool = False
) -> tuple[T, RunImages]:
    """Give the images of a data set the positions that a run knows them by.

    Args:
        data: As it was built from what is on disk.
        record: Of an earlier start of a run that has done a cycle; None if there is none.
        fixed: Whether the order of the pool is kept elsewhere and the test set may change, as with
            people as the oracle: then changes are only reported.
        of_regions: Whether the samples of the pool are regions, which are numbered over all images
            that could be read when the run began: then what was left out stays so.

    Raises:
        InvalidSetting: The test set has changed.
        OSError: A file cannot be read at present.
    """
    if any(samples.paths is None for samples in (data.train, data.test)):
        return data, RunImages({})
    now = {"train": Present(data.train), "test": Present(data.test)}
    if not record:
        return data, RunImages({part: present.entries() for part, present in now.items()})
    found = {part: changes(record[part], present) for part, present in now.items()}
    for part, difference in found.items():
        _report(part, record[part], now[part], difference, fixed=fixed)
    if fixed:
        entries = {part: present.entries() for part, present in now.items()}
        return data, RunImages(entries, recorded=True)
    _check_test_set(record["test"], now["test"], found["test"])
    orders = {"train": [*found["train"].order, *found["train"].added], "test": found["test"].order}
    left_out = {p: IS_GONE for p, index in enumerate(orders["train"]) if index == GONE}
    if of_regions:
        left_out |= {p: one.left_out for p, one in enumerate(record["train"]) if one.left_out}
    # What was left out of the measure when the run began stays so, even if it could be read now.
    unmeasured = {p: one.left_out for p, one in enumerate(record["test"]) if one.left_out}
    data = arranged(
        data,
        train=_arrangement(orders["train"], record["train"], now["train"], left_out),
        test=_arrangement(orders["test"], record["test"], now["test"], unmeasured),
    )
    written = {
        part: _entries(orders[part], record[part], now[part], samples)
        for part, samples in (("train", data.train), ("test", data.test))
    }
    used = [
        (position, not was.left_out, not is_.left_out)
        for position, (was, is_) in enumerate(zip(record["train"], written["train"], strict=False))
    ]
    return data, RunImages(
        written,
        recorded=True,
        came_back=tuple(position for position, was, is_ in used if is_ and not was),
        lost=tuple(position for position, was, is_ in used if was and not is_),
        changed=tuple(found["train"].changed),
    )


def _arrangement(
    order: Sequence[int], known: Sequence[Known], now: Present, left_out: dict[int, str]
) -> Arrangement:
    names = [
        known[position].name if index == GONE else now.samples.names[index]
        for position, index in enumerate(order)
    ]
    return Arrangement(np.array(order, np.int64), names, left_out)


def _entries(
    order: Sequence[int], known: Sequence[Known], now: Present, samples: Samples | Pictures
) -> list[Known]:
    """Return the entries of an arranged set; images that are gone keep what is known of them."""
    return [
        known[position]._replace(left_out=samples.unreadable[position])
        if index == GONE
        else now.entry(index, left_out=samples.unreadable.get(position, ""))
        for position, index in enumerate(order)
    ]


def _check_test_set(known: Sequence[Known], now: Present, difference: Changes) -> None:
    """Refuse a test set in which an image that was measured with is gone, changed or unreadable.

    Raises:
        InvalidSetting: One is.
    """
    unreadable = [p for p, index in enumerate(difference.order) if index in now.samples.unreadable]
    for positions, what in (
        (difference.gone, "gone"), (difference.changed, "changed"), (unreadable, "unreadable now")
    ):  # fmt: skip
        names = [known[position].name for position in positions if not known[position].left_out]
        if names:
            raise InvalidSetting(
                f"the test set has changed since this run began, and its cycles could not be "
                f"compared: {_few(names)} {what}; put the test images back as they were, or start "
                "anew with out=..."
            )


def _report(
    part: str, known: Sequence[Known], now: Present, difference: Changes, *, fixed: bool
) -> None:
    """Log what has changed since the last start, a line for each kind of change."""
    of = "pool" if part == "train" else "test set"
    then = "since the last start" if part == "train" else "since the run began"
    named = [one.name for one in known]
    are = [now.samples.names[i] if i != GONE else "" for i in difference.order]
    added = [now.samples.names[index] for index in difference.added]
    place = "they come after all others" if part == "train" else "they are left out"
    for names, what, result in (
        (added, "added to", "" if fixed else f": {place}"),
        ([named[p] for p in difference.gone], "gone from", ": left out until back"),
        ([named[p] for p in difference.back], "back in", ""),
        ([f"{named[p]} -> {are[p]}" for p in difference.renamed], "renamed in", ""),
        ([named[p] for p in difference.changed], "changed in", ": labels may no longer fit"),
        ([named[p] for p in difference.rewritten], "written again in", ": perhaps changed"),
    ):
        if names:
            logger.warning("%s %s the %s %s%s", _few(names), what, of, then, result)


def _few(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > NUM_NAMED else ""
    return f"{counted(len(names), 'image')} ({', '.join(names[:NUM_NAMED])}{more})"


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return -1, -1
    return found.st_size, found.st_mtime_ns
