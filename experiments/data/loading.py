"""Load the next batches while the model works on the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
AHEAD = 4
"""Batches that are loaded ahead: enough for a disk of uneven speed, and few in memory."""


def prefetched(
    load: Callable[[S], T], items: Iterable[S], *, ahead: bool, depth: int = AHEAD
) -> Iterator[T]:
    """Yield load(item) for each item, in order.

    Args:
        load: Loads one batch; must be safe to call from another thread. OpenCV and NumPy release
            the interpreter lock while they decode and copy, so a thread overlaps with the model.
        items: Arguments of `load`, iterated lazily in the caller's thread.
        ahead: Load in a thread, a few batches ahead. It does not pay for images in memory.
        depth: The number of batches ahead.
    """
    if not ahead:
        yield from map(load, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix="load") as executor:
        pending: deque[Future[T]] = deque(
            executor.submit(load, item) for item in islice(left, depth)
        )
        try:
            while pending:
                batch = pending.popleft().result()
                pending.extend(executor.submit(load, item) for item in islice(left, 1))
                yield batch
        finally:
            for future in pending:
                future.cancel()


def chunks(items: Iterable[S], size: int) -> Iterator[list[S]]:
    """Yield lists of `size` items, the last one possibly shorter, iterating lazily."""
    left = iter(items)
    while chunk := list(islice(left, size)):
        yield chunk
