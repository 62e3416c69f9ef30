"""The identity of files: their size and time of change, and a hash of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from al_core.errors import ActiveLearningError
from experiments.data.decoding import UnreadableImage, for_each, read_bytes

HASH_BYTES = 16


def content_hashes(paths: Sequence[Path], *, progress: str | None = None) -> list[bytes | None]:
    """Hash the contents of files by BLAKE2b, 16 bytes each, in several threads.

    Args:
        paths: The files.
        progress: Text before a progress bar; None for no bar.

    Returns:
        One per file; None for a file that is missing or may not be read.

    Raises:
        ActiveLearningError: Reading a file fails for a reason that may pass.
    """
    found: list[bytes | None] = [None] * len(paths)

    def hash_one(position: int) -> None:
        try:
            data = read_bytes(paths[position])
        except UnreadableImage:  # a broken link; a NUL in a table; no permission
            return
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from None
        found[position] = hashlib.blake2b(data, digest_size=HASH_BYTES).digest()

    failed = for_each(len(paths), hash_one, progress=progress)
    if failed:
        position, reason = next(iter(sorted(failed.items())))
        raise ActiveLearningError(
            f"{paths[position]} cannot be read at present ({reason}): the same command goes on "
            "once it can"
        )
    return found
