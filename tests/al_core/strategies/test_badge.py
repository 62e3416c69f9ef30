from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import al_core.strategies.badge as module
from al_core import Badge, Pool, Prediction, badge
from al_core.strategies.badge import _factors
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


def gradients(embeddings: np.ndarray, residuals: np.ndarray) -> np.ndarray:
    """Return the gradients themselves, (n, k * d), float64."""
    outer = np.einsum("nk,nd->nkd", residuals.astype(np.float64), embeddings.astype(np.float64))
    return outer.reshape(len(embeddings), -1)


def test_the_factors_are_those_of_the_gradient() -> None:
    """Residual times embedding is the gradient of the last layer at the predicted label."""
    generator = torch.Generator().manual_seed(0)
    embedded = torch.randn(6, 4, generator=generator)
    layer = torch.nn.Linear(4, 3, bias=False)
    logits = layer(embedded)
    rows = _factors(Prediction(logits.detach().log_softmax(1), embedding=embedded)).numpy()
    assert (rows[:, 0] == 3).all()
    ours = gradients(rows[:, 4:], rows[:, 1:4])
    for i in range(6):
        loss = torch.nn.functional.cross_entropy(
            layer(embedded[i : i + 1]), logits[i].argmax()[None]
        )
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        np.testing.assert_allclose(ours[i], gradient.flatten().numpy(), atol=1e-6)


def test_positions_count_by_the_mean_of_their_squares() -> None:
    """With pixels the factor's squared norm is the mean of the pixels' squared norms."""
    generator = torch.Generator().manual_seed(0)
    log_probs = torch.randn(2, 3, 4, 5, generator=generator).log_softmax(1)
    rows = _factors(Prediction(log_probs, embedding=torch.ones(2, 2))).numpy()
    probabilities = log_probs.exp()
    residual = probabilities - torch.nn.functional.one_hot(log_probs.argmax(1), 3).movedim(-1, 1)
    expected = residual.square().sum(1).mean((1, 2)).numpy()
    np.testing.assert_allclose(np.square(rows[:, 1:4]).sum(1), expected, rtol=1e-5)


def plain_shares(points: np.ndarray, budget: int) -> dict[tuple[int, ...], float]:
    """Return the probability of each sequence by the definition of the seeding."""
    first = int(np.square(points).sum(1).argmax())
    shares = {}
    for rest in itertools.permutations([i for i in range(len(points)) if i != first], budget - 1):
        chance, chosen = 1.0, [first]
        for row in rest:
            squared = np.square(points[:, None] - points[chosen]).sum(2).min(1)
            chance *= squared[row] / squared.sum()
            chosen.append(row)
        shares[(first, *rest)] = chance
    return shares


