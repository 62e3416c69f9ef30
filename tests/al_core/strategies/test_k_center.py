from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import al_core.strategies.k_center as module
from al_core import KCenter, Pool, k_center_greedy
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select


def plain(rows: np.ndarray, budget: int, centers: np.ndarray | None = None) -> list[int]:
    """Run the loop of the paper in float64, with the whole matrix for every pick."""
    rows = rows.astype(np.float64)
    nearest = np.full(len(rows), np.inf)
    for center in [] if centers is None else centers.astype(np.float64):
        nearest = np.minimum(nearest, ((rows - center) ** 2).sum(1))
    picks: list[int] = []
    while len(picks) < budget:
        picks.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, ((rows - rows[picks[-1]]) ** 2).sum(1))
        nearest[picks] = -1
    return picks


@pytest.fixture(params=[3, 17, 2048])
def front(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Use a front that is renewed often, and one that holds all rows."""
    monkeypatch.setattr(module, "FRONT", request.param)
    if request.param < 2048:  # and bounds that are lowered by a few centers at a time
        monkeypatch.setattr(module, "FEWEST", 2)
        monkeypatch.setattr(module, "MOST", 7)
    return int(request.param)


def rows_of(kind: str, n: int = 400, d: int = 16) -> np.ndarray:
    """Return embeddings of one kind, (n, d) float32."""
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((n, d), dtype=np.float32)
    if kind == "clusters":
        rows = rows * 0.1 + np.repeat(rng.standard_normal((8, d), dtype=np.float32), n // 8, axis=0)
    elif kind == "after a ReLU":
        rows = np.maximum(rows + np.repeat(rng.standard_normal((8, d)), n // 8, axis=0), 0)
    elif kind == "heavy tails":
        rows *= np.exp(2 * rng.standard_normal((n, 1)))
    elif kind == "line":
        rows = rng.random((n, 1), dtype=np.float32) * np.ones((1, d), np.float32)
    elif kind == "far away":  # the products of float32 cancel to nothing here
        rows = rows * 1e-2 + 100
    elif kind == "copies":  # of each row a few, in any order: fewer different ones than picks
        rows = rows[rng.integers(50, size=n)]
    elif kind == "tiny":  # squares of float32 are 0
        rows *= np.float32(1e-25)
    elif kind == "huge":  # and infinite
        rows *= np.float32(1e25)
    return rows.astype(np.float32)


KINDS = ["cloud", "clusters", "after a ReLU", "heavy tails", "line", "far away", "copies", "tiny",
         "huge"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_centers", [0, 7])
@pytest.mark.usefixtures("front")
def test_the_rows_are_those_of_the_plain_loop(kind: str, num_centers: int) -> None:
    """Picks and their order equal brute force for data of any shape."""
    rows = rows_of(kind)
    centers = rows[:num_centers].copy()
    chosen, distances = k_center_greedy(rows, 60, centers=centers)
    expected = plain(rows, 60, centers if num_centers else None)
    assert chosen.tolist() == expected
    known = [*centers.astype(np.float64)]
    for row, distance in zip(chosen, distances, strict=True):
        if known:
            away = np.linalg.norm(rows[row].astype(np.float64) - known, axis=1).min()
            assert distance == pytest.approx(away, rel=1e-6, abs=0)
        known.append(rows[row].astype(np.float64))


@pytest.mark.parametrize("kind", ["cloud", "after a ReLU", "heavy tails", "copies"])
def test_many_rows_and_labels_agree_with_the_plain_loop(kind: str) -> None:
    """With the default sizes, the search renews its front several times and stays exact."""
    rows = rows_of(kind, 12_000, 24)
    chosen, _ = k_center_greedy(rows[200:], 300, centers=rows[:200])
    assert chosen.tolist() == plain(rows[200:], 300, rows[:200])


@given(
    points=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40),
    data=st.data(),
)
@settings(max_examples=60)
def test_ties_and_equal_rows_go_to_the_first(
    points: list[tuple[int, int]], data: st.DataObject
) -> None:
    """On a grid full of ties and copies, picks equal brute force and rows are chosen once."""
    rows = np.array(points, np.float32)
    budget = data.draw(st.integers(0, len(rows)))
    centers = rows[: data.draw(st.integers(0, len(rows)))]
    size = data.draw(st.sampled_from([1, 2, 5, 2048]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FRONT", size)
        chosen, distances = k_center_greedy(rows, budget, centers=centers)
    assert chosen.tolist() == plain(rows, budget, centers if len(centers) else None)
    assert (np.diff(distances) <= 1e-9).all()


def test_it_agrees_with_scikit_activeml() -> None:
    """The core-set strategy of scikit-activeml chooses the same samples."""
    pool = pytest.importorskip("skactiveml.pool")
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((200, 8), dtype=np.float32)
    labels = np.full(200, np.nan)
    labels[:5] = 0
    theirs = pool.CoreSet(missing_label=np.nan, random_state=0).query(rows, labels, batch_size=20)
    ours, _ = k_center_greedy(rows[5:], 20, centers=rows[:5])
    assert (ours + 5).tolist() == list(theirs)


def test_a_read_only_file_and_a_folder_give_the_same(tmp_path: Path) -> None:
    """Embeddings in a memory-mapped file give the same query."""
    rows = np.random.default_rng(0).standard_normal((300, 9), dtype=np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    np.testing.assert_array_equal(k_center_greedy(rows, 40)[0], k_center_greedy(mapped, 40)[0])
    (tmp_path / "spill").mkdir()
    learner = FakeLearner(np.linspace(-3, 3, 40))
    one, two = (
        select(KCenter(embeddings_folder=folder), Pool(40), learner, 9)
        for folder in (None, tmp_path / "spill")
    )
    np.testing.assert_array_equal(one.indices, two.indices)
    assert list((tmp_path / "spill").iterdir()) == []


def test_labeled_samples_are_the_first_centers() -> None:
    """Samples far from all labeled ones are chosen before their neighbors."""
    values = np.array([0.0, 0.1, 5.0, 5.1, -4.0])
    pool = Pool(5)
    pool.label([0, 2])
    query = select(KCenter(), pool, FakeLearner(values), 3)
    assert query.indices[0] == 4
    assert query.scores is not None
    assert (np.diff(query.scores) <= 0).all()
