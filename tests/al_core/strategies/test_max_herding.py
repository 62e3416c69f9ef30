from __future__ import annotations

import numpy as np
import pytest
import skactiveml.pool
from hypothesis import given, settings
from hypothesis import strategies as st

import al_core.strategies.coverage as module
from al_core import MaxHerding, Pool, margin, max_herding
from al_core.errors import InvalidSetting
from al_core.strategies.blocks import normalized
from al_core.strategies.max_herding import smallest_distance
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


def check_greedy(
    rows: np.ndarray,
    chosen: np.ndarray,
    gains: np.ndarray,
    *,
    sigma: float,
    weights: np.ndarray | None = None,
    labeled: np.ndarray | None = None,
) -> None:
    """Check each pick against the gains of all rows by their definition, in float64."""
    rows = rows.astype(np.float64)
    kernel = np.exp(-np.square(rows[:, None] - rows[None]).sum(2) / sigma**2)
    weights = np.ones(len(rows)) if weights is None else weights
    covered = np.zeros(len(rows))
    if labeled is not None and len(labeled):
        squared = np.square(rows[:, None] - labeled[None].astype(np.float64)).sum(2)
        covered = np.exp(-squared / sigma**2).max(1)
    assert np.unique(chosen).size == chosen.size
    for place, row in enumerate(chosen):
        all_gains = (weights * np.maximum(kernel - covered, 0)).mean(1)
        all_gains[chosen[:place]] = -1
        assert all_gains[row] >= all_gains.max() - 1e-6
        assert gains[place] == pytest.approx(all_gains[row], abs=1e-6)
        covered = np.maximum(covered, kernel[row])


WAYS = {
    "as it is": {},
    "pairs are never kept": {"MAX_PAIRS": 0},
    "more pairs than estimated": {"MAX_PAIRS": 500},
    "pairs are kept once they are fewer": {"MAX_PAIRS": 9000},
    "small tiles": {"TILE": (8, 32), "MAX_PAIRS": 9000},
    "a small cache": {"COMPUTED": 4, "CACHE_BYTES": 0, "MAX_PAIRS": 0},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("num_labeled", [0, 5])
@pytest.mark.parametrize("sigma", [1.0, 0.3])
def test_each_pick_has_the_largest_gain(
    way: str, num_labeled: int, sigma: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picks are those of the full kernel matrix, however it is cut and whatever is kept of it."""
    for name, value in WAYS[way].items():
        monkeypatch.setattr(module, name, value)
    if way == "more pairs than estimated":
        monkeypatch.setattr(module.Coverage, "_num_pairs", lambda self: 0)
    rng = np.random.default_rng(2)
    rows = normalized(rng.standard_normal((301, 4), dtype=np.float32))
    labeled = normalized(rng.standard_normal((num_labeled, 4), dtype=np.float32))
    weights = rng.random(301, dtype=np.float32)
    chosen, gains = max_herding(rows, 80, sigma=sigma, labeled=labeled, weights=weights)
    check_greedy(rows, chosen, gains, sigma=sigma, labeled=labeled, weights=weights)


@pytest.mark.parametrize("sigma", [1.0, 0.5])
@pytest.mark.parametrize("num_labeled", [0, 7])
def test_the_rows_are_those_of_scikit_activeml(sigma: float, num_labeled: int) -> None:
    """Another implementation chooses the same rows in the same order, with labels and without."""
    # Later on, two rows that cover only each other have equal gains.
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 6), dtype=np.float32)
    labels = np.full(200, np.nan)
    labels[:num_labeled] = 0
    theirs = skactiveml.pool.MaxHerding(metric_dict={"gamma": 1 / sigma**2}, random_state=0).query(
        rows.astype(np.float64), labels, batch_size=25
    )
    unit = normalized(rows)
    ours, _ = max_herding(unit[num_labeled:], 25, sigma=sigma, labeled=unit[:num_labeled])
    assert (ours + num_labeled).tolist() == theirs.tolist()


@given(
    points=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    sigma=st.sampled_from([0.01, 0.5, 5.0]),
    data=st.data(),
)
@settings(max_examples=50)
def test_repeated_rows_and_rows_of_zeros(
    points: list[tuple[int, int]], sigma: float, data: st.DataObject
) -> None:
    """Every row is chosen at most once, in greedy order, where many rows are equal."""
    rows = normalized(np.array(points, np.float32))
    budget = data.draw(st.integers(0, len(rows)))
    chosen, gains = max_herding(rows, budget, sigma=sigma)
    assert chosen.size == budget
    check_greedy(rows, chosen, gains, sigma=sigma)


def test_uncertain_candidates_are_covered_first() -> None:
    """Among two equal groups, the one with uncertain predictions is chosen from."""
    values = np.concatenate([np.full(10, 4.0), np.full(10, 0.1)])
    strategy = MaxHerding(margin)
    for seed in range(3):
        assert select(strategy, Pool(20), FakeLearner(values), 1, seed).indices[0] >= 10


def test_the_radius_is_the_smallest_distance_between_different_rows() -> None:
    """Equal rows do not count, and the result stays between the smallest width and 1."""
    rows = normalized(np.array([[1, 0], [1, 0], [0, 1], [1, 1]], np.float32))
    expected = float(np.linalg.norm(rows[0].astype(float) - rows[3]))
    assert smallest_distance(rows) == pytest.approx(expected)
    assert smallest_distance(rows[:2]) == 1.0
    assert smallest_distance(rows[:0]) == 1.0
    near = normalized(np.array([[1, 0], [1, 1e-4]], np.float32))
    assert smallest_distance(near) == 0.01


def test_wrong_settings_are_refused() -> None:
    """Widths that float32 cannot resolve, no function, and negative weights raise one line."""
    for sigma in (0.0, 0.001, float("nan"), True):
        with pytest.raises(InvalidSetting, match=r"sigma must be a number of at least 0\.01"):
            MaxHerding(sigma=sigma)
    with pytest.raises(InvalidSetting, match="acquisition must be a function or null"):
        MaxHerding("margin")  # type: ignore[arg-type]
    negative = MaxHerding(lambda prediction: -prediction.log_probs.exp()[:, 0])
    with pytest.raises(InvalidSetting, match=r"scores of at least 0, sample \d has -0\.5"):
        select(negative, Pool(4), FakeLearner(np.zeros(4)), 1)
