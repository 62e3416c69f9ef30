from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import al_core.strategies.blocks as blocks_module
import al_core.strategies.probcover as module
from al_core import Pool, ProbCover, probcover
from al_core.errors import InvalidSetting
from al_core.strategies.probcover import radius
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


def plain(
    rows: np.ndarray, budget: int, delta: float, labeled: np.ndarray | None
) -> tuple[list[int], list[float]]:
    """Run greedy coverage on the whole matrix of distances in float64."""
    rows = rows.astype(np.float64)
    covers = np.linalg.norm(rows[:, None] - rows[None], axis=2) <= delta
    uncovered = np.ones(len(rows), bool)
    if labeled is not None and len(labeled):
        away = np.linalg.norm(rows[:, None] - labeled[None].astype(np.float64), axis=2)
        uncovered = (away > delta).all(1)
    picks: list[int] = []
    gains: list[float] = []
    for _ in range(budget):
        gain = (covers & uncovered).sum(1)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(float(gain.max()))
        uncovered &= ~covers[picks[-1]]
    return picks, gains


@pytest.mark.parametrize("rows_of_a_block", [8, 64, 4096])
@pytest.mark.parametrize("num_labeled", [0, 6])
def test_the_rows_are_those_of_brute_force(
    rows_of_a_block: int, num_labeled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picks and gains equal those of the full matrix, for blocks of any size."""
    monkeypatch.setattr(blocks_module.blocks, "__defaults__", (rows_of_a_block,))
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((301, 4), dtype=np.float32)
    labeled = rng.standard_normal((num_labeled, 4), dtype=np.float32)
    chosen, gains = probcover(rows, 60, delta=1.3, labeled=labeled)
    expected, expected_gains = plain(rows, 60, 1.3, labeled)
    assert chosen.tolist() == expected
    assert gains.tolist() == expected_gains


@given(
    points=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40),
    delta=st.sampled_from([0.5, 1.0, 2.0, 9.0]),
    data=st.data(),
)
@settings(max_examples=50)
def test_ties_repeats_and_the_very_radius(
    points: list[tuple[int, int]], delta: float, data: st.DataObject
) -> None:
    """On a grid, where distances equal the radius, picks equal brute force."""
    rows = np.array(points, np.float32)
    budget = data.draw(st.integers(0, len(rows)))
    chosen, gains = probcover(rows, budget, delta=delta)
    expected, expected_gains = plain(rows, budget, delta, None)
    assert chosen.tolist() == expected
    assert [max(gain, 0) for gain in gains] == [max(gain, 0) for gain in expected_gains]
    assert np.unique(chosen).size == budget


def test_the_radius_is_the_largest_pure_enough() -> None:
    """A share `purity` of the balls is pure at the radius, and fewer are just above it."""
    rng = np.random.default_rng(0)
    rows = np.concatenate(
        [rng.normal(0, 1, (60, 2)), rng.normal(6, 1, (50, 2))]
    ).astype(np.float32)  # fmt: skip
    from al_core.strategies.clustering import k_means

    clusters = k_means(rows, 2, rng=np.random.default_rng(7))
    away = np.linalg.norm(rows[:, None].astype(np.float64) - rows[None], axis=2)
    foreign = clusters[:, None] != clusters[None]

    def purity(delta: float) -> float:
        return float(1 - ((away <= delta) & foreign).any(1).mean())

    found = radius(rows, 2, purity=0.9, rng=np.random.default_rng(7))
    assert purity(found) >= 0.9 > purity(found * 1.05)


def test_too_many_candidates_are_refused_and_told_how_many_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A graph beyond the memory limit raises one line before inference."""
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(
        InvalidSetting, match=r"29 candidates are too many, at most 28 .*cycle.candidates"
    ):
        probcover(np.zeros((29, 2), np.float32), 1, delta=1.0)
    learner = FakeLearner(np.zeros(29))
    with pytest.raises(InvalidSetting, match="29 candidates are too many"):
        select(ProbCover(), Pool(29), learner, 1)
    assert learner.calls == []  # before the model is asked about all of them


@pytest.mark.parametrize(
    ("settings_", "says"),
    [({"delta": 0.0}, "delta must lie in"), ({"delta": 2.1}, "delta"), ({"purity": 0.0}, "purity")],
)
def test_numbers_out_of_range_are_refused(settings_: dict[str, float], says: str) -> None:
    """A radius or purity out of range raises when the strategy is built."""
    with pytest.raises(InvalidSetting, match=says):
        ProbCover(**settings_)
