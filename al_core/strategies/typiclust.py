"""TypiClust: typical samples of clusters without labels, for budgets of a few labels per class.

Source: Hacohen, Dekel & Weinshall, *Active Learning on a Budget: Opposite Strategies Suit High and
Low Budgets*, ICML 2022 (arXiv 2202.02794), section 3, algorithm 1.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from al_core.contracts import Learner, Query, ScoreArray
from al_core.errors import require_positive
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, squared_distances
from al_core.strategies.clustering import k_means
from al_core.strategies.rows import (
    EmbeddingChoice,
    Matrix,
    infer_rows,
    required_embedding,
    shuffled_candidates,
    unit_embedding,
    writable_folder,
)
from al_core.strategies.scoring import check_budget

NEIGHBORS = 20
"""K of equation 4."""
MAX_CLUSTERS = 500
"""The bound of section 3: more and smaller clusters would be noise."""
NUM_DISTANCES = 2**22
"""Distances in a block of the search for neighbors: 16 MB."""
MIN_CLUSTER_SIZE = 5
"""Smaller clusters are outliers and come last; the authors leave them out."""


class TypiClust:
    """Typical samples of the largest clusters without labels.

    Args:
        neighbors: K of the typicality.
        max_clusters: Upper limit of the number of clusters, which is that of labels plus budget.
        embedding: "model" for the model's own embeddings, "pretrained" for those of a network that
            was trained on other data.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A number that is not positive.
    """

    def __init__(
        self,
        *,
        neighbors: int = NEIGHBORS,
        max_clusters: int = MAX_CLUSTERS,
        embedding: EmbeddingChoice = "model",
        embeddings_folder: str | Path | None = None,
    ) -> None:
        require_positive("neighbors", neighbors)
        require_positive("max_clusters", max_clusters)
        self.neighbors, self.max_clusters = neighbors, max_clusters
        self.requires = frozenset({required_embedding(embedding)})
        self._extract = partial(unit_embedding, choice=embedding)
        self.folder = writable_folder(embeddings_folder)

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Cluster candidates and labeled samples; scores are typicalities."""
        everyone = np.concatenate([candidates, pool.labeled])
        rows, typicalities = typiclust(
            infer_rows(learner, everyone, self._extract, folder=self.folder),
            budget,
            labeled=np.arange(candidates.size, everyone.size),
            rng=rng,
            neighbors=self.neighbors,
            max_clusters=self.max_clusters,
        )
        return Query(everyone[rows], typicalities)


def typiclust(
    embeddings: Matrix,
    budget: int,
    *,
    rng: np.random.Generator,
    labeled: NDArray[np.int64] | None = None,
    neighbors: int = NEIGHBORS,
    max_clusters: int = MAX_CLUSTERS,
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Choose typical rows of a matrix of embeddings.

    All rows are clustered into as many clusters as there are labels plus the budget. Each pick is
    the most typical row of the largest among the clusters with the fewest labels: the row whose
    mean distance to its nearest neighbors within the cluster is smallest.

    Args:
        embeddings: (n, d), rows scaled to length 1 as by the authors; `blocks.normalized` does it.
        budget: 0 to the number of rows without a label.
        rng: Decides the clustering.
        labeled: Rows that have a label; they are never chosen.
        neighbors: Number of nearest neighbors that count, at most half of the cluster.
        max_clusters: Upper limit of the number of clusters.

    Returns:
        (budget,) different rows in order of choice, and their typicality, the inverse of that mean
        distance (equation 4); 0 in a cluster of one.

    Raises:
        InvalidSetting: The rows cannot meet the budget, or scikit-learn is missing.
    """
    given = np.zeros(len(embeddings), bool)
    if labeled is not None:
        given[labeled] = True
    check_budget(budget, np.flatnonzero(~given))
    if not budget:
        return np.empty(0, np.int64), np.empty(0)
    num_clusters = min(int(given.sum()) + budget, max_clusters, len(embeddings))
    clusters = k_means(embeddings, num_clusters, rng=rng)
    sizes = np.bincount(clusters, minlength=num_clusters)
    held = np.bincount(clusters[given], minlength=num_clusters)
    left = np.bincount(clusters[~given], minlength=num_clusters)
    waiting: dict[int, list[tuple[int, float]]] = {}
    chosen: list[tuple[int, float]] = []
    while len(chosen) < budget:
        # In this order: some row left, not too small, fewest labels, largest.
        order = np.lexsort((-sizes, held, sizes < MIN_CLUSTER_SIZE, left == 0))
        k = int(order[0])
        if k not in waiting:
            waiting[k] = _by_typicality(embeddings, np.flatnonzero(clusters == k), given, neighbors)
        chosen.append(waiting[k].pop())
        held[k] += 1
        left[k] -= 1
    rows, typicalities = zip(*chosen, strict=True)
    return np.array(rows, np.int64), np.array(typicalities)


def _by_typicality(
    embeddings: Matrix, members: NDArray[np.int64], given: NDArray[np.bool_], neighbors: int
) -> list[tuple[int, float]]:
    """Return the unlabeled members of a cluster with their typicality, the most typical last."""
    count = min(neighbors, members.size // 2)
    scores = np.zeros(members.size)
    if count:
        cluster = torch.from_numpy(embeddings[members])
        # Centering keeps the distances, and keeps them from cancelling in float32.
        cluster -= cluster.mean(0)
        for block in blocks(members.size, max(1, min(512, NUM_DISTANCES // members.size))):
            squared = squared_distances(cluster[block], cluster)
            own = torch.arange(block.start, block.stop)
            squared[own - block.start, own] = torch.inf
            nearest = squared.topk(count, dim=1, largest=False).values.sqrt_().double()
            mean = nearest.mean(1).clamp_(min=torch.finfo(torch.float64).tiny)
            scores[block] = (1 / mean).numpy()
    offered = np.flatnonzero(~given[members])
    # The list is used from its end, so the first among equally typical members stands last.
    order = offered[np.lexsort((-offered, scores[offered]))]
    return list(zip(members[order].tolist(), scores[order].tolist(), strict=True))
