"""One process at a time in a folder: a lock file, held through the library filelock.

The lock ends with its process, however that ends. It serves Linux and other POSIX systems.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from al_core.errors import ActiveLearningError, InvalidSetting

LOCK_FILE = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Answers of a file system without `flock`, such as NFS without its lock service."""
_SECONDS = 0.2
"""Time in which a lock file that its holder has just removed is made again."""
_FLOCK = "hhqqi4x"
"""C's `struct flock` with 64-bit offsets: type, whence, start, length, process."""


class FolderLock:
    """A folder that this process holds until `release` or the end of a `with` block."""

    def __init__(self, file: Path) -> None:
        self._descriptor = -1
        self._lock = FileLock(
            file,
            timeout=_SECONDS,
            poll_interval=_SECONDS / 10,
            thread_local=False,
            fallback_to_soft=False,  # a file whose existence is the lock would survive its process
            on_acquired=self._show,
        )

    def acquire(self) -> None:
        """Take the lock; the errors are those of filelock."""
        self._lock.acquire()

    def release(self) -> None:
        """Let others have the folder. A second call does nothing."""
        if self._lock.is_locked:
            self._set(fcntl.F_UNLCK)  # explicitly: a process forked a moment ago still has the file
            self._lock.release()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _show(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._set(fcntl.F_WRLCK)

    def _set(self, kind: int) -> None:
        """Set the lock that `is_held` looks for; like `flock`, it belongs to the open file."""
        # On NFS flock itself is such a lock: this one is refused there, and the other is visible.
        with suppress(OSError):
            fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _whole_file(kind))


def hold(folder: Path, *, otherwise: str) -> FolderLock:
    """Make a folder if needed and hold it.

    Args:
        folder: The folder; its lock file is neither followed, if it is a link, nor truncated.
        otherwise: Advice for the case that it is in use.

    Raises:
        ActiveLearningError: Another process, or another part of this one, holds it.
        InvalidSetting: The lock file is a symbolic link, or the file system has no locks.
        OSError: The folder cannot be made, ...
    """
    file = folder / LOCK_FILE
    lock = FolderLock(file)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
            return lock
        except FileNotFoundError:  # removed meanwhile by a process that had no use for the folder
            continue
        except Timeout:
            raise ActiveLearningError(
                f"{folder} is in use by another process; {otherwise}"
            ) from None
        except (OSError, NotImplementedError) as error:
            number = getattr(error, "errno", errno.ENOSYS)  # filelock's own word for no flock
            if number == errno.ELOOP:
                raise InvalidSetting(f"{file} is a symbolic link: remove it") from None
            if number in NO_LOCKS:
                raise InvalidSetting(
                    f"{folder}: its file system has no locks, which keep a second process from "
                    "writing there too: choose a folder on another one"
                ) from None
            raise


def is_held(folder: Path) -> bool:
    """Tell whether a process holds a folder. The question itself never takes a lock.

    `flock`, which filelock uses, can only be tried, and a process that starts during the trial
    would be refused. A holder therefore adds a lock of the other kind to the same file, for which
    there is a query.

    Without locks the answer is False: nobody could hold the folder then.

    Raises:
        OSError: The lock file cannot be opened.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_GETLK, _whole_file(fcntl.F_WRLCK))
    except OSError as error:
        if error.errno in NO_LOCKS:
            return False
        raise
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)


def _whole_file(kind: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, 0, 0, 0)
