"""Match names in annotation files with images of the pool, and find names that a tool would lose.

Tools drop folders, put a prefix before a file's name, keep only its stem, or replace its blanks by
underscores; some write absolute paths. A name is matched if only one image fits, and reported
otherwise. Literal spellings are tried before those without prefix and blanks.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from experiments.data.labels import UnusableFile, shown

UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-(?=.)")
"""Label Studio puts eight hexadecimal digits before the name of an uploaded file."""
MAX_LENGTH = 4096
"""Longest name that is looked up, in characters; Linux has no longer paths."""


class ImageNames:
    """The names of a pool's images, found by any end of their paths.

    Args:
        names: Paths below the pool's folder, with "/".
        preferred: Names that are chosen where several fit: those of requested images.
    """

    def __init__(self, names: Iterable[str], preferred: Collection[str] = ()) -> None:
        self._preferred = preferred
        self._by_file: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        self._by_loose_file: dict[str, list[str]] = defaultdict(list)
        self._by_loose_stem: dict[str, list[str]] = defaultdict(list)
        self._folders: set[str] = set()
        for name in names:
            key = _folded(name)
            parent, _, file = key.rpartition("/")
            self._folders.update(parent.split("/"))
            self._by_file[file].append(name)
            self._by_stem[_stem(file)].append(name)
            self._by_loose_file[_loose(file)].append(name)
            self._by_loose_stem[_loose(_stem(file))].append(name)

    def find(self, candidates: Sequence[str], *, stem: bool = False) -> str:
        """Return the image that the first fitting candidate means.

        A candidate fits an image if they are equal, or if one is the end of the other's path:
        `x.jpg` and `/data/photos/cats/x.jpg` both mean `cats/x.jpg`, `dogs/x.jpg` does not.

        Args:
            candidates: Names of the image in the annotation file.
            stem: The candidates are files that stand for an image of their stem, as `x.xml` or a
                mask `x.png` for `x.jpg`. Folders around them that the pool does not have are
                ignored: somebody unpacked an export there.

        Raises:
            UnusableFile: None fits, or several images do.
        """
        short = [candidate for candidate in candidates if len(candidate) <= MAX_LENGTH]
        for candidate, spelled, key in _spellings(short):
            found = self._fitting(self._unpacked(spelled) if stem else _folded(spelled), stem, key)
            if len(found) > 1:
                asked = [name for name in found if name in self._preferred]
                found = asked if len(asked) == 1 else found
            if len(found) == 1:
                return found[0]
            if found:
                raise UnusableFile(
                    f"{shown(candidate)} may be any of {len(found)} images: {', '.join(found[:3])}"
                    + (", ..." if len(found) > 3 else "")
                )
        first = candidates[0] if candidates else ""
        raise UnusableFile(f"{shown(first)} is no image of the pool")

    def _unpacked(self, candidate: str) -> str:
        *folders, file = _folded(candidate).split("/")
        known = [i for i, folder in enumerate(folders) if folder in self._folders]
        return "/".join([*folders[known[0] if known else len(folders) :], file])

    def _fitting(self, candidate: str, stem: bool, key: Callable[[str], str] | None) -> list[str]:
        if not candidate.rpartition("/")[2]:
            return []

        def reduced(name: str) -> str:
            name = _stem(name) if stem else name
            return name if key is None else key(name)

        wanted = reduced(candidate)
        file = wanted.rpartition("/")[2]
        if key is not None and file != (_stem(candidate) if stem else candidate).rpartition("/")[2]:
            return []  # only a tool's name lacks something that the image's has, never vice versa
        if key is None:
            bucket = (self._by_stem if stem else self._by_file).get(file, [])
        else:
            bucket = (self._by_loose_stem if stem else self._by_loose_file).get(file, [])
        keys = {name: reduced(_folded(name)) for name in bucket}
        exact = [name for name, key in keys.items() if key == wanted]
        return exact or [
            name
            for name, key in keys.items()
            if key.endswith(f"/{wanted}") or wanted.endswith(f"/{key}")
        ]


def _spellings(
    candidates: Sequence[str],
) -> Iterator[tuple[str, str, Callable[[str], str] | None]]:
    """Yield candidate, spelling and comparison to try, the most literal ones of all first."""
    for key in (None, _loose):
        for candidate in candidates:
            yield candidate, candidate, key
        for candidate in candidates:
            file = candidate.replace("\\", "/").rpartition("/")[2]
            if UPLOAD_PREFIX.match(file):  # an upload: the folder is the tool's own
                yield candidate, UPLOAD_PREFIX.sub("", file), key


def _loose(name: str) -> str:
    """Replace blanks by underscores, and drop what tools drop from the names of uploads."""
    return re.sub(r"[^\w./-]", "", re.sub(r"\s", "_", name))


def _folded(name: str) -> str:
    """Bring a name into the form that is compared: slashes, no leading dots, composed letters."""
    slashed = unicodedata.normalize("NFC", name).replace("\\", "/")
    return re.sub(r"^(?:\.?/+)+", "", slashed)


def _stem(name: str) -> str:
    """Take the ending off: letters and digits after the last dot of the last part."""
    return re.sub(r"(?<=[^/])\.[A-Za-z0-9]{1,5}$", "", name)


def names_in_url(text: str) -> tuple[str, ...]:
    """Return the names that an image's address, or its path in Label Studio, may contain."""
    try:
        parts = urlsplit(text)
    except ValueError:  # brackets that hold no address of a machine
        return (text,)
    local = parse_qs(parts.query).get("d", [])
    file = unquote(parts.path).rpartition("/")[2]
    uploaded = [UPLOAD_PREFIX.sub("", file)] if UPLOAD_PREFIX.match(file) else []
    # Some tools write a name as it is, without the quoting that an address needs.
    raw = [text.partition("?d=")[2], text]
    found = [*local, *uploaded, unquote(parts.path), *raw]
    return tuple(dict.fromkeys(name for name in found if name))


def lost_names(
    names: Sequence[str], *, keeps_folders: bool = True, keeps_endings: bool = True
) -> Mapping[str, str]:
    """Return name -> reason of the images that a tool would skip or mix up.

    Args:
        names: Names of the images that are handed out.
        keeps_folders: Whether the tool tells images in two folders apart by their paths.
        keeps_endings: Whether `x.jpg` and `x.png` are two images for the tool.
    """
    lost: dict[str, str] = {}
    owners: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kept = name if keeps_folders else name.rpartition("/")[2]
        kept = kept if keeps_endings else str(PurePosixPath(kept).with_suffix(""))
        # File systems of tools' servers and of macOS hold one of two names that differ in this.
        owners[unicodedata.normalize("NFC", kept).casefold()].append(name)
        if not is_xml_text(name):
            lost[name] = "its name has a control character, such as a line break"
    for sharing in owners.values():
        for name in sharing if len(sharing) > 1 else ():
            other = next(each for each in sharing if each != name)
            lost[name] = f"the tool cannot tell it from {other}"
    return lost


def is_xml_text(text: str) -> bool:
    """Tell whether XML can hold a text on one line: no control character, no lone surrogate."""
    return not any(
        unicodedata.category(letter) in ("Cc", "Cs") or letter in "\ufffe\uffff" for letter in text
    )
