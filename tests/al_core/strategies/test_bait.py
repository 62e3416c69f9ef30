from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

import al_core.strategies.bait as module
from al_core import Bait, Pool, Prediction, bait
from al_core.errors import InvalidSetting
from al_core.strategies.bait import fisher_rows
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


def plain(
    rows: np.ndarray, budget: int, labeled: np.ndarray, regularization: float, oversampling: int
) -> tuple[list[int], list[float]]:
    """The algorithm by its definition: an inverse for every row and step, in float64."""
    rows, labeled = rows.astype(np.float64), labeled.astype(np.float64)
    everything = np.concatenate([rows, labeled])
    fisher = everything.T @ everything / len(everything)
    information = labeled.T @ labeled + regularization * np.eye(rows.shape[1])

    def trace(matrix: np.ndarray) -> float:
        return float(np.trace(np.linalg.inv(matrix) @ fisher))

    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(oversampling * budget, len(rows))):
        left = [i for i in range(len(rows)) if i not in chosen]
        traces = [trace(information + np.outer(rows[i], rows[i])) for i in left]
        best = int(np.argmin(traces))
        gains.append(trace(information) - traces[best])
        chosen.append(left[best])
        information += np.outer(rows[left[best]], rows[left[best]])
    while len(chosen) > budget:
        traces = [trace(information - np.outer(rows[i], rows[i])) for i in chosen]
        worst = int(np.argmin(traces))
        information -= np.outer(rows[chosen[worst]], rows[chosen[worst]])
        del chosen[worst], gains[worst]
    return chosen, gains


@pytest.mark.parametrize(
    ("front", "ahead", "products"), [(2048, 64, 2**25), (4, 8, 2**25), (30, 64, 400), (1, 1, 1)],
    ids=["as it is", "many picks are beaten", "few products", "one by one"],
)  # fmt: skip
@pytest.mark.parametrize(("num_labeled", "regularization"), [(0, 1.0), (9, 0.1)])
def test_the_batch_is_that_of_the_definition(
    front: int,
    ahead: int,
    products: int,
    num_labeled: int,
    regularization: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows, order and gains are those of inverting M for every row and step."""
    for name, value in (("FRONT", front), ("MAX_AHEAD", ahead), ("MAX_PRODUCTS", products)):
        monkeypatch.setattr(module, name, value)
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((90, 6), dtype=np.float32) * rng.random((90, 1), dtype=np.float32)
    labeled = rng.standard_normal((num_labeled, 6), dtype=np.float32)
    chosen, gains = bait(rows, 15, labeled=labeled, regularization=regularization, oversampling=3)
    expected, expected_gains = plain(rows, 15, labeled, regularization, 3)
    assert chosen.tolist() == expected
    np.testing.assert_allclose(gains, expected_gains, rtol=1e-4)


def test_gains_over_many_orders_of_magnitude_stay_right() -> None:
    """The last of many picks have the gains of the definition, which are millions of times less."""
    rng = np.random.default_rng(0)
    rows = 30 * rng.standard_normal((120, 3), dtype=np.float32)
    chosen, gains = bait(rows, 60, oversampling=1)
    expected, expected_gains = plain(rows, 60, np.empty((0, 3)), 1.0, 1)
    assert gains[-1] < 1e-6 * gains[0]
    assert chosen[:30].tolist() == expected[:30]
    np.testing.assert_allclose(np.sum(gains[:30]), np.sum(expected_gains[:30]), rtol=1e-6)
    np.testing.assert_allclose(gains, expected_gains, rtol=1e-3)


def test_rows_are_the_fisher_information_of_a_binary_last_layer() -> None:
    """Their outer products are those of the gradients, the top class against all others."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator)
    embedded = torch.randn(5, 4, generator=generator)
    rows = fisher_rows(Prediction(logits.log_softmax(1), embedding=embedded))
    for i in range(5):
        p = logits[i].softmax(0).max()
        weight = torch.zeros(4, requires_grad=True)
        shift = torch.logit(p)  # a logistic regression that predicts p
        expected = torch.zeros(4, 4)
        for label, chance in ((1.0, p), (0.0, 1 - p)):
            loss = functional.binary_cross_entropy_with_logits(
                embedded[i] @ weight + shift, torch.tensor(label)
            )
            (gradient,) = torch.autograd.grad(loss, weight)
            expected += chance * torch.outer(gradient, gradient)
        torch.testing.assert_close(torch.outer(rows[i], rows[i]), expected)


def test_positions_count_by_their_mean_and_sure_ones_keep_their_order() -> None:
    """With pixels p (1 - p) is averaged; where p rounds to 1 what is left of it still counts."""
    log_probs = torch.tensor([[[0.5, 0.9], [0.5, 0.1]]]).log()
    rows = fisher_rows(Prediction(log_probs, embedding=torch.ones(1, 2)))
    torch.testing.assert_close(rows.square(), torch.full((1, 2), (0.25 + 0.09) / 2))
    sure = torch.tensor([[0.0, -20.0], [0.0, -22.0]])
    rows = fisher_rows(Prediction(sure, embedding=torch.ones(2, 1)))
    assert rows[0] > rows[1] > 0


def test_sure_samples_and_copies_come_last() -> None:
    """A sample whose label is known to the model is worth nothing, a copy of a chosen one less."""
    values = np.array([90.0, 0.2, -80.0, 0.2, 70.0, -1.5])
    query = select(Bait(oversampling=1), Pool(6), FakeLearner(values), 6)
    assert set(query.indices[:3].tolist()) == {1, 3, 5}
    assert query.scores is not None
    assert (np.diff(query.scores[:3]) < 0).all()


def test_wrong_numbers_are_refused() -> None:
    """No regularization, none that rounding leaves, and no oversampling raise one line."""
    for wrong in (0, -1.0, float("inf"), True):
        with pytest.raises(InvalidSetting, match="regularization must be above 0"):
            Bait(regularization=wrong)
    with pytest.raises(InvalidSetting, match="oversampling must be a positive whole number"):
        Bait(oversampling=0)
    rows = np.full((4, 3), 1e12, np.float32)
    with pytest.raises(
        InvalidSetting,
        match=r"regularization=0.001 is lost beside .* 1.2e.25: it must be above 1e-14",
    ):
        bait(rows, 2, regularization=1e-3)
