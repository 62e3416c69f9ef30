"""Going round groups (classes, clusters), a member of each in turn; what three strategies share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def turns(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each member among those of its group, from 0, in the order given.

    Args:
        groups: (n,) the group of each.

    Returns:
        (n,): 0 for the first member of every group, 1 for the second, and so on.
    """
    order = np.argsort(groups, kind="stable")  # group by group, members in their order
    first = np.flatnonzero(np.diff(groups[order], prepend=groups.min(initial=0) - 1))
    sizes = np.diff(first, append=groups.size)
    place = np.empty(groups.size, np.int64)
    place[order] = np.arange(groups.size) - np.repeat(first, sizes)
    return place
