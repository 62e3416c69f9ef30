"""Processes that end with the one that started them, however it ends.

A process that is killed cannot tell those that it has started, which would go on by themselves, or
wait for it or for one another for ever.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait

from al_core.errors import InvalidSetting

SHARED_MEMORY = "/dev/shm"
LAUNCHER_LOGGERS = ("distributed.elastic.multiprocessing.api", "multiprocessing.spawn")
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2); Linux only


def check_semaphores(wanted: str) -> None:
    """Check that processes of this machine can wait for one another, before any is started.

    Args:
        wanted: The setting that asks for several processes, for the text.

    Raises:
        InvalidSetting: They cannot. Semaphores are files in /dev/shm, which some containers lack or
            mount read-only; the error itself names no file.
    """
    try:
        multiprocessing.get_context("spawn").Lock()
    except OSError as error:
        raise InvalidSetting(
            f"{wanted} needs shared memory, and {SHARED_MEMORY} cannot be used "
            f"({error.strerror or error}): mount it writable, or use one process"
        ) from None


def end_with_parent() -> None:
    """Let this process, started by `multiprocessing`, end with the one that started it."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "this process was started by itself"

    def end(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=end, args=(parent.sentinel,), daemon=True).start()


def ended_with_this(number: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` with which a command gets a signal when this process ends.

    Where the system has no such signal, the command goes on by itself then.
    """
    starter = os.getpid()
    library = ctypes.CDLL(None)  # loaded before the fork, after which little is safe

    def bind() -> None:
        if hasattr(library, "prctl"):
            library.prctl(_SET_PARENT_DEATH_SIGNAL, number)
        if os.getppid() != starter:  # it ended before the signal was asked for
            os._exit(1)

    return bind


def run_command(command: Sequence[str]) -> int:
    """Run a command to its end and return its exit status; it is killed if this process ends."""
    bind = ended_with_this(signal.SIGKILL)
    return subprocess.run(command, check=False, preexec_fn=bind).returncode


@contextlib.contextmanager
def quiet_launcher() -> Iterator[None]:
    """Keep the launcher from logging the end of a process, which the engine reports once."""
    loggers = [logging.getLogger(f"torch.{name}") for name in LAUNCHER_LOGGERS]
    disabled = [each.disabled for each in loggers]
    for each in loggers:
        each.disabled = True
    try:
        yield
    finally:
        for each, before in zip(loggers, disabled, strict=True):
            each.disabled = before