@pytest.mark.parametrize(
    ("proposed", "cost"), [(1, 10**9), (16, 0), (3, 10**9), (256, 1024)],
    ids=["a pass a pick", "one pass", "passes whenever one is refused", "as it is"],
)  # fmt: skip
def test_queries_have_the_probabilities_of_k_means_seeding(
    proposed: int, cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sequences have the probabilities of k-means++ seeding, with stale bounds and without."""
    monkeypatch.setattr(module, "PROPOSED", proposed)
    monkeypatch.setattr(module, "PASS", cost)
    rng = np.random.default_rng(3)
    embeddings = rng.standard_normal((5, 3)).astype(np.float32)
    residuals = rng.standard_normal((5, 2)).astype(np.float32)
    expected = plain_shares(gradients(embeddings, residuals), 4)
    assert sum(expected.values()) == pytest.approx(1)
    counts = dict.fromkeys(expected, 0)
    draws, generator = 600, np.random.default_rng(0)
    for _ in range(draws):
        counts[tuple(badge(embeddings, residuals, 4, rng=generator)[0].tolist())] += 1
    statistic = sum((counts[s] - draws * p) ** 2 / (draws * p) for s, p in expected.items())
    # chi-squared of 23 degrees of freedom: beyond 60 with a probability below 4e-5.
    assert statistic < 60


def test_rows_that_float32_cannot_tell_apart_have_their_probabilities() -> None:
    """With two rows at distances 2 to 1 from a chosen one, the first is drawn in 4 of 5 cases.

    They differ from it in the fourth digit, so their squared distances in the eighth of the length.
    """
    embeddings = np.ones((9, 16), np.float32)
    embeddings[0] *= 1.5  # the longest: chosen first
    embeddings[1, :4] += 2e-4
    embeddings[2, 4:8] += 1e-4
    residuals = np.tile(np.array([0.5, -0.5], np.float32), (9, 1))
    thirds = []
    for seed in range(250):
        chosen, distances = badge(embeddings, residuals, 3, rng=np.random.default_rng(seed))
        assert chosen[0] == 0
        if chosen[1] > 2:  # one of the copies of all ones
            thirds.append(int(chosen[2]))
            assert distances[2] == pytest.approx((4e-4, 2e-4)[chosen[2] - 1] / 2**0.5, rel=1e-2)
    assert set(thirds) == {1, 2}
    # Of about 190 the standard deviation of the share is 0.03.
    assert thirds.count(1) / len(thirds) == pytest.approx(0.8, abs=0.12)


def test_distances_are_those_of_the_gradients() -> None:
    """The returned distances are those to the nearest earlier pick, by brute force."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((700, 12)).astype(np.float32)
    residuals = rng.standard_normal((700, 5)).astype(np.float32)
    points = gradients(embeddings, residuals)
    chosen, distances = badge(embeddings, residuals, 150, rng=rng)
    assert np.unique(chosen).size == 150
    assert chosen[0] == np.linalg.norm(points, axis=1).argmax()
    for place in range(1, 150):
        away = np.linalg.norm(points[chosen[place]] - points[chosen[:place]], axis=1).min()
        assert distances[place] == pytest.approx(away, rel=1e-5)


def test_equal_gradients_are_drawn_once_all_others_are() -> None:
    """A copy of a chosen row is drawn only after all other rows, and then at random.

    This holds for any numbers: a difference of equals is 0 in spite of rounding.
    """
    rng = np.random.default_rng(4)
    kind = rng.permutation(np.repeat(np.arange(5), 8))
    embeddings = rng.standard_normal((5, 200)).astype(np.float32)[kind]
    residuals = rng.standard_normal((5, 7)).astype(np.float32)[kind]
    lasts = set()
    for seed in range(8):
        chosen, distances = badge(embeddings, residuals, 40, rng=np.random.default_rng(seed))
        assert sorted(chosen.tolist()) == list(range(40))
        assert set(kind[chosen[:5]].tolist()) == set(range(5))
        assert (distances[:5] > 0).all()
        assert (distances[5:] == 0).all()
        lasts.add(int(chosen[-1]))
    assert len(lasts) > 3


def test_of_sure_samples_one_is_enough() -> None:
    """Samples of which the model is sure have no gradient, so at most one comes before others."""
    values = np.array([60.0, 0.1, 70.0, -0.2, 80.0, 0.3])
    query = select(Badge(), Pool(6), FakeLearner(values), 4)
    assert {1, 3, 5} < set(query.indices.tolist())


def test_a_read_only_file_gives_the_same(tmp_path: Path) -> None:
    """Factors may live in a memory-mapped file; the same seed gives the same query."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((600, 20), dtype=np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    one, two, other = (
        badge(each[:, 5:], each[:, :5], 90, rng=np.random.default_rng(seed))[0].tolist()
        for each, seed in ((rows, 1), (mapped, 1), (rows, 2))
    )
    assert one == two
    assert one != other


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_numbers_whose_squares_float32_cannot_hold(scale: float) -> None:
    """Squares that are 0 or infinite in float32 change nothing but the scale of the distances."""
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((60, 6)).astype(np.float32)
    residuals = rng.standard_normal((60, 3)).astype(np.float32)
    one, two = (
        badge(embeddings * np.float32(by), residuals, 60, rng=np.random.default_rng(0))
        for by in (1, scale)
    )
    assert np.unique(two[0]).size == 60
    assert two[0][:9].tolist() == one[0][:9].tolist()
    np.testing.assert_allclose(two[1][:9], one[1][:9] * scale, rtol=1e-5)
