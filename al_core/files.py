"""Atomic writing of files.

A file is written under a temporary name in its folder and then renamed. A process that is killed at
any moment, or a disk that fills up, leaves the previous version and never a part of the new one.
Temporary names are random, so that any number of threads, processes and machines may write files of
one name at once, and the last of them stays. Permissions are those that the umask gives.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TextIO

LEFTOVER = re.compile(r"\.(?:.+\.)?(?:[0-9a-f]{16}|\d+)\.part")
"""Temporary names. Those of versions up to 0.1 had the number of the process."""
LONGEST_KEPT = 200
"""Bytes of a name up to which its temporary name has it too; file systems allow 255."""


def beside(path: Path) -> Path:
    """Return a temporary name in the folder of `path`, another one at each call.

    It begins with a dot, so that listings pass over it.
    """
    known = f".{path.name}" if len(os.fsencode(path.name)) <= LONGEST_KEPT else ""
    return path.with_name(f"{known}.{secrets.token_hex(8)}.part")


@contextmanager
def _on_disk(path: Path, mode: str, **options: str) -> Iterator[IO[bytes] | IO[str]]:
    """Open a new file whose content is on the disk when the block ends."""
    with open(path, mode, **options) as file:  # type: ignore[call-overload]
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _beside(path: Path, mode: str, **options: str) -> Iterator[IO[bytes] | IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = beside(path)
    try:
        with _on_disk(temporary, mode, **options) as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 text file that replaces `path` when the block ends; line ends are not changed.

    If the block raises, the old content of `path` stays. Missing folders are created.

    Raises:
        OSError: The file cannot be written: the disk is full, the folder is read-only, ...
    """
    with _beside(Path(path), "x", encoding="utf-8", newline="") as file:
        yield file  # type: ignore[misc]


@contextmanager
def atomic_write_binary(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends, like `atomic_write`."""
    with _beside(Path(path), "xb") as file:
        yield file  # type: ignore[misc]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with atomic_write_binary(path) as file:
        file.write(data)


def write_together(folder: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Write files that belong together: all are on the disk before the first is moved in.

    Args:
        folder: Target folder; created if it is missing.
        files: Content by path below the folder.

    Raises:
        OSError: The disk is full, ...; all earlier files stay as they are.
    """
    staged: list[tuple[Path, Path]] = []
    try:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.append((beside(path), path))
            with _on_disk(staged[-1][0], "xb") as file:
                file.write(data)  # type: ignore[arg-type]
        for temporary, path in staged:
            os.replace(temporary, path)
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def remove_leftovers(
    folder: str | os.PathLike[str], *, spare: Path | None = None, older_than_s: float | None = None
) -> None:
    """Remove the temporary files below a folder that killed processes have left.

    Args:
        folder: The folder. The caller holds it, or gives an age that no writing takes.
        spare: A folder below it that is not looked into.
        older_than_s: Seconds since the last change from which on a file is taken for left; None for
            any age, whatever the clocks say.
    """
    for parent, folders, names in os.walk(folder):
        if spare is not None:
            folders[:] = [name for name in folders if Path(parent, name) != spare]
        for name in filter(LEFTOVER.fullmatch, names):
            path = Path(parent, name)
            with suppress(FileNotFoundError):  # removed meanwhile by another process
                if older_than_s is None or path.stat().st_mtime < time.time() - older_than_s:
                    path.unlink()
