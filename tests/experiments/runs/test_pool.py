"""experiments.runs.pool: the first pool, the pool of an earlier start, and sizes that fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from al_core import Pool
from al_core.errors import InvalidSetting, LabelHidden
from experiments.data.duplicate_groups import Groups
from experiments.data.targets import GroundTruthOracle
from experiments.runs.identity import RunImages
from experiments.runs.pool import check_classes, check_sizes, first_pool, restored_pool
from tests.experiments.runs.fakes import Config, Learner, Task

UNREADABLE = {3: "cut short", 7: "empty"}


def first(task: Task, groups: Groups | None = None, **settings: Any) -> Pool:
    """Draw the first pool of a task."""
    learner: Any = Learner(task)
    config: Any = Config(Path("run"), **settings)
    return first_pool(config, learner, GroundTruthOracle(task.targets), groups=groups)


def restored(
    task: Task,
    state: dict[str, Any],
    images: RunImages | None = None,
    *,
    regions: bool = False,
    groups: Groups | None = None,
) -> Pool:
    """Restore a pool; without `images` the run has no record of them."""
    unit: Any = Learner(task).unit
    if regions:
        unit.groups = np.arange(len(unit))
    known: Any = task
    oracle = GroundTruthOracle(task.targets)
    return restored_pool(state, known, unit, images or RunImages({}), oracle, groups=groups)


def test_the_first_pool_has_the_initial_set_and_its_labels() -> None:
    """So many readable samples are labeled, and no label beside theirs can be read."""
    task = Task(10, UNREADABLE)
    pool = first(task, initial_size=3, query_size=1)
    assert (pool.cycle, pool.num_labeled, pool.excluded.tolist()) == (0, 3, [3, 7])
    assert task.targets.read(pool.labeled).tolist() == pool.labeled.tolist()
    for index in pool.unlabeled:
        with pytest.raises(LabelHidden):
            task.targets.read(np.array([index]))


def test_one_image_of_each_group_is_offered() -> None:
    """The first, until another one is labeled; labeled images stay, whatever their groups."""
    groups = Groups(np.array([0, 0, 0, 3, 3, 5, 6, 7]), np.zeros(8, np.float32))
    pool = first(Task(8), groups, initial_size=2, query_size=1)
    assert pool.excluded.tolist() == [1, 2, 4]
    with pytest.raises(InvalidSetting, match="label 6 images, but the pool has 5"):
        first(Task(8), groups)
    state = {"num_samples": 8, "excluded": [], "labeled": [[2, 5], [1]]}
    kept = restored(Task(8), state)
    assert kept.excluded.size == 0
    dropped = restored(Task(8), state, groups=groups)
    assert dropped.labeled.tolist() == [2, 5, 1]
    assert dropped.unlabeled.tolist() == [3, 6, 7]


def test_the_initial_set_depends_on_the_seed_alone() -> None:
    """The same seed draws the same samples; seeds differ."""
    drawn = [first(Task(99)).labeled.tolist() for _ in range(2)]
    assert drawn[0] == drawn[1]
    others = set()
    for seed in range(5):
        config: Any = Config(Path("run"))
        config.seed = seed
        learner: Any = Learner(task := Task(99))
        pool = first_pool(config, learner, GroundTruthOracle(task.targets))
        others.add(tuple(pool.labeled.tolist()))
    assert len(others) > 1


@pytest.mark.parametrize(
    ("count", "settings", "says"),
    [
        (10, {"initial_size": 11}, "cycle.initial_size=11, but the pool has 10 images"),
        (1, {"initial_size": 2}, "cycle.initial_size=2, but the pool has 1 image: lower it"),
        (5, {}, "label 6 images, but the pool has 5: lower one of them"),
        (10, {"query_size": 5}, "label 12 images, but the pool has 10"),
        (10, {"cycles": 6}, "label 12 images, but the pool has 10"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(count: int, settings: Any, says: str) -> None:
    """The text says how many labels the cycles need and how many there are."""
    task: Any = Task(count)
    config: Any = Config(Path("run"), **settings)
    with pytest.raises(InvalidSetting, match=says):
        check_sizes(config, task, Learner(task).unit)


def test_unreadable_images_do_not_count() -> None:
    """Sizes that just fit the readable images are accepted, and one more is not."""
    task: Any = Task(10, UNREADABLE)
    unit = Learner(task).unit
    exact: Any = Config(Path("run"), initial_size=4, query_size=2)
    check_sizes(exact, task, unit)
    assert first(task, initial_size=4, query_size=2).num_labeled == 4
    more: Any = Config(Path("run"), initial_size=5, query_size=2)
    with pytest.raises(InvalidSetting, match="the pool has 8"):
        check_sizes(more, task, unit)


def test_a_restored_pool_is_the_one_that_was_kept() -> None:
    """Batches, exclusions and cycle come back, and the labels can be read."""
    pool = first(Task(10, UNREADABLE), initial_size=3, query_size=1)
    pool.label(pool.unlabeled[:2])
    task = Task(10, UNREADABLE)
    again = restored(task, pool.state_dict())
    assert again.state_dict() == pool.state_dict()
    assert task.targets.read(again.labeled).tolist() == pool.labeled.tolist()
    assert not task.targets.is_revealed(int(again.unlabeled[0]))


@pytest.mark.parametrize("count", [9, 11])
def test_another_number_of_images_is_refused_without_a_record(count: int) -> None:
    """Nobody knows which is which; no label is revealed."""
    state = first(Task(10, UNREADABLE), initial_size=3, query_size=1).state_dict()
    task = Task(count, UNREADABLE)
    says = f"10 then, 2 of them unreadable; {count} and 2 now"
    with pytest.raises(InvalidSetting, match=says):
        restored(task, state)
    assert not any(task.targets.is_revealed(index) for index in range(count))


def test_a_shorter_set_than_the_record_promises_is_refused() -> None:
    """A record keeps the place of what is gone, so fewer images cannot be of this run."""
    state = first(Task(10), initial_size=3, query_size=1).state_dict()
    with pytest.raises(InvalidSetting, match="the images have changed"):
        restored(Task(9), state, RunImages({}, recorded=True))


def test_added_images_join_the_pool() -> None:
    """With a record there may be more images than before, and the first ones are the same."""
    pool = first(Task(10), initial_size=3, query_size=1)
    again = restored(Task(12), pool.state_dict(), RunImages({}, recorded=True))
    assert again.labeled.tolist() == pool.labeled.tolist()
    assert again.unlabeled.tolist() == [*pool.unlabeled.tolist(), 10, 11]


def test_images_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    """Readable images are offered; others are neither offered nor trained on."""
    pool = first(Task(10, UNREADABLE), initial_size=3, query_size=1)
    gone = int(pool.labeled[1])
    task = Task(10, {7: "empty", gone: "it is gone"})
    again = restored(task, pool.state_dict(), RunImages({}, recorded=True))
    kept = [index for index in pool.labeled.tolist() if index != gone]
    assert again.labeled.tolist() == kept
    assert again.cycle == pool.cycle
    assert again.excluded.tolist() == sorted((7, gone))
    assert 3 in again.unlabeled
    assert (
        f"1 labeled image no longer trained on, the first is {gone}.png: it is gone" in caplog.text
    )


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (RunImages({}, recorded=True, lost=(4,)), "4.png can no longer be used"),
        (RunImages({}, recorded=True, came_back=(5,)), "5.png can be used again"),
        (RunImages({}, recorded=True, changed=(6,)), "6.png has another content"),
    ],
)
def test_regions_are_refused_over_other_images(images: RunImages, says: str) -> None:
    """Regions are numbered over all images, so that none may come or go."""
    state = first(Task(10), initial_size=3, query_size=1).state_dict()
    with pytest.raises(InvalidSetting, match=says):
        restored(Task(10), state, images, regions=True)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (["a", "b", "c"], "c gone"),
        (["a"], "b new"),
        (["a", "c"], "b new; c gone"),
        (["b", "a"], "in another order"),
    ],
)
def test_other_classes_are_refused(before: list[str], says: str) -> None:
    """A run goes on with the classes that it began with; older runs have not recorded them."""
    task: Any = Task()
    with pytest.raises(InvalidSetting, match=says):
        check_classes(before, task)
    check_classes(["a", "b"], task)
    check_classes(None, task)
