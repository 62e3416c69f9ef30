"""Make a pool with classes of unequal sizes from one with classes of equal sizes.

The rule is that of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (CVPR
2019, section 5.1): the sizes decrease exponentially from the first class to the last.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_number


def long_tailed(targets: NDArray[np.int64], imbalance: float) -> NDArray[np.int64]:
    """Return the positions to keep, ascending.

    Class c of k keeps its first floor(n * imbalance ** (-c / (k - 1))) samples, where n is the size
    of the largest class.

    Args:
        targets: int64 (n,), classes 0 .. k - 1.
        imbalance: The ratio of the first to the last class, at least 1; 1 keeps all samples.

    Raises:
        InvalidSetting: The ratio is less than 1 or leaves a class without a sample.
    """
    check_number("data.imbalance", imbalance, low=1)
    if imbalance == 1:
        return np.arange(len(targets))
    counts = np.bincount(targets)
    exponents = -np.arange(len(counts)) / (len(counts) - 1)
    # Rounding may put the power just below a whole number.
    sizes = np.floor(counts.max() * float(imbalance) ** exponents + 1e-9).astype(np.int64)
    if sizes.min() < 1:
        raise InvalidSetting(
            f"data.imbalance={imbalance} leaves no image of the last class; the largest has "
            f"{counts.max()}, so at most that"
        )
    kept = [np.flatnonzero(targets == c)[:size] for c, size in enumerate(sizes)]
    return np.sort(np.concatenate(kept))
