"""What a strategy cannot do without is said before the first training."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from al_core import Query, TopK, bald, entropy, predicted_loss, ranks_regions
from al_core.errors import InvalidSetting
from experiments.config import build
from experiments.rehearsal import rehearse
from tests.al_core.strategies.listed import NAMES
from tests.small_runs import compose

PLAIN: dict[str, Any] = {"num_posterior_samples": 0, "predicts_losses": False, "of_regions": False}


@pytest.mark.parametrize("name", [name for name in NAMES if name != "precomputed"])
def test_every_choice_passes_with_what_its_configuration_gives_it(name: str) -> None:
    """On images all do, and with regions those that look neither at embeddings nor at losses."""
    config = compose("task=drn_cityscapes", "data=digits", f"strategy={name}")
    strategy = build(config.strategy.query)
    size = config.strategy.get("ensemble_size", 1)
    given = {
        "num_posterior_samples": config.task.build.mc_dropout_passes if size == 1 else size,
        "predicts_losses": config.loss_prediction.enabled,
    }
    rehearse(strategy, **given, of_regions=False)
    if not ranks_regions(strategy):
        with pytest.raises(InvalidSetting, match="strategies that score pixels, and random"):
            rehearse(strategy, **given, of_regions=True)
    else:
        rehearse(strategy, **given, of_regions=True)


def test_what_is_missing_or_wrong_is_said_as_the_strategy_says_it() -> None:
    """Posterior samples, predicted losses, and a value that an acquisition function refuses."""
    for acquisition, says in (
        (bald, "at least 2 posterior samples"),
        (predicted_loss, "loss-prediction module"),
        (partial(entropy, aggregation="median"), "mean, max or sum, got 'median'"),
    ):
        with pytest.raises(InvalidSetting, match=says):
            rehearse(TopK(acquisition), **PLAIN)
    wrong = TopK(partial(entropy, aggregation="median"))
    with pytest.raises(InvalidSetting, match="got 'median'"):  # no matter of regions
        rehearse(wrong, **{**PLAIN, "of_regions": True})


def test_it_draws_nothing_from_the_run_and_minds_nothing_else() -> None:
    """Torch's generator is as it was; what a strategy makes of so few samples is its own matter."""

    class Picky:
        def select(self, pool: Any, candidates: Any, learner: Any, budget: int, rng: Any) -> Query:
            learner.infer(candidates, lambda prediction: torch.rand(len(candidates)))
            raise KeyError("not one of mine")

    class Listed:
        def select(self, pool: Any, candidates: Any, learner: Any, budget: int, rng: Any) -> Query:
            raise InvalidSetting("the list names no such sample")

    torch.manual_seed(0)
    before = torch.get_rng_state()
    for strategy in (Picky(), Listed()):
        rehearse(strategy, **PLAIN)
    assert torch.equal(torch.get_rng_state(), before)
