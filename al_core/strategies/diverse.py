"""Candidates of largest score, spread over clusters or over predicted classes.

Source: Zhdanov, *Diverse Mini-Batch Active Learning*, 2019 (arXiv 1901.05954), section 3. The
candidates of largest score, several times the budget, form as many clusters as the budget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from al_core.contracts import AcquisitionFunction, Learner, Prediction, Query, Requirement
from al_core.errors import InvalidSetting, require_positive
from al_core.pool import IndexArray, Pool
from al_core.requirements import requirements_of
from al_core.strategies.clustering import k_means
from al_core.strategies.image_level import class_distribution
from al_core.strategies.rows import embedding, infer_rows, shuffled_candidates, writable_folder
from al_core.strategies.scoring import check_scores
from al_core.strategies.turns import turns

Spread = Literal["clusters", "classes"]


class DiverseTopK:
    """The best candidate of each group in turn, among the candidates of largest score.

    Groups are the predicted classes, or clusters of embeddings by k-means, as many as the budget.
    Differs: Zhdanov weights k-means by the scores and takes the sample nearest to each center. Only
    the order of predicted losses has a meaning, so here it decides which candidates are clustered
    and which member of a cluster is chosen.

    Args:
        acquisition: Score of the candidates.
        factor: Number of candidates that are grouped, as a multiple of the budget.
        over: "clusters" or "classes".
        background: With classes, the class of positions that show nothing, which is left out.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A factor that is not positive, or an unknown grouping.
    """

    def __init__(
        self,
        acquisition: AcquisitionFunction,
        *,
        factor: int = 10,
        over: Spread = "clusters",
        background: int | None = None,
        embeddings_folder: str | Path | None = None,
    ) -> None:
        require_positive("factor", factor)
        if over not in ("clusters", "classes"):
            raise InvalidSetting(f"over must be clusters or classes, got {over!r}")
        self.acquisition, self.factor, self.over = acquisition, factor, over
        self.background = background
        self.folder = writable_folder(embeddings_folder)

    @property
    def requires(self) -> frozenset[Requirement]:
        """Requirements of the acquisition function; embeddings too where they are clustered."""
        grouping = {Requirement.EMBEDDING} if self.over == "clusters" else frozenset()
        return requirements_of(self.acquisition) | grouping

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Take samples from the groups in turn; scores are the acquisition scores."""
        rows = infer_rows(learner, candidates, self._extract, folder=self.folder)
        wanted = np.argsort(-rows[:, 0], kind="stable")[: self.factor * budget]
        if self.over == "clusters":
            groups = k_means(rows[wanted, 1:], budget, rng=rng)
        else:
            groups = rows[wanted, 1].astype(np.int64)
        order = np.argsort(turns(groups), kind="stable")[:budget]  # `wanted` is sorted already
        return Query(candidates[wanted[order]], rows[wanted[order], 0].astype(np.float64))

    def _extract(self, prediction: Prediction) -> Tensor:
        """Extract (b, 1 + d): the score, and the embedding or the predicted class."""
        scores = check_scores(self.acquisition(prediction), len(prediction.log_probs))
        group = (
            embedding(prediction)
            if self.over == "clusters"
            else class_distribution(prediction, self.background).argmax(1, keepdim=True)
        )
        return torch.cat([scores[:, None].float(), group.float()], 1)
