"""Create the pool of a run at its first start, and restore it at later ones."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from al_core import IndexArray, Pool, draw_initial_set, stream, typiclust
from al_core.errors import InvalidSetting
from experiments.data.targets import GroundTruthOracle
from experiments.learning.learner import TaskLearner
from experiments.models.embedding import pretrained_embedder
from experiments.runs.identity import RunImages
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.units.unit import Unit, image_of

logger = logging.getLogger(__name__)


def first_pool(config: RunConfig, learner: TaskLearner, oracle: GroundTruthOracle) -> Pool:
    """Draw the initial set, reveal its labels and return the pool.

    Raises:
        InvalidSetting: The initial set and the queries need more labels than the pool has.
    """
    unit, initial_size = learner.unit, config.recipe.cycle.initial_size
    pool = Pool(len(unit), excluded=unit.unreadable)
    learner.training.check_batch(initial_size)
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
    engine, unit = learner.engine, learner.unit
    images = np.unique(image_of(unit, pool.unlabeled))
    found: IndexArray | None = None
    if engine.is_main:
        embedder = pretrained_embedder(engine, key="cycle.initial=typiclust")
        logger.info(
            "initial set by TypiClust, on embeddings of %s of %s",
            counted(images.size, "image"), embedder.name,
        )  # fmt: skip
        rows, readable = embedder.samples(learner.task.train, images)
        size = min(config.recipe.cycle.initial_size, len(readable))
        chosen, _ = typiclust(rows, size, rng=stream(config.seed, 0, "initial set"))
        found = images[np.array(readable)[chosen]]
    shared = engine.gather(found)[0]
    assert shared is not None, "the first process chose nothing"
    return shared


def restored_pool(
    state: dict[str, Any], task: Task, unit: Unit, images: RunImages, oracle: GroundTruthOracle
) -> Pool:
    """Restore the pool of an earlier start and reveal its labels.

    Images that were added since then are unlabeled, images that cannot be used any more are left
    out, and images that can be used again are offered again.

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
    pool = Pool(len(unit), excluded=left_out)
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
