"""Random sampling balanced over predicted classes, or weighted by the foreground.

These are baselines of our own for pools with rare classes or mostly empty images. Aggarwal, Popescu
& Hudelot, WACV 2020, show that balance matters on skewed pools. Weighted sampling without
replacement by noise on the logarithms is due to Efraimidis & Spirakis 2006.
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
    """Random samples in equal numbers of each predicted class, as far as the classes allow.

    With positions, the predicted class of an image is the one with the most mass over them.

    Args:
        background: Class of positions that show nothing, which is left out; None for no such class.
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
        """Take samples from the predicted classes in turn, in random order."""
        classes = infer_rows(learner, candidates, self._predicted_class)[:, 0].astype(np.int64)
        predicted, which = np.unique(classes, return_inverse=True)
        first = rng.random(predicted.size)
        return Query(candidates[np.lexsort((first[which], turns(classes)))[:budget]])

    def _predicted_class(self, prediction: Prediction) -> Tensor:
        distribution = class_distribution(prediction, self.background)
        # argmax hides values that are not finite; the sum carries them into the result.
        largest = distribution.argmax(1) + 0 * distribution.sum(1)
        return largest[:, None].float()


class ForegroundRandom:
    """Random samples, drawn in proportion to the expected share of their foreground.

    Sampling is uniform without a background class and in classification.

    Args:
        background: Class of positions that show nothing; None for no such class.
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
        """Draw without replacement; samples without any foreground come last."""
        share = infer_rows(learner, candidates, self._share)[:, 0].astype(np.float64)
        keys = np.log(np.maximum(share, np.finfo(np.float64).tiny)) + rng.gumbel(size=share.size)
        return Query(candidates[np.argsort(-keys)[:budget]])

    def _share(self, prediction: Prediction) -> Tensor:
        share = foreground_share(prediction, self.background)
        return (share + 0 * prediction.log_probs.flatten(1).exp().sum(1))[:, None].float()
