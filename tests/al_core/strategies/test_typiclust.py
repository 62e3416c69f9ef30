from __future__ import annotations

import numpy as np
import pytest

from al_core import Pool, TypiClust, typiclust
from al_core.errors import InvalidSetting
from al_core.strategies.blocks import normalized
from tests.al_core.fakes import FakeLearner
from tests.al_core.strategies.listed import select

RNG = np.random.default_rng(0)


def rays(sizes: list[int], *, spread: float = 0.02, seed: int = 0) -> np.ndarray:
    """Return unit rows around orthogonal directions, `sizes` of each, in order."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.eye(8, dtype=np.float32)[: len(sizes)], sizes, axis=0)
    return normalized(rows + rng.normal(0, spread, rows.shape).astype(np.float32))


def by_hand(rows: np.ndarray, members: np.ndarray, neighbors: int) -> np.ndarray:
    """Compute typicality in float64: one over the mean distance to the nearest others."""
    members = rows[members].astype(np.float64)
    away = np.linalg.norm(members[:, None] - members[None], axis=2)
    nearest = np.sort(away, axis=1)[:, 1 : 1 + min(neighbors, len(members) // 2)]
    return 1 / nearest.mean(1)


def test_each_cluster_gives_its_most_typical_row_the_largest_first() -> None:
    """The most typical row of the largest cluster without labels comes first."""
    sizes = [7, 12, 30, 9]
    rows = rays(sizes)
    starts = np.cumsum([0, *sizes])
    chosen, typicalities = typiclust(rows, 4, rng=np.random.default_rng(1), neighbors=5)
    for place, k in enumerate((2, 1, 3, 0)):
        members = np.arange(starts[k], starts[k + 1])
        expected = by_hand(rows, members, 5)
        assert chosen[place] == members[expected.argmax()]
        assert typicalities[place] == pytest.approx(expected.max(), rel=1e-5)


def test_clusters_with_labels_wait() -> None:
    """Clusters without labels come first, and then those with the fewest."""
    sizes = [30, 20, 10]
    rows = rays(sizes)
    labeled = np.array([0, 1, 2, 30])  # three of the largest cluster, one of the next
    chosen, _ = typiclust(rows, 4, rng=np.random.default_rng(1), labeled=labeled, max_clusters=3)
    cluster = np.repeat([0, 1, 2], sizes)[chosen]
    assert cluster.tolist() == [2, 1, 2, 1]
    assert not set(chosen.tolist()) & set(labeled.tolist())


def test_tiny_clusters_come_last() -> None:
    """Clusters of fewer than five rows come last."""
    rows = rays([3, 6, 6])
    chosen, _ = typiclust(rows, 15, rng=np.random.default_rng(0), max_clusters=3)
    assert set(chosen[-3:].tolist()) == {0, 1, 2}
    assert sorted(chosen.tolist()) == list(range(15))


def test_close_rows_are_told_apart() -> None:
    """Typicality is accurate for rows that differ by 1e-4, where float32 products cancel."""
    rows = rays([40], spread=1e-4)
    chosen, typicalities = typiclust(rows, 1, rng=np.random.default_rng(0))
    expected = by_hand(rows, np.arange(40), 20)
    assert chosen[0] == expected.argmax()
    assert typicalities[0] == pytest.approx(expected.max(), rel=1e-3)


def test_a_mapped_file_gives_the_same(tmp_path) -> None:
    """Embeddings in a read-only memory-mapped file give the same rows as in memory."""
    rows = rays([30, 20, 25, 9])
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    one, two = (typiclust(each, 6, rng=np.random.default_rng(3)) for each in (rows, mapped))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


def test_embeddings_can_be_kept_in_a_folder(tmp_path) -> None:
    """With embeddings_folder the query is the same, and no file is left behind."""
    learner = FakeLearner(np.linspace(-3, 3, 40))
    queries = [
        select(TypiClust(embeddings_folder=folder), Pool(40), learner, 5)
        for folder in (None, tmp_path)
    ]
    np.testing.assert_array_equal(queries[0].indices, queries[1].indices)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused(tmp_path) -> None:
    """A folder that is not writeable raises and is named."""
    with pytest.raises(InvalidSetting, match=r"embeddings_folder=.*nowhere cannot be written"):
        select(
            TypiClust(embeddings_folder=tmp_path / "nowhere"), Pool(4), FakeLearner([0, 1, 2, 3]), 1
        )


def test_a_budget_above_the_rows_without_labels_is_refused() -> None:
    """Labeled rows do not count as candidates for the budget."""
    with pytest.raises(InvalidSetting, match="query of 3 samples cannot be met by 2 candidates"):
        typiclust(rays([4]), 3, rng=RNG, labeled=np.array([0, 1]))
