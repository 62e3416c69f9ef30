"""Round robin over groups (classes, clusters): one member of each in turn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def turns(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each member within its group, from 0, in the given order.

    Args:
        groups: (n,) the group of each member.

    Returns:
        (n,): 0 for the first member of every group, 1 for the second, and so on.
    """
    order = np.argsort(groups, kind="stable")  # group by group, members in their order
    first = np.flatnonzero(np.diff(groups[order], prepend=groups.min(initial=0) - 1))
    sizes = np.diff(first, append=groups.size)
    place = np.empty(groups.size, np.int64)
    place[order] = np.arange(groups.size) - np.repeat(first, sizes)
    return place
