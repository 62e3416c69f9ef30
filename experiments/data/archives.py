"""Zip archives that annotation tools write, unpacked into a folder without trusting them.

A member is written only under a name that is chosen here to lie inside the folder, and only as a
regular file. Sizes are checked before anything is unpacked, and again while it is: zipfile stops at
the size that the directory of the archive states.
"""

from __future__ import annotations

import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from experiments.data.labels import Problem, UnusableFile, shown
from experiments.data.untrusted import MAX_BYTES, open_untrusted

ZIP = ".zip"
ARCHIVES = (ZIP, ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
MAX_MEMBERS = 200_000
"""Limit for the files in an archive: COCO's training images are 118,287. A member takes about half
a kilobyte of memory."""
MAX_UNPACKED = 4 * 2**30
"""Limit for the unpacked files together, in bytes; larger exports can be unpacked by hand."""
MAX_RATIO, FREE_BYTES = 200, 16 * 2**20
"""Unpacked bytes for each byte of the archive, beyond the first 16 MiB. Run lengths in JSON shrink
to a twentieth; deflate reaches 1,032 with constant bytes, which only bombs have."""
MAX_DEPTH, MAX_PATH_BYTES = 32, 2048
"""Limits for the path of a file inside an archive."""
_SIGNATURE = b"PK\x01\x02"
_BLOCK = 2**20
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError,
    ValueError, LookupError, ArithmeticError, struct.error,
)  # fmt: skip
"""Errors of zipfile on damaged and encrypted members and on unknown methods of compression."""


def unpacked(
    file: Path, target: Path, *, inside: Path, size_limit: Callable[[PurePosixPath], int | None]
) -> Iterator[PurePosixPath | Problem]:
    """Unpack an archive, and yield its files, or their problems, in its order.

    Hidden files and the folder `__MACOSX` are passed over, as in a folder.

    Args:
        file: The archive.
        target: An empty folder.
        inside: Folder that the archive must lie in once links are followed.
        size_limit: Returns the most bytes that are wanted of a file: 0 for an empty file of its
            name, None to leave it out.

    Raises:
        UnusableFile: It is no zip archive, or is too large as a whole.
        OSError: It cannot be read, or the disk is full.
    """
    with open_untrusted(file, inside=inside) as opened:
        archive_size = _checked_size(opened)
        try:
            archive = zipfile.ZipFile(opened)
        except _DAMAGED as error:
            raise UnusableFile(f"it is no complete zip archive: {error}") from None
        with archive:
            yield from _members(archive, archive_size, target, size_limit)


def _checked_size(opened: BinaryIO) -> int:
    """Return the size of an archive whose directory can be held in memory."""
    size = opened.seek(0, 2)
    if size > MAX_BYTES:
        raise UnusableFile(f"it is larger than {MAX_BYTES // 2**20} MiB: split it or unpack it")
    opened.seek(0)
    entries, tail = 0, b""
    while block := opened.read(_BLOCK):
        data = tail + block
        entries += data.count(_SIGNATURE)
        tail = data[-len(_SIGNATURE) + 1 :]
    if entries > MAX_MEMBERS:
        raise UnusableFile(f"it has more than {MAX_MEMBERS} files: split it or unpack it here")
    opened.seek(0)
    return size


def _members(
    archive: zipfile.ZipFile,
    archive_size: int,
    target: Path,
    size_limit: Callable[[PurePosixPath], int | None],
) -> Iterator[PurePosixPath | Problem]:
    room = min(MAX_UNPACKED, FREE_BYTES + MAX_RATIO * archive_size)
    for member in archive.infolist():
        if member.filename.endswith("/"):  # `is_dir` fails where there is no name
            continue
        try:
            path = _inner_path(member)
            if path is None:
                continue
            limit = size_limit(path)
            if limit is None:
                continue
            if limit and member.file_size > min(limit, room):
                raise UnusableFile(
                    f"it would be unpacked to {member.file_size} bytes, and {min(limit, room)} are "
                    "permitted: unpack the archive by hand if it is sound"
                )
            if limit:
                room -= member.file_size
            _write(archive, member, target / path, is_empty=not limit)
        except UnusableFile as error:
            yield Problem(member.filename, str(error))
        except _DAMAGED as error:
            yield Problem(member.filename, f"it cannot be unpacked: {error}")
        else:
            yield path


def _inner_path(member: zipfile.ZipInfo) -> PurePosixPath | None:
    """Return the path of a member inside the archive, or None for one that is passed over."""
    name = member.filename.replace("\\", "/")
    path = PurePosixPath(name)
    parts = path.parts
    if any(part == "__MACOSX" or (part[0] == "." and part != "..") for part in parts):
        return None
    if not parts or path.is_absolute() or ".." in parts or re.fullmatch("[A-Za-z]:", parts[0]):
        raise UnusableFile("its path leads out of the archive")
    lengths = [len(part.encode("utf-8", "replace")) for part in parts]
    if max(lengths) > 255 or sum(lengths) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise UnusableFile(f"its path {shown(name)} is too long")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        raise UnusableFile("it is a link or no regular file")
    if member.flag_bits & 0x1:
        raise UnusableFile("it is encrypted")
    if path.suffix.lower() in ARCHIVES:
        raise UnusableFile("it is an archive in an archive: unpack the outer one here")
    return path


def _write(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, is_empty: bool
) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as written:
            if is_empty:
                return
            with archive.open(member) as source:
                while block := source.read(_BLOCK):
                    written.write(block)
    except (FileExistsError, NotADirectoryError):
        raise UnusableFile("the archive has two files of this name") from None
    except UnicodeEncodeError:
        raise UnusableFile("its name is not UTF-8") from None
    except _DAMAGED:
        target.unlink(missing_ok=True)
        raise
