"""Loading the next batches while the current one is computed on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
AHEAD = 4
"""Batches in flight: enough to hide an uneven disk, few enough to cost no memory to speak of."""


def prefetched(load: Callable[[int], T], count: int, *, ahead: bool) -> Iterator[T]:
    """Yield load(0), load(1), ..., load(count - 1), in order.

    Args:
        load: Loads one batch; must be safe to call from another thread. OpenCV and NumPy let go of
            the interpreter lock while they decode and copy, so a thread overlaps with the model.
        count: How many.
        ahead: Load in a thread, a few batches ahead. Not worth it for images in memory.
    """
    if not ahead:
        yield from map(load, range(count))
        return
    with ThreadPoolExecutor(1, thread_name_prefix="load") as executor:
        pending: deque[Future[T]] = deque(
            executor.submit(load, k) for k in range(min(AHEAD, count))
        )
        try:
            for k in range(AHEAD, count + AHEAD):
                if not pending:
                    return
                item = pending.popleft().result()
                if k < count:
                    pending.append(executor.submit(load, k))
                yield item
        finally:
            for future in pending:
                future.cancel()
