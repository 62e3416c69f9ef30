from __future__ import annotations

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from al_core import Pool
from al_core.errors import InvalidSetting


@st.composite
def histories(draw: st.DrawFn) -> tuple[int, list[int], list[list[int]]]:
    """A pool's size, its exclusions, and batches to label, none of them twice."""
    n = draw(st.integers(0, 25))
    order = draw(st.permutations(range(n)))
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=5)))
    parts = [list(part) for part in np.split(np.asarray(order, dtype=int), cuts)]
    return n, [int(i) for i in parts[0]], [[int(i) for i in p] for p in parts[1:-1]]


@given(history=histories())
def test_pool_agrees_with_plain_lists(history: tuple[int, list[int], list[list[int]]]) -> None:
    """Labeled keeps the order of labeling, unlabeled ascends, and the parts make the whole."""
    n, excluded, batches = history
    pool = Pool(n, excluded=excluded)
    assert pool.cycle == -1
    seen: list[int] = []
    for cycle, batch in enumerate(batches):
        pool.label(batch)
        seen += batch
        assert pool.cycle == cycle
        assert pool.labeled.tolist() == seen
        assert pool.num_labeled == len(seen)
        assert pool.unlabeled.tolist() == [i for i in range(n) if i not in seen + excluded]
    assert pool.excluded.tolist() == sorted(excluded)
    assert pool.labeled_since().tolist() == [c for c, batch in enumerate(batches) for _ in batch]
    assert pool.labeled.dtype == pool.unlabeled.dtype == pool.excluded.dtype == np.int64


@given(history=histories())
def test_state_survives_json(history: tuple[int, list[int], list[list[int]]]) -> None:
    """A pool rebuilt from its state, through JSON, equals it and goes on like it."""
    n, excluded, batches = history
    pool = Pool(n, excluded=excluded)
    for batch in batches:
        pool.label(batch)
    again = Pool.from_state_dict(json.loads(json.dumps(pool.state_dict())))
    assert again.state_dict() == pool.state_dict()
    assert again.cycle == pool.cycle
    np.testing.assert_array_equal(again.labeled, pool.labeled)
    np.testing.assert_array_equal(again.unlabeled, pool.unlabeled)
    np.testing.assert_array_equal(again.labeled_since(), pool.labeled_since())


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([4, 5, 4], "repeat"),
        ([4, 10], "index 10 lies outside the 10 samples"),
        ([-1], "index -1 lies outside the 10 samples"),
        ([4, 1], "sample 1 is labeled already"),
        ([4, 9], "sample 9 is excluded"),
        ([4.0, 5.0], "whole numbers"),
        ([True, False], "whole numbers"),
        ([[4], [5]], "whole numbers"),
        (4, "whole numbers"),
    ],
)
def test_wrong_indices_change_nothing(indices: Any, text: str) -> None:
    """A wrong index raises ValueError that says which and why; none of the others is labeled."""
    pool = Pool(10, excluded=[9])
    pool.label([1, 0])
    before = pool.state_dict()
    with pytest.raises(ValueError, match=text):
        pool.label(indices)
    assert pool.state_dict() == before
    assert 4 in pool.unlabeled


def test_arrays_are_not_shared() -> None:
    """Changing an array given to the pool, or got from it, changes nothing in the pool."""
    pool = Pool(6)
    given_in = np.array([3, 1])
    pool.label(given_in)
    given_in[:] = 5
    pool.labeled[:] = 5
    pool.unlabeled[:] = 5
    assert pool.labeled.tolist() == [3, 1]
    assert pool.unlabeled.tolist() == [0, 2, 4, 5]


@pytest.mark.parametrize(
    "state",
    [
        {"num_samples": 3, "excluded": [0], "labeled": [[0]]},
        {"num_samples": 3, "excluded": [], "labeled": [[0], [0]]},
        {"num_samples": 3, "excluded": [], "labeled": [[3]]},
        {"num_samples": 3, "excluded": [7], "labeled": []},
    ],
)
def test_contradictory_state_is_refused(state: dict[str, Any]) -> None:
    """A state in which a sample is two things, or lies outside, does not become a pool."""
    with pytest.raises(ValueError, match=r"sample 0 is|lies outside"):
        Pool.from_state_dict(state)


def test_negative_size_is_refused() -> None:
    """A pool of fewer than no samples raises InvalidSetting."""
    with pytest.raises(InvalidSetting, match="-1"):
        Pool(-1)


def test_labeling_does_not_touch_the_whole_pool() -> None:
    """Labeling three of ten million samples works in memory for three: O(len(indices))."""
    pool = Pool(10_000_000)
    pool.label([1, 2, 3])
    tracemalloc.start()
    try:
        pool.label([4, 5, 9_999_999])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000  # one byte a sample would be 10,000,000


def test_finding_the_unlabeled_takes_no_python_object_a_sample() -> None:
    """Mistake 10: they are found by array arithmetic, not by `not in` a list, in O(N k)."""
    pool = Pool(20_000)
    pool.label(range(0, 20_000, 10))
    tracemalloc.start()
    try:
        unlabeled = pool.unlabeled
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert unlabeled.size == 18_000
    assert peak < 20 * 20_000  # an int and its place in a list are 36 bytes
