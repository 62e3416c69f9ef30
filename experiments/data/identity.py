"""Short names for the content of images, by which what was computed of them is found again.

The content of a file is not read for that: a file is known by its path, size and times of change.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from experiments.data.arranged import GONE, ArrangedSamples
from experiments.data.decoding import Decoded
from experiments.data.samples import FileSamples, IndexArray, MemorySamples, Samples

DIGEST_BYTES = 16
CHUNK = 256  # images that are hashed at once where they have to be loaded


def identities(samples: Samples) -> list[bytes]:
    """Return a digest of `DIGEST_BYTES` bytes for each image, equal for equal images in memory."""
    if isinstance(samples, FileSamples):
        return file_identities(samples.paths)
    if isinstance(samples, ArrangedSamples):
        known = identities(samples.samples)
        return [
            known[index] if index != GONE else _of_parts([name.encode()])
            for index, name in zip(samples.arrangement.order.tolist(), samples.names, strict=True)
        ]
    if isinstance(samples, MemorySamples):
        return [_of_parts([pixels.numpy().tobytes()]) for pixels in samples.pixels]
    found = [_of_parts([name.encode()]) for name in samples.names]  # of the unreadable ones
    readable = np.setdiff1d(np.arange(len(samples)), np.fromiter(samples.unreadable, np.int64))
    for chunk in np.array_split(readable, -(-len(readable) // CHUNK)):
        for position, image in zip(chunk, samples.images(chunk), strict=True):
            found[position] = _of_parts([image.numpy().tobytes()])
    return found


def file_identities(paths: Iterable[Path]) -> list[bytes]:
    """Return a digest of `DIGEST_BYTES` bytes for each file, by its path, size and times."""
    return [_of_file(path) for path in paths]


def decoded(samples: Samples, indices: IndexArray) -> Decoded:
    """Return images of a set, with the reasons of those that cannot be read, which are zero."""
    if isinstance(samples, FileSamples):
        return samples.decode(indices)
    unreadable = {
        row: samples.unreadable[index]
        for row, index in enumerate(indices.tolist())
        if index in samples.unreadable
    }
    rows = np.setdiff1d(np.arange(len(indices)), np.fromiter(unreadable, np.int64))
    if isinstance(samples, ArrangedSamples):
        there = samples.arrangement.order[indices[rows]]
        inner = decoded(samples.samples, there)
        images = inner.images
        unreadable |= {int(rows[row]): reason for row, reason in inner.unreadable.items()}
    else:
        images = samples.images(indices[rows])
    every = images.new_zeros(len(indices), *images.shape[1:])
    every[rows] = images
    return Decoded(every, unreadable)


def _of_file(path: Path) -> bytes:
    try:
        stat = os.stat(path)
    except OSError as error:  # decoding it reports that
        return _of_parts([os.fsencode(path.absolute()), str(error.errno).encode()])
    # The time of change of the inode too: it cannot be set back.
    facts = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return _of_parts([os.fsencode(path.absolute()), facts.encode()])


def _of_parts(parts: Iterable[bytes]) -> bytes:
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
