from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from al_core import (
    Affordable,
    Badge,
    BatchBald,
    ClusterMargin,
    DiverseTopK,
    KCenter,
    Mixture,
    Prediction,
    Random,
    Requirement,
    StochasticBatch,
    Subsampled,
    TopK,
    bald,
    entropy,
    predicted_loss,
    predictive_entropy,
    ranks_regions,
    requirements_of,
    requires,
)
from al_core.errors import InvalidSetting

PASSES = {Requirement.LOG_PROB_SAMPLES, Requirement.SEVERAL_PASSES}
EMBEDDING, LOSS = {Requirement.EMBEDDING}, {Requirement.PREDICTED_LOSS}
COSTS = torch.ones(3, dtype=torch.int64).numpy()


def own(prediction: Prediction) -> Tensor:
    """An acquisition function of a user's own, which declares nothing."""
    return prediction.log_probs[:, 0]


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (Random(), set()),
        (TopK(own), set()),
        (TopK(entropy), set()),
        (TopK(predicted_loss), LOSS),
        (TopK(partial(partial(bald), aggregation="max")), PASSES),
        (StochasticBatch(predictive_entropy), {Requirement.LOG_PROB_SAMPLES}),
        (BatchBald(), PASSES),
        (Badge(), EMBEDDING),
        (ClusterMargin(), EMBEDDING),
        (ClusterMargin(bald), EMBEDDING | PASSES),
        (DiverseTopK(predicted_loss), LOSS | EMBEDDING),
        (DiverseTopK(predicted_loss, over="classes"), LOSS),
        (Mixture([KCenter(), Subsampled(TopK(bald), 5)], [0.5, 0.5]), EMBEDDING | PASSES),
        (Affordable(Subsampled(Badge(), 2), COSTS), EMBEDDING),
        (partial(own), set()),
        (object(), set()),
    ],
)
def test_requirements_are_read_through_wrappers_and_partials(
    subject: object, expected: set[Requirement]
) -> None:
    """Whatever is wrapped counts; an object that declares nothing requires nothing."""
    assert requirements_of(subject) == expected
    assert ranks_regions(subject) == expected.isdisjoint(EMBEDDING | LOSS)


def test_own_functions_and_strategies_can_declare() -> None:
    """The decorator returns the function itself, and names serve as well as members."""
    decorated = requires(Requirement.EMBEDDING)(own_too := lambda prediction: prediction.embedding)
    assert decorated is own_too
    assert requirements_of(TopK(decorated)) == EMBEDDING

    class Own(Random):
        requires = ("embedding", "predicted_loss")

    assert requirements_of(Own()) == EMBEDDING | LOSS


@pytest.mark.parametrize("declared", [("embeddings",), "embedding", 3], ids=repr)
def test_an_unknown_requirement_is_refused(declared: Any) -> None:
    """A misspelled requirement raises one line with the class, the value and the permitted ones."""

    class Own(Random):
        requires = declared

    with pytest.raises(
        InvalidSetting,
        match=r"Own.requires .* embedding, pretrained_embedding, predicted_loss, .* got",
    ):
        requirements_of(Own())
