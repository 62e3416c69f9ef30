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
"""Average linkage compares all pairs: 1.6 GB."""


class ClusterMargin:
    """One candidate per cluster of the `factor` times budget most wanted, smallest cluster first.

    Differs: the paper clusters the whole pool once, before the first cycle; here the most wanted
    candidates are clustered anew in each cycle, by the embeddings of the model as it is.

    Args:
        acquisition: Says who is wanted; the paper's is the margin.
        factor: Of the budget: how many candidates are clustered.
        cluster_size: Members of a cluster on average.
        embeddings_folder: Where embeddings are kept in a memory-mapped file; None for in memory.

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
        """Go round the clusters from small to large; scores are the acquisition scores.

        Raises:
            InvalidSetting: More samples would have to be clustered than memory is for.
        """
        count = min(self.factor * budget, candidates.size)
        if count > MAX_CLUSTERED:
            raise InvalidSetting(
                f"clustering {count} samples compares all pairs; {MAX_CLUSTERED} can be had: lower "
                "the query size or strategy.query.factor"
            )
        rows = infer_rows(learner, candidates, self._extract, folder=self.folder)
        wanted = np.argsort(-rows[:, 0], kind="stable")[:count]
        clusters = average_linkage(rows[wanted, 1:], max(1, count // self.cluster_size))
        sizes = np.bincount(clusters)
        # All first turns, then all second ones; the small clusters first in each.
        order = np.lexsort((clusters, sizes[clusters], turns(clusters)))[:budget]
        return Query(candidates[wanted[order]], rows[wanted[order], 0].astype(np.float64))

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + d): the score and the embedding."""
        scores = check_scores(self.acquisition(prediction), len(prediction.log_probs))
        return torch.cat([scores[:, None].float(), embedding(prediction)], 1)
