"""Cluster-Margin: samples of small margin, from as many clusters as possible.

Source: Citovsky et al., *Batch Active Learning at Scale*, NeurIPS 2021 (arXiv 2107.14263),
algorithm 1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from al_core.acquisition import margin
from al_core.contracts import AcquisitionFunction, Learner, Prediction, Query, Requirement
from al_core.errors import InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.clustering import average_linkage
from al_core.strategies.rows import embedding, infer_rows, shuffled_candidates, writable_folder
from al_core.strategies.scoring import check_scores
from al_core.strategies.turns import turns

MAX_CLUSTERED = 20_000
"""Samples that average linkage can cluster: it stores all pairwise distances, here 1.6 GB."""


class ClusterMargin:
    """One sample per cluster of the highest-scoring candidates, smallest clusters first.

    Differs: the paper clusters the whole pool once, before the first cycle. Here the candidates of
    largest score are clustered in every cycle, by the embeddings of the current model.

    Args:
        acquisition: Score of the candidates; the margin in the paper.
        factor: Number of candidates that are clustered, as a multiple of the budget.
        cluster_size: Average number of members of a cluster.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A number that is not positive.
    """

    def __init__(
        self,
        acquisition: AcquisitionFunction = margin,
        *,
        factor: int = 10,
        cluster_size: int = 10,
        embeddings_folder: str | Path | None = None,
    ) -> None:
        require_positive("factor", factor)
        require_positive("cluster_size", cluster_size)
        self.acquisition, self.factor, self.cluster_size = acquisition, factor, cluster_size
        self.folder = writable_folder(embeddings_folder)

    @property
    def requires(self) -> frozenset[Requirement]:
        """Embeddings, and the requirements of the acquisition function."""
        return requirements_of(self.acquisition) | {Requirement.EMBEDDING}

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Take samples from the clusters in turn; scores are the acquisition scores.

        Raises:
            InvalidSetting: More samples would have to be clustered than memory allows.
        """
        count = min(self.factor * budget, candidates.size)
        if count > MAX_CLUSTERED:
            raise InvalidSetting(
                f"clustering {count} samples compares all pairs, and at most {MAX_CLUSTERED} are "
                "possible: lower the query size or strategy.query.factor"
            )
        rows = infer_rows(learner, candidates, self._extract, folder=self.folder)
        wanted = np.argsort(-rows[:, 0], kind="stable")[:count]
        clusters = average_linkage(rows[wanted, 1:], max(1, count // self.cluster_size))
        sizes = np.bincount(clusters)
        # All first turns, then all second ones, and small clusters first within a turn.
        order = np.lexsort((clusters, sizes[clusters], turns(clusters)))[:budget]
        return Query(candidates[wanted[order]], rows[wanted[order], 0].astype(np.float64))

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + d): the score and the embedding."""
        scores = check_scores(self.acquisition(prediction), len(prediction.log_probs))
        return torch.cat([scores[:, None].float(), embedding(prediction)], 1)
