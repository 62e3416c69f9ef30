"""Clustering by scikit-learn and SciPy; no other module of the library imports them.

k-means by Lloyd 1982 with the seeding of Arthur & Vassilvitskii, SODA 2007, in mini-batches
(Sculley, WWW 2010) where there are many rows and clusters; average linkage by Sokal & Michener
1958.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from al_core.strategies.badge import badge
from al_core.strategies.blocks import blocks, squared_distances
from al_core.strategies.rows import Matrix

MINI_BATCH = 5000
"""Rows of a mini-batch."""
LARGE, HUGE = 2 * 10**6, 5 * 10**7
"""Rows times clusters above which k-means makes `FEW` iterations, and above which it uses
mini-batches."""
FEW = 10
"""Iterations; each takes a third of a second with 50,000 rows, 500 clusters and 512 columns."""


def k_means(matrix: Matrix, num_clusters: int, *, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the cluster of each row, (n,), in 0..num_clusters - 1; clusters may be empty.

    Args:
        matrix: (n, d); a large memory-mapped matrix is read batch by batch.
        num_clusters: 1..n.
        rng: Decides the seeding, which starts with the longest row.
    """
    seed = int(rng.integers(2**31))
    sklearn = _sklearn()
    if num_clusters == 1:
        return np.zeros(len(matrix), np.int64)
    # With a single class, BADGE is k-means++ on the rows, and far faster than scikit-learn's.
    seeds, _ = badge(matrix, np.ones((len(matrix), 1), np.float32), num_clusters, rng=rng)
    size = len(matrix) * num_clusters
    with warnings.catch_warnings():
        # Clusters stay empty where there are fewer distinct rows; callers expect that.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
        start = {"init": matrix[seeds], "n_init": 1, "random_state": seed}
        if size <= HUGE:
            iterations = 300 if size <= LARGE else FEW
            found = sklearn.cluster.KMeans(num_clusters, max_iter=iterations, **start)
        else:
            found = sklearn.cluster.MiniBatchKMeans(
                num_clusters, max_iter=FEW, batch_size=MINI_BATCH, **start
            )
        return np.asarray(found.fit_predict(matrix), np.int64)


def average_linkage(matrix: Matrix, num_clusters: int) -> NDArray[np.int64]:
    """Return the cluster of each row by average linkage; takes 8 n^2 bytes of memory.

    Distances come from matrix products, which takes a third of the time of scikit-learn's own.

    Args:
        matrix: (n, d).
        num_clusters: 1..n; every cluster has members.
    """
    _sklearn()
    from scipy.cluster.hierarchy import linkage  # scikit-learn needs it too

    n = len(matrix)
    if num_clusters == 1:
        return np.zeros(n, np.int64)
    distances = np.empty(n * (n - 1) // 2)
    rows = torch.from_numpy(matrix).double()
    place = 0
    for block in blocks(n, 512):
        away = squared_distances(rows[block], rows[block.start :]).sqrt_().numpy()
        for number, row in enumerate(away):
            later = row[number + 1 :]
            distances[place : place + later.size] = later
            place += later.size
    # Merge number i of the n - 1 merges joins two clusters into one with the number n + i.
    merges = linkage(distances, "average")[: n - num_clusters, :2].astype(np.int64)
    into = np.arange(n + len(merges))
    for place, pair in enumerate(merges):
        into[pair] = n + place
    for cluster in range(len(into) - 1, -1, -1):
        into[cluster] = into[into[cluster]]
    return np.asarray(np.unique(into[:n], return_inverse=True)[1], np.int64)


def _sklearn() -> Any:
    try:
        import sklearn.cluster
        import sklearn.exceptions
    except ImportError:
        raise InvalidSetting(
            "this strategy clusters, which needs scikit-learn: pip install scikit-learn"
        ) from None
    return sklearn
