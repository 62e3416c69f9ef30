"""Jobs for several processes; these import them by name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from al_core import (
    Badge,
    BatchBald,
    KCenter,
    Pool,
    Prediction,
    QueryStrategy,
    TopK,
    TypiClust,
    bald,
    entropy,
    predicted_loss,
)
from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from tests.experiments.small_tasks import lenet_task, small_data, small_learner


def log_probs(prediction: Prediction) -> Tensor:
    """Extract all classes."""
    return prediction.log_probs


def answers(engine: Engine, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Score, select and evaluate with given weights; batches of 8 of 50 images, and less."""
    task = lenet_task(eval_batch_size=8)
    learner = small_learner(task, engine=engine)
    learner.load_state_dict(weights)
    order = np.random.default_rng(0).permutation(50)
    found: dict[str, Any] = {
        # 7 batches for two processes; then 1, so that one process has none; then none for either.
        f"scores of {count}": learner.infer(order[:count], log_probs)
        for count in (50, 6, 0)
    }
    pool = Pool(50)
    pool.label([3, 4, 9])
    for name, acquisition in (("entropy", entropy), ("predicted loss", predicted_loss)):
        query = TopK(acquisition).select(pool, pool.unlabeled, learner, 7, np.random.default_rng(1))
        assert query.ranking is not None
        found[f"ranking by {name}"] = torch.from_numpy(query.ranking.indices)
        found[f"scores by {name}"] = torch.from_numpy(query.ranking.scores)
    sampled = small_learner(lenet_task(eval_batch_size=8, mc_dropout_passes=3), engine=engine)
    sampled.load_state_dict(weights, posterior_seed=5)
    strategies: tuple[tuple[QueryStrategy, TaskLearner], ...] = (
        (KCenter(), learner), (Badge(), learner), (TypiClust(), learner),
        (TopK(bald), sampled), (BatchBald(), sampled),
    )  # fmt: skip
    for number, (strategy, asked) in enumerate(strategies):
        query = strategy.select(pool, pool.unlabeled, asked, 9, np.random.default_rng(1))
        assert query.scores is not None
        found[f"query {number}"] = torch.from_numpy(query.indices)
        found[f"scores of query {number}"] = torch.from_numpy(query.scores)
    found["metrics"] = dict(learner.evaluate())
    return found


def trained(engine: Engine) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Train without randomness inside batches, on batches with unequal parts."""
    task = lenet_task(small_data(flip=False), crop_padding=0)
    labeled = np.arange(0, 46, 2)  # 23: batches of 9, 9, 5
    task.targets.reveal(labeled)
    learner = small_learner(task, head=False, engine=engine, batch_size=9)
    fitted = dict(learner.fit(labeled, seed=0))
    return fitted, {key: value.clone() for key, value in learner.model.state_dict().items()}


def everything(engine: Engine, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Do all of it in one launch; return the results of each process."""
    found = answers(engine, weights)
    fitted, state = trained(engine)
    with_module = lenet_task()
    with_module.targets.reveal(np.arange(20))
    learner = small_learner(
        with_module, engine=engine, head={"warm_up_epochs": 1, "detach_at": 0.5}
    )
    learner.fit(np.arange(20), seed=0)
    engine.barrier()
    digests = [digest(found), digest(state), digest(dict(learner.model.state_dict()))]
    return {
        "answers": found,
        "fitted": fitted,
        "state": state,
        "digests": engine.gather(digests),
        "ranks": engine.gather((engine.rank, engine.world_size, engine.is_main)),
        "shards": engine.gather(list(engine.shard(7))),
        "rows": engine.gather_rows(torch.arange(engine.rank * 3.0) if engine.rank else None),
        "draws": engine.gather(torch.rand(2, generator=engine.generator(5)).tolist()),
    }


def digest(values: Any) -> str:
    """Return a hash of results, equal only for equal bits."""
    found = hashlib.sha256()
    for key, value in sorted(values.items()):
        found.update(str(key).encode())
        found.update(value.numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return found.hexdigest()


def fails_in_one(engine: Engine, rank: int) -> None:
    """Raise a user's error in one process while the others wait for it."""
    if engine.rank == rank:
        raise InvalidSetting("cycle.epochs=0 cannot be")
    engine.barrier()


def refuses(engine: Engine, message: str) -> None:
    """Raise in this process."""
    raise InvalidSetting(message)
