"""Errors of a disk or a network, which pass, and errors of a file, which stay."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# fmt: off
PERMANENT = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES,
    errno.EPERM, errno.EINVAL,
})
# fmt: on
"""Errors of the file itself. Any other one is of a disk, a network or this machine at the moment
(EIO, ESTALE, EMFILE), and says nothing about the file."""
RETRY_SECONDS = (0.1, 0.5, 2.0)
"""Waits before the further tries."""


def is_permanent(error: OSError) -> bool:
    """Return whether trying again is of no use."""
    return error.errno in PERMANENT


def retried(action: Callable[[], T], path: str | os.PathLike[str]) -> T:
    """Do something with a file, again after errors that may pass.

    Args:
        action: What to do.
        path: The file, for the text of the error.

    Raises:
        OSError: An error that is permanent, or that of the last try.
    """
    for seconds in RETRY_SECONDS:
        try:
            return action()
        except OSError as error:
            if is_permanent(error):
                raise
        time.sleep(seconds)
    try:
        return action()
    except OSError as error:
        if error.filename is None:  # reading, unlike opening, does not name the file
            error.filename = os.fspath(path)
        raise
