"""The identity of files: their size and time of change, and a hash of their content."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.data.decoding import for_each, read_bytes
from experiments.data.samples import IndexArray

HASH_BYTES = 16


def first_copies(paths: Sequence[Path]) -> IndexArray:
    """Return the first file with the same content as each, (n,); itself where there is none before.

    Only files whose size another one has are read.
    """
    sizes = np.array([_size(path) for path in paths], np.int64)
    values, counts = np.unique(sizes, return_counts=True)
    doubtful = np.flatnonzero(np.isin(sizes, values[(counts > 1) & (values >= 0)]))
    first = np.arange(len(paths))
    seen: dict[bytes, int] = {}
    hashes = content_hashes([paths[position] for position in doubtful.tolist()])
    for position, found in zip(doubtful.tolist(), hashes, strict=True):
        if found is not None:
            first[position] = seen.setdefault(found, position)
    return first


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):  # ValueError: a NUL in a name
        return -1


def content_hashes(paths: Sequence[Path], *, progress: str | None = None) -> list[bytes | None]:
    """Hash the contents of files by BLAKE2b, 16 bytes each, in several threads.

    Args:
        paths: The files.
        progress: Text before a progress bar; None for no bar.

    Returns:
        One per file; None for a file that is missing or may not be read.

    Raises:
        OSError: Reading a file fails for a reason that may pass.
    """
    found: list[bytes | None] = [None] * len(paths)

    def hash_one(position: int) -> None:
        data = read_bytes(paths[position])
        found[position] = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()

    for_each(len(paths), hash_one, progress=progress)
    return found
