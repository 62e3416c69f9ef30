"""Reading whole files from devices and networks that fail now and then."""

from __future__ import annotations

import errno
import os
import time

PAUSES = (0.1, 0.5)
"""Seconds before each further attempt: a network drive that reconnects answers again by then."""
LASTING = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)  # fmt: skip
"""Errors that are the same a moment later."""


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a file, with further attempts after an error that may pass.

    Raises:
        OSError: The last attempt failed as well, or the error is one that lasts.
        ValueError: The name has a NUL in it.
    """
    for pause in PAUSES:
        try:
            return _read(path)
        except OSError as error:
            if error.errno in LASTING:
                raise
        time.sleep(pause)
    return _read(path)


def _read(path: str | os.PathLike[str]) -> bytes:
    with open(path, "rb") as file:
        return file.read()
