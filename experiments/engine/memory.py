"""The host memory of this process: its size, and the treatment of freed memory.

Source of the parameters: mallopt(3) and malloc_trim(3) of the GNU C library. With another C library
nothing is changed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from pathlib import Path

KEPT_BYTES = 2**29
"""Freed memory at the end of the heap that is kept for the next batch."""
LARGEST_KEPT_BYTES = 2**25
"""Largest block that is kept, the maximum of the library. Larger ones are returned at once."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h


def host_memory_mb(*, peak: bool) -> float:
    """Return the host memory of this process in MB, or its peak since the reset.

    Where the system does not report the present size, both are the peak of the whole process.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:" if peak else "VmRSS:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def reset_peak_host_memory() -> None:
    """Start a new measurement of the peak.

    Linux resets a process's high-water mark on request. Elsewhere the peak stays that of the whole
    process so far, which is an upper bound.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next allocation.

    By default it returns the tensors of a batch to the system, which then has to clear every page
    for the next batch. That takes up to a third of a training step of a small network
    (`python -m benchmarks.freed_memory`). Nothing is changed if the environment sets `MALLOC_...`.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def give_back_freed_memory() -> None:
    """Return freed memory to the system, including holes in the heap.

    Batches that one thread loads and another one uses leave holes that nothing later fits into, so
    without this call the heap grows with the number of batches. It takes some milliseconds.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)
