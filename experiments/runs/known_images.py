"""The file `images.csv` of a run folder: which images a run knows, by which positions.

The columns are: `set`, "train" (the pool) or "test"; `position`, from 0; `name`, as in the other
files of the run; `size` in bytes and `modified_ns`, the time of the last change in nanoseconds
since 1970, both -1 where there is no file; `content`, a BLAKE2b hash of 16 bytes in hexadecimal
digits, empty in sets that are not hashed; and `left_out`, the reason why the image is not used,
empty if it is. A run on sets that are not made of files, such as CIFAR-10, has no such file.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from al_core.errors import InvalidSetting
from al_core.files import atomic_write

IMAGES = "images.csv"


class Known(NamedTuple):
    """An image as it was at some start; the columns of `images.csv` from `name` on."""

    name: str
    size: int = -1
    modified_ns: int = -1
    content: str = ""
    left_out: str = ""


Record = Mapping[str, Sequence[Known]]
"""By set, "train" and "test"; the order is that of the positions."""


def write_record(folder: Path, record: Record) -> None:
    """Write `images.csv`, whole, unless there is nothing to write."""
    if not record:
        return
    with atomic_write(folder / IMAGES) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("set", "position", *Known._fields))
        for part, entries in record.items():
            writer.writerows((part, position, *one) for position, one in enumerate(entries))


def read_record(folder: Path) -> Record | None:
    """Read `images.csv`; None where there is none.

    Raises:
        InvalidSetting: It is damaged.
    """
    file = folder / IMAGES
    found: dict[str, list[Known]] = {"train": [], "test": []}
    try:
        with open(file, encoding="utf-8", newline="") as opened:
            rows = csv.reader(opened)
            if next(rows, None) != ["set", "position", *Known._fields]:
                raise ValueError("its header is another one")
            for part, position, name, size, modified_ns, content, left_out in rows:
                if int(position) != len(found[part]):
                    raise ValueError(f"position {position} follows {len(found[part]) - 1}")
                found[part].append(Known(name, int(size), int(modified_ns), content, left_out))
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, csv.Error) as error:
        raise InvalidSetting(
            f"{file} cannot be read ({error}); restore it from a copy, or move the folder away to "
            "start anew"
        ) from None
    return found
