"""Create the pool of a run at its first start, and restore it at later ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from al_core import IndexArray, Pool, draw_initial_set, stream, typiclust
from al_core.errors import InvalidSetting
from experiments.data.duplicate_groups import Groups
from experiments.data.targets import GroundTruthOracle
from experiments.learning.learner import TaskLearner
from experiments.learning.pretrained_features import pool_features
from experiments.runs.identity import RunImages
from experiments.runs.near_duplicates import redundant
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.units.unit import Unit, image_of

logger = logging.getLogger(__name__)


def first_pool(
    config: RunConfig,
    learner: TaskLearner,
    oracle: GroundTruthOracle,
    *,
    groups: Groups | None = None,
) -> Pool:
    """Draw the initial set, reveal its labels and return the pool.

    Args:
        config: Of the run.
        learner: With the samples and their images.
        oracle: Reveals labels.
        groups: Near-duplicates, of each group of which one image is offered; None to offer all.

    Raises:
        InvalidSetting: The initial set and the queries need more labels than the pool has.
    """
    unit, initial_size = learner.unit, config.recipe.cycle.initial_size
    left_out = redundant(groups, unit, np.empty(0, np.int64))
    pool = Pool(len(unit), excluded={*unit.unreadable, *left_out.tolist()})
    chosen = None
    if config.recipe.cycle.initial == "typiclust":
        chosen = _typical_images(config, learner, pool)
    draw_initial_set(
        pool, oracle, size=initial_size, seed=config.seed, groups=unit.groups, chosen=chosen
    )
    costs = np.ones(len(unit), np.int64) if unit.costs is None else unit.costs
    offered, spent = (int(costs[part].sum()) for part in (pool.unlabeled, pool.labeled))
    _check_enough(config, unit, spent, spent + offered)
    return pool


def _typical_images(config: RunConfig, learner: TaskLearner, pool: Pool) -> IndexArray:
    """Choose the initial set by TypiClust, on embeddings of a pretrained network.

    Returns:
        Positions of images, the same in every process.

    Raises:
        InvalidSetting: The weights are not installed, or there are too few images.
    """
    images = np.unique(image_of(learner.unit, pool.unlabeled))
    features = pool_features(
        learner.task, learner.engine, out=Path(config.values["out"]), key="cycle.initial=typiclust"
    )
    readable = images[~np.isin(images, list(features.features.unreadable))]
    logger.info(
        "initial set by TypiClust, on features of %s by %s",
        counted(readable.size, "image"), features.name,
    )  # fmt: skip
    rows = features.rows(readable).numpy()
    size = min(config.recipe.cycle.initial_size, readable.size)
    chosen, _ = typiclust(rows, size, rng=stream(config.seed, 0, "initial set"))
    found: IndexArray | None = readable[chosen] if learner.engine.is_main else None
    shared = learner.engine.gather(found)[0]  # sums of several threads may differ by a rounding
    assert shared is not None, "the first process chose nothing"
    return shared


def restored_pool(
    state: dict[str, Any],
    task: Task,
    unit: Unit,
    images: RunImages,
    oracle: GroundTruthOracle,
    *,
    groups: Groups | None = None,
) -> Pool:
    """Restore the pool of an earlier start and reveal its labels.

    Images that were added since then are unlabeled, images that cannot be used any more are left
    out, and images that can be used again are offered again. Near-duplicates of labeled images are
    not, if there are `groups`.

    Raises:
        InvalidSetting: The positions of then have no meaning now.
    """
    before = Pool.from_state_dict(state)
    _check_positions(before, task, unit, images)
    left_out = set(unit.unreadable)
    lost = [index for index in before.labeled.tolist() if index in left_out]
    if lost:
        names = [unit.name(index) for index in lost]
        logger.warning(
            "%s no longer trained on, the first is %s: %s",
            counted(len(lost), "labeled image"), names[0], unit.unreadable[lost[0]],
        )  # fmt: skip
    labeled = np.array([i for i in before.labeled.tolist() if i not in left_out], np.int64)
    pool = Pool(len(unit), excluded={*left_out, *redundant(groups, unit, labeled).tolist()})
    for batch in state["labeled"]:
        pool.label([index for index in batch if index not in left_out])
    oracle.annotate(pool.labeled)
    return pool


def check_classes(before: Sequence[str] | None, task: Task) -> None:
    """Refuse other classes than those that a run began with.

    Args:
        before: Of an earlier start; None if it has not recorded them.
        task: Of this start.

    Raises:
        InvalidSetting: There are others.
    """
    now = list(task.class_names)
    if before is None or list(before) == now:
        return
    new, gone = sorted(set(now) - set(before)), sorted(set(before) - set(now))
    what = [
        f"{', '.join(names[:3])} {word}" for names, word in ((new, "new"), (gone, "gone")) if names
    ]
    raise InvalidSetting(
        f"the classes have changed since this run began ({'; '.join(what) or 'in another order'}): "
        "put the images back as they were, or start anew with out=..."
    )


def _check_positions(before: Pool, task: Task, unit: Unit, images: RunImages) -> None:
    """Refuse a pool whose positions cannot be what they were.

    Raises:
        InvalidSetting: It is one.
    """
    known = images.recorded and before.num_samples <= len(unit)
    if not known and before.num_samples != len(unit):
        raise InvalidSetting(
            f"the images have changed since this run began ({before.num_samples} then, "
            f"{before.excluded.size} of them unreadable; {len(unit)} and "
            f"{len(unit.unreadable)} now): put them back, or start anew with out=..."
        )
    if unit.groups is None:
        return
    # Regions are numbered over all images that can be read, and cut by their content.
    for positions, what in (
        (images.lost, "can no longer be used"),
        (images.came_back, "can be used again"),
        (images.changed, "has another content"),
    ):
        if positions:
            raise InvalidSetting(
                f"{task.train.names[positions[0]]} {what}, and the regions of a run cannot be "
                "told apart then: put the images back as they were, or start anew with out=..."
            )


def check_added_cycles(config: RunConfig, unit: Unit, pool: Pool) -> None:
    """Refuse more cycles than the rest of the pool is enough for.

    Raises:
        InvalidSetting: The queries that are left ask for more than the pool has.
    """
    costs = np.ones(len(unit), np.int64) if unit.costs is None else unit.costs
    left = int(costs[pool.unlabeled].sum())
    queries = config.cycles - 1 - pool.cycle
    needed = queries * unit.budget(config.recipe.cycle.query_size)
    if needed > left:
        raise InvalidSetting(
            f"cycles={config.cycles} ask for {needed} more {unit.counted_in}, but {left} are left: "
            "lower it, or cycle.query_size"
        )


def check_sizes(config: RunConfig, task: Task, unit: Unit) -> None:
    """Check that the pool has enough images for the initial set and all queries.

    Raises:
        InvalidSetting: It has too few; the text gives both numbers.
    """
    initial_size = config.recipe.cycle.initial_size
    num_images = len(task.train) - len(task.train.unreadable)
    if initial_size > num_images:
        raise InvalidSetting(
            f"cycle.initial_size={initial_size}, but the pool has "
            f"{counted(num_images, 'image')}: lower it"
        )
    _check_enough(config, unit, *unit.amounts(initial_size))


def _check_enough(config: RunConfig, unit: Unit, initial: int, pool: int) -> None:
    cycle = config.recipe.cycle
    needed = initial + (config.cycles - 1) * unit.budget(cycle.query_size)
    if needed > pool:
        raise InvalidSetting(
            f"cycles={config.cycles} with cycle.initial_size={cycle.initial_size} and "
            f"cycle.query_size={cycle.query_size} label {needed} {unit.counted_in}, but the pool "
            f"has {pool}: lower one of them"
        )
