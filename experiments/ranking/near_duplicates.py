"""Near-duplicates in a ranking: of each group the most wanted is ranked, the others are listed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from experiments.data.duplicate_groups import Groups
from experiments.ranking.store import NearDuplicate, Store
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)


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
