from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import al_core.strategies.batch_bald as module
from al_core import Prediction, batch_bald
from al_core.errors import InvalidSetting
from al_core.strategies.image_level import sampled_distributions


def entropy(values: np.ndarray) -> float:
    """Shannon entropy in nats."""
    return float(-sum(p * math.log(p) for p in values.ravel().tolist() if p > 0))


def information(rows: np.ndarray, batch: tuple[int, ...]) -> float:
    """Return the joint mutual information of labels and weights by equation 5."""
    _, m, k = rows.shape
    joint = np.zeros((k,) * len(batch))
    for labels in itertools.product(range(k), repeat=len(batch)):
        chances = [np.prod([rows[i, j, c] for i, c in zip(batch, labels, strict=True)])
                   for j in range(m)]  # fmt: skip
        joint[labels] = np.mean(chances)
    expected = sum(np.mean([entropy(rows[i, j]) for j in range(m)]) for i in batch)
    return entropy(joint) - expected


def sampled(n: int, m: int, k: int, seed: int = 0, sharp: float = 2.0) -> np.ndarray:
    """Distributions of posterior samples, (n, m, k)."""
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(n, m, k, generator=generator)).softmax(2).numpy()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_batch_is_that_of_the_definition(seed: int) -> None:
    """Greedy picks and gains are those of the definition of joint mutual information."""
    rows = sampled(12, 5, 3, seed)
    chosen, gains = batch_bald(rows, 4, num_configurations=81, rng=np.random.default_rng(0))
    batch: tuple[int, ...] = ()
    known = 0.0
    for row, gain in zip(chosen.tolist(), gains, strict=True):
        values = {i: information(rows, (*batch, i)) - known for i in range(12) if i not in batch}
        assert row == max(values, key=values.__getitem__)
        assert gain == pytest.approx(values[row], abs=1e-6)
        batch, known = (*batch, row), known + values[row]


def test_drawn_configurations_estimate_the_same() -> None:
    """Gains estimated from drawn configurations are within a tenth of the exact ones."""
    rows = sampled(9, 6, 3)
    exact = batch_bald(rows, 5, num_configurations=3**5, rng=np.random.default_rng(0))
    drawn = batch_bald(rows, 5, num_configurations=60, rng=np.random.default_rng(0))
    assert drawn[1].sum() == pytest.approx(exact[1].sum(), rel=0.1)
    assert drawn[0][:3].tolist() == exact[0][:3].tolist()  # 27 configurations: still all of them


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_drawn_configurations_tell_no_more_than_there_is_to_know(seed: int) -> None:
    """The joint gains of a long batch sum up to log m nats, however few configurations are kept."""
    rows = sampled(400, 10, 6, seed, sharp=0.7)
    joint = module._Joint(10)
    rng = np.random.default_rng(seed)
    bound = joint.gains(rows)
    told = 0.0
    while joint.doubt() > module.NOTHING_LEFT:
        row = module._best(rows, bound, joint)
        told += bound[row]
        bound[row] = -np.inf
        joint.extend(rows[row], 40, rng)
    assert told == pytest.approx(math.log(10), rel=0.25)


def test_copies_are_not_chosen_while_others_tell_more() -> None:
    """BatchBALD chooses one of several copies of the best sample, and then another sample."""
    rows = sampled(6, 8, 2, seed=3, sharp=6.0)
    best = batch_bald(rows, 1, num_configurations=9, rng=np.random.default_rng(0))[0][0]
    with_copies = np.concatenate([rows, np.repeat(rows[best][None], 4, axis=0)])
    chosen, _ = batch_bald(with_copies, 2, num_configurations=99, rng=np.random.default_rng(0))
    copies = {int(best), *range(6, 10)}
    assert len(copies & set(chosen.tolist())) == 1


def test_what_is_told_is_bounded_and_the_rest_goes_by_bald() -> None:
    """Gains sum up to log m nats; long batches do not underflow and continue by BALD."""
    rows = sampled(300, 4, 3, sharp=8.0)
    chosen, gains = batch_bald(rows, 200, num_configurations=50, rng=np.random.default_rng(0))
    assert np.unique(chosen).size == 200
    assert np.isfinite(gains).all()
    told = int(np.argmax(np.cumsum(gains) > math.log(4) - 0.01))
    rest = gains[told + 20 :]
    assert told < 20
    assert (np.diff(rest) <= 0).all()


def test_pixels_make_one_distribution_an_image() -> None:
    """Distributions are means over positions without background, each summing to one."""
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(2, 3, 4, 5, 6, generator=generator).log_softmax(2)
    got = sampled_distributions(Prediction(samples[:, 0], log_prob_samples=samples), 1)
    expected = samples.exp().mean((3, 4))
    expected[..., 1] = 0
    expected /= expected.sum(2, keepdim=True)
    torch.testing.assert_close(got, expected)


def test_without_samples_it_says_what_gives_them() -> None:
    """A prediction without posterior samples raises and names both ways to get them."""
    with pytest.raises(InvalidSetting, match=r"mc_dropout_passes=10 or \+strategy.ensemble_size"):
        sampled_distributions(Prediction(torch.zeros(2, 3)))
