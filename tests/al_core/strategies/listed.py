"""List of all strategies: every choice under conf/strategy, built as configured.

`test_invariants.py` tests every strategy of this list, so that a new file under conf/strategy is
tested without further work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from al_core import (
    IndexArray,
    Learner,
    Pool,
    Precomputed,
    Prediction,
    Query,
    QueryStrategy,
    Random,
    Requirement,
    Subsampled,
    TopK,
)
from al_core import predicted_loss as predicted
from tests.al_core.fakes import FakeLearner

CONF = Path(__file__).parents[3] / "conf" / "strategy"
SHOWN = 12
"""Number of candidates that subsampled strategies are shown."""
NUM_SAMPLES = 30
"""Size of the largest pool."""

EARLIER = "earlier_query.csv"


@lru_cache
def earlier_query(num_samples: int) -> Path:
    """Write an earlier query that lists every sample of a pool, for `precomputed`."""
    file = Path(tempfile.mkdtemp()) / EARLIER
    order = np.random.default_rng(0).permutation(num_samples)
    file.write_text("index\n" + "\n".join(map(str, order)) + "\n", encoding="utf-8")
    return file


def node(name: str) -> DictConfig:
    """Load the node that builds a strategy, with mandatory values filled in."""
    config = OmegaConf.load(CONF / f"{name}.yaml")
    query = config.query if "query" in config else config.strategy.query
    assert isinstance(query, DictConfig)
    for key in map(str, query):
        if OmegaConf.is_missing(query, key):
            query[key] = str(earlier_query(NUM_SAMPLES))
    return query


def configured(name: str, **changes: Any) -> QueryStrategy:
    """Build the strategy of this name as configured, except for `changes`."""
    strategy: QueryStrategy = instantiate(node(name), _convert_="all", **changes)
    return strategy


CHANGES: dict[str, dict[str, Any]] = {
    "discriminative": {"max_steps": 3, "width": 8},  # not minutes of training
    "two_phase": {"switch_at_labels_per_class": 4},  # small pools reach both phases
}
"""Settings under which the invariants are tested; they hold for any."""
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))
STRATEGIES: dict[str, Callable[[], QueryStrategy]] = {
    **{name: partial(configured, name, **CHANGES.get(name, {})) for name in NAMES},
    "subsampled_random": lambda: Subsampled(Random(), SHOWN),
    "subsampled_predicted_loss": lambda: Subsampled(TopK(predicted), SHOWN),
}


def targets(part: Any) -> Iterator[str]:
    """Yield the targets of a node and of all nodes inside it."""
    if isinstance(part, dict):
        if "_target_" in part:
            yield part["_target_"]
        part = list(part.values())
    if isinstance(part, list):
        for each in part:
            yield from targets(each)


class Limited(FakeLearner):
    """A learner whose predictions hold log-probabilities and the given parts, nothing else."""

    def __init__(self, values: Any, given: frozenset[Requirement]) -> None:
        super().__init__(values)
        self.given = given

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Remove parts that are not given from each prediction."""
        return super().infer(indices, lambda prediction: extract(self._limited(prediction)))

    def _limited(self, prediction: Prediction) -> Prediction:
        passes = prediction.log_prob_samples
        if Requirement.LOG_PROB_SAMPLES not in self.given:
            passes = None
        elif Requirement.SEVERAL_PASSES not in self.given:
            passes = None if passes is None else passes[:, :1]
        single = {Requirement.EMBEDDING, Requirement.PREDICTED_LOSS} - self.given
        return replace(prediction, log_prob_samples=passes, **{str(name): None for name in single})


@st.composite
def situations(draw: st.DrawFn) -> tuple[Pool, FakeLearner, int, int]:
    """Draw a partly labeled pool, values with ties, a possible budget and a seed."""
    n = draw(st.integers(1, NUM_SAMPLES))
    pool = Pool(n)
    pool.label(draw(st.lists(st.integers(0, n - 1), unique=True, max_size=n)))
    values = draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n))
    budget = draw(st.integers(0, min(SHOWN, pool.unlabeled.size)))
    return pool, FakeLearner(values), budget, draw(st.integers(0, 2**32))


def select(
    strategy: QueryStrategy,
    pool: Pool,
    learner: Learner,
    budget: int,
    seed: int = 0,
    candidates: IndexArray | None = None,
) -> Query:
    """Query with a fresh generator."""
    if isinstance(strategy, Precomputed) and strategy.source.name == EARLIER:
        strategy.source = earlier_query(pool.num_samples)
    shown = pool.unlabeled if candidates is None else candidates
    return strategy.select(pool, shown, learner, budget, np.random.default_rng(seed))
