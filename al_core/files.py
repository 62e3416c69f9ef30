"""Atomic writing of files.

A file is written under a temporary name in its folder and then renamed. A process that is killed at
any moment, or a disk that fills up, leaves the previous version and never a part of the new one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO


@contextmanager
def _beside(path: Path, mode: str, **options: str) -> Iterator[IO[bytes] | IO[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, mode, **options) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """Open a UTF-8 text file that replaces `path` when the block ends; line ends are not changed.

    If the block raises, the old content of `path` stays. Missing folders are created.

    Raises:
        OSError: The file cannot be written: the disk is full, the folder is read-only, ...
    """
    with _beside(Path(path), "w", encoding="utf-8", newline="") as file:
        yield file  # type: ignore[misc]


@contextmanager
def atomic_write_binary(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a binary file that replaces `path` when the block ends, like `atomic_write`."""
    with _beside(Path(path), "wb") as file:
        yield file  # type: ignore[misc]


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, completely or not at all."""
    with atomic_write_binary(path) as file:
        file.write(data)
