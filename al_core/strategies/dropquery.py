"""DropQuery: samples whose predicted class changes under dropout, spread over clusters.

Source: Gupte, Aklilu, Nirschl & Yeung-Levy, *Revisiting Active Learning in the Era of Vision
Foundation Models*, TMLR 2024 (arXiv 2401.14555), section 4.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query, Requirement, ScoreArray
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks
from al_core.strategies.clustering import k_means
from al_core.strategies.image_level import class_distribution, sampled_distributions
from al_core.strategies.rows import Matrix, embedding, infer_rows, shuffled_candidates
from al_core.strategies.turns import turns


class DropQuery:
    """The sample nearest to the center of each of as many clusters as the budget.

    k-means clusters the embeddings of the unstable candidates: those for which more than half of
    the posterior passes predict another class than the network without dropout. If there are fewer
    than the budget, the next candidates by this share are added (our choice).

    Differs: the learner provides the passes. They drop the same elements of every embedding, while
    the paper draws them for each sample, and the network is trained with dropout. With positions
    (boxes, pixels), the class of an image is the one with the most mass over them.

    Args:
        background: Class of positions that show nothing, which is left out; None for no such class.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.
    """

    requires = frozenset({Requirement.EMBEDDING, Requirement.LOG_PROB_SAMPLES})

    def __init__(
        self, *, background: int | None = None, embeddings_folder: str | Path | None = None
    ) -> None:
        self.background = background
        self.folder = embeddings_folder

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose from large clusters first; scores are the shares of disagreeing passes."""
        rows = infer_rows(learner, candidates, self._extract, folder=self.folder)
        share = rows[:, 0].astype(np.float64)
        count = max(budget, int((share > 0.5).sum()))
        unstable = np.argsort(-share, kind="stable")[:count]
        matrix = rows[unstable, 1:]
        clusters = k_means(matrix, budget, rng=rng)
        nearest = np.argsort(_distances_to_centers(matrix, clusters), kind="stable")
        groups = clusters[nearest]
        sizes = np.bincount(clusters)
        # Empty clusters are replaced by second-nearest samples of the others.
        chosen = unstable[nearest[np.lexsort((groups, -sizes[groups], turns(groups)))[:budget]]]
        return Query(candidates[chosen], share[chosen])

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + d): the share of passes that disagree, and the embedding."""
        own = class_distribution(prediction, self.background)
        passes = sampled_distributions(prediction, self.background, at_least=1)
        share = (passes.argmax(2) != own.argmax(1, keepdim=True)).float().mean(1)
        # argmax hides values that are not finite; the sums carry them into the result.
        share = share + 0 * (own.sum(1) + passes.sum((1, 2)))
        return torch.cat([share[:, None], embedding(prediction)], 1)


def _distances_to_centers(matrix: Matrix, clusters: NDArray[np.int64]) -> ScoreArray:
    """Return the squared distance of each row to the mean of its cluster, (n,)."""
    which = torch.from_numpy(clusters)
    counts = torch.bincount(which)
    centers = torch.zeros(len(counts), matrix.shape[1], dtype=torch.float64)
    for block in blocks(len(matrix)):
        centers.index_add_(0, which[block], torch.from_numpy(matrix[block]).double())
    centers /= counts.clamp(min=1)[:, None]
    distances = np.empty(len(matrix))
    for block in blocks(len(matrix)):
        away = torch.from_numpy(matrix[block]).double() - centers[which[block]]
        distances[block] = away.square_().sum(1).numpy()
    return distances
