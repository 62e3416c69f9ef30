"""Clusterings, by scikit-learn: the only place of the library that needs it.

k-means by Lloyd 1982 with the seeding of Arthur & Vassilvitskii, SODA 2007, in mini-batches
(Sculley, WWW 2010) where there are many rows and clusters; average linkage by Sokal & Michener
1958.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from al_core.strategies.rows import Matrix

MINI_BATCH = 5000
"""Rows of a mini-batch."""
LARGE = 2 * 10**6
"""Rows times clusters above which k-means sees mini-batches: Lloyd would take minutes there."""


def k_means(matrix: Matrix, num_clusters: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the cluster of each row, (n,), in 0..num_clusters - 1; clusters may be empty.

    Args:
        matrix: Rows; a memory-mapped one is read batch by batch where it is large.
        num_clusters: At least 1 and at most n.
        rng: Decides the seeding.
    """
    seed = int(rng.integers(2**31))
    sklearn = _sklearn()
    if num_clusters == 1:
        return np.zeros(len(matrix), np.int64)
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters: some stay empty, which callers expect.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        if len(matrix) * num_clusters <= LARGE:
            found = sklearn.cluster.KMeans(num_clusters, n_init=1, random_state=seed)
        else:
            found = sklearn.cluster.MiniBatchKMeans(
                num_clusters, batch_size=MINI_BATCH, n_init=1, max_iter=10, random_state=seed
            )
        return np.asarray(found.fit_predict(matrix), np.int64)


def average_linkage(matrix: Matrix, num_clusters: int) -> NDArray[np.int64]:
    """Return the cluster of each row by average linkage of distances; memory grows with n^2."""
    if num_clusters == 1:
        return np.zeros(len(matrix), np.int64)
    found = _sklearn().cluster.AgglomerativeClustering(num_clusters, linkage="average")
    return np.asarray(found.fit_predict(matrix), np.int64)


def _sklearn() -> Any:
    try:
        import sklearn.cluster
        import sklearn.exceptions
    except ImportError:
        raise InvalidSetting(
            "this strategy clusters, which needs scikit-learn: pip install scikit-learn"
        ) from None
    return sklearn
