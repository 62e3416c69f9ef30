"""Near-duplicates in a ranking: of each group the most wanted is ranked, the others are listed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.data.duplicate_groups import Groups
from experiments.data.samples import FileSamples
from experiments.engine.engine import Engine
from experiments.learning.near_duplicates import of_samples
from experiments.models.embedding import IMAGE_SIZE
from experiments.ranking.listing import Listing
from experiments.ranking.store import NearDuplicate, Store
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)

FEATURES = "features"
"""Folder of looks and features in the folder of a ranking."""


def groups_of_files(
    names: Sequence[str], listing: Listing, engine: Engine, *, folder: Path
) -> Groups:
    """Group image files; the first of a group is the first in the order of the names."""
    paths = [Path(listing.path(name)) for name in names]
    files = FileSamples(paths, names, image_size=IMAGE_SIZE, checked=False)
    return of_samples(files, engine, folder=folder / FEATURES)


def leave_out(store: Store, names: Sequence[str], groups: Groups) -> None:
    """Leave the near-duplicates of other images out of a ranking.

    Args:
        store: The ranking.
        names: Names of its images.
        groups: Of these images.
    """
    images = groups.redundant(np.empty(0, np.int64))
    first = groups.first[images].tolist()
    store.set_near_duplicates(
        NearDuplicate(names[image], names[of], float(groups.difference[image]))
        for image, of in zip(images.tolist(), first, strict=True)
    )
    logger.info(
        "%s left out: near-duplicates of %s",
        counted(images.size, "image"), counted(len(set(first)), "other image"),
    )  # fmt: skip
