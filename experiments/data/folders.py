"""Find the image files of a folder, in an order that does not depend on the file system."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from al_core.errors import InvalidSetting
from experiments.data.header import IMAGE_SUFFIXES
from experiments.settings.wording import counted, is_utf8

log = logging.getLogger(__name__)

NOT_UTF8 = "with a name that is not UTF-8"


@dataclass(frozen=True)
class FoundImages:
    """Image files below a folder.

    Attributes:
        names: Paths relative to the folder with "/", sorted by code point.
        ignored: The number of ignored files by kind: their ending, "hidden", NOT_UTF8.
    """

    names: tuple[str, ...]
    ignored: Counter[str]


def find_images(folder: Path) -> FoundImages:
    """Find every image file below `folder`, at any depth; the case of its ending does not matter.

    Symbolic links are followed. Files and folders whose names begin with "." are ignored, and so
    are files whose ending is not in `IMAGE_SUFFIXES`; ignored files are counted. An image whose
    name is not UTF-8 is excluded with a warning, because no CSV can hold the name.

    Raises:
        InvalidSetting: A folder cannot be read.
    """
    names, unnamable, ignored = [], list[str](), Counter[str]()
    for name in files_below(folder):
        base = name.rpartition("/")[2]
        suffix = os.path.splitext(base)[1].lower()
        if base.startswith("."):
            ignored["hidden"] += 1
        elif suffix not in IMAGE_SUFFIXES:
            ignored[suffix or "no ending"] += 1
        elif is_utf8(name):
            names.append(name)
        else:
            unnamable.append(name)
    if unnamable:
        ignored[NOT_UTF8] = len(unnamable)
        log.warning(
            "%s: %s left out, their names are not UTF-8; the first is %s",
            folder, counted(len(unnamable), "image"), ascii(min(unnamable)),
        )  # fmt: skip
    return FoundImages(tuple(sorted(names)), ignored)


def lies_below(name: str) -> bool:
    """Tell whether a name from a file is a path that stays below the folder that it belongs to."""
    normal = os.path.normpath(name)
    return not (os.path.isabs(normal) or normal.split(os.sep)[0] == os.pardir or "\0" in name)


def files_below(folder: Path) -> Iterator[str]:
    """Yield every file below `folder`, in no particular order, as a relative path with "/".

    Symbolic links are followed, except those to a folder above; hidden folders are ignored.

    Raises:
        InvalidSetting: A folder cannot be read.
    """
    yield from _files_below(folder, "", ())


def _files_below(folder: Path, prefix: str, parents: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = folder.stat()
        scan = os.scandir(folder)
    except OSError as error:
        raise InvalidSetting(f"the folder {folder} cannot be read: {error.strerror}") from error
    identity = (status.st_dev, status.st_ino)
    with scan as entries:
        if identity in parents:  # a link to a folder above, which would be an endless loop
            return
        for entry in entries:
            if entry.is_dir():
                if not entry.name.startswith("."):
                    below = f"{prefix}{entry.name}/"
                    yield from _files_below(Path(entry.path), below, (*parents, identity))
            else:
                yield prefix + entry.name


def describe_ignored(ignored: Counter[str]) -> str:
    """Describe the counts for a log line, such as `4 files (3 .txt, 1 hidden)`."""
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(ignored.items()))
    return f"{ignored.total()} files ({kinds})"
