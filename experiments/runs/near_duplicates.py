"""Near-duplicates of a run: with `data.near_duplicates=drop` one image of each group is offered.

Images that are labeled, or asked for, stay in use whatever their groups, so people who annotate may
turn the setting on between two batches.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from al_core import IndexArray
from al_core.files import atomic_write
from experiments.data.duplicate_groups import COLUMNS, TABLE, Groups
from experiments.engine.engine import Engine
from experiments.learning.near_duplicates import of_pool
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.units.unit import Unit, image_of

logger = logging.getLogger(__name__)


def groups_of(config: RunConfig, task: Task, engine: Engine) -> Groups | None:
    """Return the groups of the images of the pool; None where near-duplicates are kept."""
    if not config.drops_near_duplicates:
        return None
    return of_pool(task, engine, out=Path(config.values["out"]))


def redundant(groups: Groups | None, unit: Unit, held: IndexArray) -> IndexArray:
    """Return the samples whose images others stand for.

    Args:
        groups: Of images; None for none.
        unit: Samples and their images.
        held: Samples that are in use.
    """
    if groups is None:
        return np.empty(0, np.int64)
    images = groups.redundant(np.unique(image_of(unit, held)))
    return images if unit.groups is None else np.flatnonzero(np.isin(unit.groups, images))


def list_redundant(
    folder: Path, groups: Groups | None, names: Sequence[str], held: IndexArray
) -> None:
    """Write the table of the images that are not offered, and log their number.

    Its columns are `name`; `group`, the name of the image that stands for it; and `difference` from
    the first image of the group, from 0 for a copy to 1 for what is just permitted. Without such
    images the table of an earlier start is removed.

    Args:
        folder: The run folder.
        groups: Of images; None where near-duplicates are kept.
        names: Of the images.
        held: Images that are in use.
    """
    images = np.empty(0, np.int64) if groups is None else groups.redundant(held)
    if groups is None or not images.size:
        (folder / TABLE).unlink(missing_ok=True)
        return
    instead = groups.representatives(held)
    with atomic_write(folder / TABLE) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(
            (names[image], names[instead[image]], f"{groups.difference[image]:.4f}")
            for image in images.tolist()
        )
    logger.info(
        "%d of %d images not offered, near-duplicates of %s: %s",
        images.size, len(names),
        counted(np.unique(instead[images]).size, "other image"), folder / TABLE,
    )  # fmt: skip
