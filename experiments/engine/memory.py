"""This process's part of the host's memory: how much it is, and what becomes of what is freed.

Source of the parameters: mallopt(3) and malloc_trim(3) of the GNU C library. Where the C library is
another one, nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

KEPT_BYTES = 2**29
"""Freed memory at the end of the heap is kept up to this size, for the next batch to find."""
LARGEST_KEPT_BYTES = 2**25
"""Of one block; the library permits no more. Larger ones go back to the system at once."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h


def host_memory_mb(*, peak: bool) -> float:
    """Return what this process holds of the host's memory in MB, or its peak since the reset.

    Where the system does not say what is held, both are the peak of the whole process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def reset_peak_host_memory() -> None:
    """Start a new measurement of the peak.

    Linux forgets a process's high-water mark on request. Where it does not, the peak stays that of
    the whole process so far: an upper bound.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation.

    By default it returns the tensors of a batch to the system, which has to clear every page of
    them for the next batch: up to a third of a step of a small network
    (`python -m benchmarks.freed_memory`). Whoever has set `MALLOC_...` in the environment is left
    alone.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Return to the system what has been freed, the holes in the heap as well.

    Batches that one thread loads and another one works on leave holes that fit nothing later, so
    without this the heap grows with the number of batches. It takes some milliseconds.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
