"""Random sampling that knows the task: balanced over predicted classes, or drawn to the foreground.

Baselines that any active strategy has to beat where classes are rare or images mostly empty; ours.
That balance matters on skewed pools is shown by Aggarwal, Popescu & Hudelot, WACV 2020; weighted
sampling without replacement by noise on the logarithms is Efraimidis & Spirakis 2006.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query
from al_core.pool import IndexArray, Pool
from al_core.strategies.image_level import class_distribution, foreground_share
from al_core.strategies.rows import infer_rows, shuffled_candidates
from al_core.strategies.turns import turns


class ClassBalancedRandom:
    """Random samples, as many of each predicted class as there are, or as can be had.

    With positions the predicted class of an image is the one of most mass over them.

    Args:
        background: The class of positions that show nothing, which does not count; None for none.
    """

    def __init__(self, *, background: int | None = None) -> None:
        self.background = background

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Go round the predicted classes, in random order, until the budget is met."""
        classes = infer_rows(learner, candidates, self._predicted_class)[:, 0].astype(np.int64)
        predicted, which = np.unique(classes, return_inverse=True)
        first = rng.random(predicted.size)
        return Query(candidates[np.lexsort((first[which], turns(classes)))[:budget]])

    def _predicted_class(self, prediction: Prediction) -> Tensor:
        distribution = class_distribution(prediction, self.background)
        # A row that is not finite has no largest; its sum carries that on.
        largest = distribution.argmax(1) + 0 * distribution.sum(1)
        return largest[:, None].float()


class ForegroundRandom:
    """Random samples, drawn in proportion to the expected share of their foreground.

    Without a background, and for images that are classified, it is uniform sampling.

    Args:
        background: The class of positions that show nothing; None for none.
    """

    def __init__(self, *, background: int | None = None) -> None:
        self.background = background

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Draw without replacement; those without any foreground come last."""
        share = infer_rows(learner, candidates, self._share)[:, 0].astype(np.float64)
        keys = np.log(np.maximum(share, np.finfo(np.float64).tiny)) + rng.gumbel(size=share.size)
        return Query(candidates[np.argsort(-keys)[:budget]])

    def _share(self, prediction: Prediction) -> Tensor:
        share = foreground_share(prediction, self.background)
        return (share + 0 * prediction.log_probs.flatten(1).exp().sum(1))[:, None].float()
