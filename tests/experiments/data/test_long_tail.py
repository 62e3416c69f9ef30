"""Long-tailed pools: sizes by the published rule, and nothing else changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.data.classification import digits, image_folder
from experiments.data.long_tail import long_tailed
from tests.small_runs import write_image_folder


def test_sizes_fall_exponentially() -> None:
    """CIFAR-10 at 100 to 1: the sizes that follow from 5000 * 100 ** (-c / 9)."""
    targets = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 5000))
    kept = long_tailed(targets, 100)
    sizes = np.bincount(targets[kept])
    assert sizes.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert (np.diff(kept) > 0).all()


def test_the_first_of_each_class_are_kept() -> None:
    """Nothing is random, and a pool with a shorter tail is part of one with a longer tail."""
    targets = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    assert long_tailed(targets, 2).tolist() == [0, 1, 2, 3, 4, 6]
    assert long_tailed(targets, 4).tolist() == [0, 1, 2, 4, 6]
    assert long_tailed(targets, 1).tolist() == list(range(8))


@pytest.mark.parametrize(("imbalance", "says"), [(0.5, "data.imbalance"), (9, "at most that")])
def test_what_leaves_a_class_empty_is_refused(imbalance: float, says: str) -> None:
    """One line with the value and what is allowed."""
    with pytest.raises(InvalidSetting, match=says):
        long_tailed(np.array([0, 0, 0, 1, 1, 1]), imbalance)


def test_the_test_set_stays_as_it_is(tmp_path: Path) -> None:
    """Only the pool is thinned out, its names with it."""
    whole, tailed = digits(), digits(imbalance=10)
    assert np.bincount(tailed.train_targets).tolist() == [
        400, 309, 239, 185, 143, 111, 86, 66, 51, 40,
    ]  # fmt: skip
    assert set(tailed.train.names) < set(whole.train.names)
    assert np.array_equal(tailed.test_targets, whole.test_targets)
    folder = image_folder(write_image_folder(tmp_path), imbalance=5)
    assert np.bincount(folder.train_targets).tolist() == [20, 8, 4]
    assert len(folder.train) == len(folder.train.names) == 32
    assert len(folder.test) == 30
    of_name = [folder.class_names.index(name.split("/")[0]) for name in folder.train.names]
    assert of_name == folder.train_targets.tolist()
