"""The initial set: drawn, annotated, labeled."""

from __future__ import annotations

import numpy as np
import pytest

from al_core import Pool, draw_initial_set
from al_core.errors import InvalidSetting
from tests.al_core.fakes import FakeOracle


def test_initial_set_is_annotated_then_labeled() -> None:
    """The initial set is drawn from the unlabeled, its labels are asked for, and cycle 0 opens."""
    pool, oracle = Pool(30, excluded=range(10)), FakeOracle()
    draw_initial_set(pool, oracle, size=12, seed=4)
    assert oracle.calls == [("annotate", pool.labeled.tolist())]
    assert np.unique(pool.labeled).size == 12
    assert pool.labeled.min() >= 10
    assert pool.cycle == 0


@pytest.mark.parametrize("size", [0, -1, 21])
def test_impossible_initial_sets_are_refused(size: int) -> None:
    """A size under one or above the pool raises, gives both numbers, and labels nothing."""
    pool, oracle = Pool(30, excluded=range(10)), FakeOracle()
    with pytest.raises(InvalidSetting, match=f"initial set of {size} .* 20 unlabeled"):
        draw_initial_set(pool, oracle, size=size, seed=0)
    assert (pool.num_labeled, oracle.calls) == (0, [])
