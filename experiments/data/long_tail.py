"""A pool whose classes are of unequal sizes, made of one whose classes are of the same.

The rule is that of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (CVPR
2019, section 5.1): the sizes fall exponentially from the first class to the last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_number


def long_tailed(targets: NDArray[np.int64], imbalance: float) -> NDArray[np.int64]:
    """Return the positions to keep, ascending: of class c of k the first
    floor(n * imbalance ** (-c / (k - 1))) samples, n the size of the largest class.

    Args:
        targets: int64 (n,), classes 0 .. k - 1.
        imbalance: How many times the last class the first is, 1 for all samples, at least 1.

    Raises:
        InvalidSetting: It is less than 1, or a class would be left without a sample.
    """
    check_number("data.imbalance", imbalance, low=1)
    if imbalance == 1:
        return np.arange(len(targets))
    counts = np.bincount(targets)
    exponents = -np.arange(len(counts)) / (len(counts) - 1)
    # the power is a hair below a whole number where it should be one
    sizes = np.floor(counts.max() * float(imbalance) ** exponents + 1e-9).astype(np.int64)
    if sizes.min() < 1:
        raise InvalidSetting(
            f"data.imbalance={imbalance} leaves no image of the last class; the largest has "
            f"{counts.max()}, so at most that"
        )
    kept = [np.flatnonzero(targets == c)[:size] for c, size in enumerate(sizes)]
    return np.sort(np.concatenate(kept))
