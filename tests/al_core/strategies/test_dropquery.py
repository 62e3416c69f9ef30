from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import skactiveml.base
import skactiveml.pool
import torch
from torch import Tensor

from al_core import DropQuery, IndexArray, Pool, Prediction
from tests.al_core.strategies.listed import select


class Table:
    """A learner that knows the embedding of each sample and how many of 4 passes disagree."""

    def __init__(self, embeddings: np.ndarray, disagreeing: np.ndarray) -> None:
        self.embeddings = torch.from_numpy(embeddings).float()
        self.disagreeing = torch.from_numpy(disagreeing)

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Predict class 0, and class 2 in the passes that disagree."""
        at = torch.from_numpy(indices)
        own = torch.tensor([0.6, 0.3, 0.1]).expand(len(at), 3)
        disagrees = torch.arange(4) < self.disagreeing[at][:, None]
        passes = torch.where(disagrees[..., None], own[0].flip(0), own[0])
        return extract(
            Prediction(own.log(), embedding=self.embeddings[at], log_prob_samples=passes.log())
        )


def blobs(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Well separated groups of these sizes: points (n, 3) and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    centers = 50 * rng.standard_normal((len(sizes), 3))
    return centers[group] + rng.standard_normal((len(group), 3)), group


def test_the_nearest_to_each_center_of_those_that_change() -> None:
    """Only samples that more than half of the passes dispute are clustered and chosen from.

    The largest cluster comes first, and the scores are the shares of the passes.
    """
    points, group = blobs([16, 10, 7, 4])
    disagreeing = np.array([4, 3, 3, 3])[group]
    disagreeing[::4] = 2  # half of the passes are not enough
    query = select(DropQuery(), Pool(37), Table(points, disagreeing), 4)  # type: ignore[arg-type]
    expected = []
    for each in range(4):
        members = np.flatnonzero((group == each) & (disagreeing > 2))
        away = np.linalg.norm(points[members] - points[members].mean(0), axis=1)
        expected.append(int(members[away.argmin()]))
    assert query.indices.tolist() == expected
    assert query.scores is not None
    assert query.scores.tolist() == [1.0, 0.75, 0.75, 0.75]


def test_too_few_that_change_are_joined_by_the_next() -> None:
    """With fewer disputed samples than the budget, those disputed by fewer passes follow."""
    points, _ = blobs([20])
    disagreeing = np.zeros(20, np.int64)
    disagreeing[[3, 8]] = 4
    disagreeing[[1, 5, 7]] = 2
    query = select(DropQuery(), Pool(20), Table(points, disagreeing), 5)  # type: ignore[arg-type]
    assert sorted(query.indices.tolist()) == [1, 3, 5, 7, 8]


def test_copies_leave_clusters_empty_and_the_budget_is_met() -> None:
    """Where there are fewer different embeddings than clusters, each sample is chosen once."""
    points = np.repeat(np.eye(3), 6, axis=0)
    table = Table(points, np.full(18, 4))
    query = select(DropQuery(), Pool(18), table, 10)  # type: ignore[arg-type]
    assert np.unique(query.indices).size == 10
    assert {i // 6 for i in query.indices[:3].tolist()} == {0, 1, 2}


class Disputed(skactiveml.base.SkactivemlClassifier):  # type: ignore[misc]
    """Predicts class 0, and another one for samples from which anything was dropped."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> Disputed:
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return (x == 0).any(1).astype(int)


def test_the_samples_are_those_of_scikit_activeml() -> None:
    """On groups that any clustering finds, another implementation chooses the same samples."""
    points, _ = blobs([9, 8, 7, 6, 5], seed=3)
    theirs = skactiveml.pool.DropQuery(
        dropout_rate=0.999, cluster_algo_dict={"random_state": 0, "n_init": 20}, random_state=0
    ).query(points, np.full(35, np.nan), Disputed(classes=[0, 1]), fit_clf=False, batch_size=5)
    ours = select(DropQuery(), Pool(35), Table(points, np.full(35, 4)), 5)  # type: ignore[arg-type]
    assert set(ours.indices.tolist()) == set(theirs.tolist())


def test_background_is_no_class_of_an_image() -> None:
    """With pixels the classes that are compared leave the background out."""
    own = torch.tensor([[[0.9, 0.9], [0.06, 0.06], [0.04, 0.04]]])
    other = torch.tensor([[[0.9, 0.9], [0.04, 0.04], [0.06, 0.06]]])
    prediction = Prediction(
        own.log(), embedding=torch.zeros(1, 2), log_prob_samples=torch.stack([other, own], 1).log()
    )
    assert DropQuery(background=0)._extract(prediction)[0, 0] == pytest.approx(0.5)
    assert DropQuery()._extract(prediction)[0, 0] == 0
