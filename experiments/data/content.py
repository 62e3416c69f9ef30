"""The identity of files: their size and time of change, and a hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from experiments.data.decoding import for_each, read_bytes

HASH_BYTES = 16


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
