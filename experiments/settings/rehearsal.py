"""A strategy is asked once about made-up predictions, so that what it cannot do without is said
before the first training, and not after it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from al_core import IndexArray, Pool, Prediction, QueryStrategy
from al_core.errors import InvalidSetting

NUM_SAMPLES, NUM_LABELED = 12, 4
NUM_CLASSES, NUM_POSITIONS, EMBEDDING_SIZE = 3, 2, 4
ENOUGH = 2
"""Questions after which a strategy is stopped: what it makes of the answers may take long."""
REGIONS = (
    "query=regions serves strategies that score pixels, and random: of a region there is no "
    "embedding and no predicted loss ({})"
)
"""What strategies that look at more are told, with what they said."""


class _HeardEnough(Exception):
    pass


def rehearse(
    strategy: QueryStrategy,
    *,
    num_posterior_samples: int,
    predicts_losses: bool,
    of_regions: bool,
) -> None:
    """Let a strategy select one of a few samples.

    Args:
        strategy: It is left as it was, but for what it may keep in a folder of its own.
        num_posterior_samples: Their number m in a prediction; 0 for none.
        predicts_losses: Whether there is a loss-prediction module.
        of_regions: Whether samples are regions, which have neither embedding nor predicted loss.

    Raises:
        InvalidSetting: What the strategy makes of a prediction needs something that predictions of
            this run have not, or is set wrongly.
    """
    generator = torch.Generator().manual_seed(0)
    asked = 0
    refused: InvalidSetting | None = None

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    class Untrained:
        """A learner that makes up what it says."""

        def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
            nonlocal asked
            asked += 1
            b, k, m = len(indices), NUM_CLASSES, num_posterior_samples
            log_probs = drawn(b, max(m, 1), k, NUM_POSITIONS).log_softmax(2)
            rows = extract(
                Prediction(
                    log_probs[:, 0],
                    embedding=None if of_regions else drawn(b, EMBEDDING_SIZE),
                    predicted_loss=drawn(b) if predicts_losses and not of_regions else None,
                    log_prob_samples=log_probs if m else None,
                )
            )
            if asked == ENOUGH:
                raise _HeardEnough
            return rows

    pool = Pool(NUM_SAMPLES)
    pool.label(range(NUM_LABELED))
    # Whatever else a strategy says of made-up samples, it need not say of real ones.
    with suppress(Exception), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        try:
            strategy.select(pool, pool.unlabeled, Untrained(), 1, np.random.default_rng(0))  # type: ignore[arg-type]
        except InvalidSetting as error:
            refused = error
    if refused is None or not asked:  # one that asks nothing goes by the samples, a list of them
        return
    if not of_regions:
        raise refused
    rehearse(  # what it would say of whole images too is no matter of regions
        strategy,
        num_posterior_samples=num_posterior_samples,
        predicts_losses=predicts_losses,
        of_regions=False,
    )
    raise InvalidSetting(REGIONS.format(refused))
