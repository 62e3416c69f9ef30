"""Features of images on disk, computed once and memory-mapped by every run that needs them.

A store is a folder for one network and one way to prepare images. It consists of blocks: a `.npy`
file of features and, written after it, an `.npz` file that says whose they are. Files are moved in
whole, so a process killed at any moment loses at most the block it was computing. One process at a
time adds to a store; others wait for it, or read.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core import IndexArray
from al_core.errors import InvalidSetting
from al_core.files import atomic_write_binary, remove_leftovers

logger = logging.getLogger(__name__)

BLOCK_ROWS = 512
"""Images whose features are computed before they are written."""
MAX_BLOCKS = 4
"""With more they are merged: every batch is gathered from all of them."""

Rows = tuple[NDArray[np.float32], dict[int, str]]
"""Features (n, d), and position -> reason for the images that cannot be read."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a set of images.

    Attributes:
        unreadable: Position -> reason of the images that cannot be read and have none.
    """

    blocks: Sequence[NDArray[np.float32]]
    block_of: NDArray[np.int64]
    row_of: NDArray[np.int64]
    unreadable: dict[int, str]

    @property
    def dim(self) -> int:
        """The number of features."""
        return int(self.blocks[0].shape[1])

    def rows(self, indices: IndexArray) -> Tensor:
        """Return the features (b, d), float32, of readable images."""
        blocks, rows = self.block_of[indices], self.row_of[indices]
        if len(self.blocks) == 1:
            return torch.from_numpy(np.array(self.blocks[0][rows]))
        gathered = np.empty((len(indices), self.dim), np.float32)
        for k in np.unique(blocks):
            gathered[blocks == k] = self.blocks[k][rows[blocks == k]]
        return torch.from_numpy(gathered)


class FeatureStore:
    """The features of one network.

    Args:
        folder: The store's; made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def exists(self) -> bool:
        """True if features were ever added."""
        return any(self.folder.glob("*.npz"))

    def of(
        self, keys: Sequence[bytes], compute: Callable[[IndexArray], Rows], *, label: str
    ) -> Features:
        """Return the features of images, computing those that are missing.

        Args:
            keys: A digest of each image.
            compute: Returns the features of the images at some positions.
            label: What the images are, for the log.

        Raises:
            InvalidSetting: A file of the store is damaged.
        """
        found = self._find(keys)
        if found is not None:
            return found
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._held():
            self._add(keys, compute, label=label)
            self._merge()
            found = self._find(keys)
        assert found is not None, "features were added and are not there"
        return found

    def _add(
        self, keys: Sequence[bytes], compute: Callable[[IndexArray], Rows], *, label: str
    ) -> None:
        _, known = self._index()
        first = {key: position for position, key in reversed(list(enumerate(keys)))}
        missing = np.array(sorted(first[key] for key in first if key not in known), np.int64)
        if missing.size:
            logger.info("features of %s: %d to compute", label, missing.size)
        for start in range(0, missing.size, BLOCK_ROWS):
            part = missing[start : start + BLOCK_ROWS]
            rows, reasons = compute(part)
            kept = [row for row in range(part.size) if row not in reasons]
            self._write(
                rows[kept],
                [keys[part[row]] for row in kept],
                {keys[part[row]]: reason for row, reason in reasons.items()},
            )
            logger.info("features of %s: %d of %d computed", label, start + part.size, missing.size)

    def _find(self, keys: Sequence[bytes]) -> Features | None:
        """Return the features of images that are all known, else None."""
        blocks, known = self._index()
        places = [known.get(key) for key in keys]
        if not blocks or None in places:
            return None
        unreadable = {i: place for i, place in enumerate(places) if isinstance(place, str)}
        pairs = [(0, 0) if isinstance(place, str) or place is None else place for place in places]
        block_of, row_of = np.array(pairs, np.int64).reshape(-1, 2).T
        return Features(blocks, block_of, row_of, unreadable)

    def _index(self) -> tuple[list[NDArray[np.float32]], dict[bytes, tuple[int, int] | str]]:
        """Return all blocks, and of each key the place of its features or why there are none."""
        while True:
            blocks: list[NDArray[np.float32]] = []
            known: dict[bytes, tuple[int, int] | str] = {}
            try:
                for file in sorted(self.folder.glob("*.npz")):
                    features, keys, reasons = self._read(file)
                    known.update((key, (len(blocks), row)) for row, key in enumerate(keys))
                    known.update(reasons)
                    blocks.append(features)
                return blocks, known
            except FileNotFoundError:  # merged meanwhile by another process
                continue

    def _read(self, file: Path) -> tuple[NDArray[np.float32], list[bytes], dict[bytes, str]]:
        try:
            with np.load(file) as index:
                keys = [row.tobytes() for row in index["keys"]]
                unreadable = [row.tobytes() for row in index["unreadable"]]
                reasons = json.loads(index["reasons"].tobytes())
            features = np.load(file.with_suffix(".npy"), mmap_mode="r")
            if len(features) != len(keys) or features.dtype != np.float32:
                raise ValueError("features and index differ")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise InvalidSetting(
                f"{file} or its .npy cannot be read ({error}): remove the folder {self.folder}, "
                "whose features are then computed again"
            ) from None
        return features, keys, dict(zip(unreadable, reasons, strict=True))

    def _write(
        self, rows: NDArray[np.float32], keys: Sequence[bytes], reasons: dict[bytes, str]
    ) -> None:
        file = self.folder / f"{uuid.uuid4().hex}.npz"
        with atomic_write_binary(file.with_suffix(".npy")) as out:
            np.save(out, np.ascontiguousarray(rows, np.float32))
        with atomic_write_binary(file) as out:
            np.savez(
                out,
                keys=_as_array(keys),
                unreadable=_as_array(list(reasons)),
                reasons=np.frombuffer(json.dumps(list(reasons.values())).encode(), np.uint8),
            )

    def _merge(self) -> None:
        files = sorted(self.folder.glob("*.npz"))
        if len(files) <= MAX_BLOCKS:
            return
        parts = [self._read(file) for file in files]
        features = [rows for rows, _, _ in parts if len(rows)] or [parts[0][0]]
        self._write(
            np.concatenate(features),
            [key for _, keys, _ in parts for key in keys],
            {key: reason for _, _, reasons in parts for key, reason in reasons.items()},
        )
        for file in files:
            file.unlink()
            file.with_suffix(".npy").unlink()

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep other processes from adding meanwhile."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(self.folder / ".lock", flags, 0o666), "rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another process, which computes features: %s", self.folder)
                fcntl.flock(lock, fcntl.LOCK_EX)
            remove_leftovers(self.folder)
            for file in self.folder.glob("*.npy"):
                if not file.with_suffix(".npz").exists():
                    file.unlink()
            yield


def _as_array(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    width = len(keys[0]) if keys else 0
    return np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), width)
