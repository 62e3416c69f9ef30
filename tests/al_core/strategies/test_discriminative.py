from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import al_core.strategies.discriminative as module
from al_core import Discriminative, Pool, Prediction
from al_core.strategies.discriminative import Discriminator, train_discriminator
from tests.al_core.strategies.listed import select

RNG = np.random.default_rng(0)
NEAR = RNG.normal(0, 1, (80, 6)).astype(np.float32)
FAR = (RNG.normal(0, 1, (40, 6)) + 3).astype(np.float32)


class Embedded:
    """A learner that knows only embeddings and counts the calls of `infer`."""

    def __init__(self, embeddings: np.ndarray) -> None:
        self.embeddings = torch.from_numpy(embeddings)
        self.asked = 0

    def infer(self, indices: np.ndarray, extract) -> torch.Tensor:
        """Infer all samples as one batch."""
        self.asked += 1
        return extract(Prediction(torch.zeros(len(indices), 2), embedding=self.embeddings[indices]))


def accuracy(judge: Discriminator) -> float:
    """Return the share of labeled and unlabeled samples that are classified correctly."""
    with torch.inference_mode():
        right = [(judge(torch.from_numpy(NEAR)) < 0), (judge(torch.from_numpy(FAR)) > 0)]
    return float(torch.cat(right).float().mean())


def trained(max_steps: int = 200) -> Discriminator:
    """Return a classifier for both groups."""
    return train_discriminator(
        NEAR, FAR, np.arange(40), width=32, max_steps=max_steps, rng=np.random.default_rng(0)
    )


def test_the_classifier_learns() -> None:
    """Training makes the classifier separate labeled from unlabeled samples."""
    assert accuracy(trained()) > 0.97


def test_an_optimizer_of_another_network_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published mistake: given another network's parameters, the classifier learns nothing.

    The test above fails then, so it guards against it.
    """
    before = accuracy(trained(1))
    adam = torch.optim.Adam
    others = [copy.deepcopy(parameter) for parameter in trained(1).parameters()]
    monkeypatch.setattr(torch.optim, "Adam", lambda _, **how: adam(others, **how))
    assert accuracy(trained()) == pytest.approx(before, abs=0.1)
    assert accuracy(trained()) < 0.97


def test_what_is_unlike_the_labeled_is_queried() -> None:
    """Candidates that differ from the labeled samples are chosen before similar ones."""
    learner = Embedded(np.concatenate([NEAR, FAR]))
    pool = Pool(120)
    pool.label(range(60))  # 20 near ones and 40 far ones are left
    query = select(Discriminative(sub_queries=3, width=32, max_steps=100), pool, learner, 12)
    assert (query.indices >= 80).all()
    assert learner.asked == 2  # candidates once, labeled once, however many sub-queries


def test_sub_queries_spread_over_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chosen samples count as labeled in later sub-queries, so that a second group is chosen."""
    corner = np.zeros((1, 6), np.float32)
    corner[0, 0] = 9
    second = (RNG.normal(0, 0.3, (20, 6)) + corner).astype(np.float32)
    third = (RNG.normal(0, 0.3, (20, 6)) - corner * 0.6).astype(np.float32)
    learner = Embedded(np.concatenate([NEAR, second, third]))
    pool = Pool(120)
    pool.label(range(80))
    strategy = Discriminative(sub_queries=4, width=32, max_steps=200)
    counts = []
    monkeypatch.setattr(
        module, "train_discriminator",
        lambda known, *args, **how: counts.append(len(known))
        or train_discriminator(known, *args, **how),
    )  # fmt: skip
    query = select(strategy, pool, learner, 16)
    assert counts == [80, 84, 88, 92]
    assert min((query.indices < 100).sum(), (query.indices >= 100).sum()) >= 2
