"""A look at a folder of images before the first label: copies, near-duplicates, and clusters.

Clusters are those of k-means on the embeddings of EfficientNet-Lite0 (ImageNet). They stand for the
kinds of images that there may be; a kind without a label is one that no model will know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from al_core import IndexArray, stream
from al_core.errors import InvalidSetting
from al_core.strategies.clustering import k_means
from experiments.data.folders import find_images
from experiments.data.samples import FileSamples
from experiments.engine.engine import Engine
from experiments.learning.near_duplicates import of_samples
from experiments.models.embedding import IMAGE_SIZE, pretrained_embedder

CLUSTERS, IMAGES_A_CLUSTER = 50, 10
"""Number of clusters, or fewer so that each has this many images on average."""


@dataclass(frozen=True)
class PoolLook:
    """A look at the images of a folder.

    Attributes:
        num_images: Image files.
        num_unreadable: Those that cannot be decoded.
        num_redundant: Those that are copies or near-duplicates of others.
        sizes: Images of each cluster, without redundant ones, the largest first.
    """

    num_images: int
    num_unreadable: int
    num_redundant: int
    sizes: tuple[int, ...]

    def missed(self, labels: int) -> float:
        """Return the share of clusters of which `labels` random images are expected to have none.

        The draw is without replacement, among the images that are not redundant.
        """
        total = sum(self.sizes)
        return float(np.mean([_none_of(size, total, labels) for size in self.sizes]))

    def facts(self) -> Mapping[str, object]:
        """Return the attributes as plain values."""
        return {**vars(self), "sizes": list(self.sizes)}


def look_at(folder: Path, engine: Engine, *, features: Path, seed: int = 0) -> PoolLook:
    """Look at the images of a folder.

    Args:
        folder: The folder, with all folders below it.
        engine: Device of EfficientNet-Lite0.
        features: Folder that keeps embeddings, for later runs too.
        seed: Decides the clustering.

    Raises:
        InvalidSetting: There is no such folder, no readable image, or no weights.
    """
    if not folder.is_dir():
        raise InvalidSetting(f"images={folder}: there is no such folder")
    names = find_images(folder).names
    if not names:
        raise InvalidSetting(f"images={folder}: there is no image in it")
    paths = [folder / name for name in names]
    samples = FileSamples(paths, list(names), image_size=IMAGE_SIZE, checked=False)
    embedder = pretrained_embedder(engine, key="images")
    embeddings = embedder.kept(samples, features)
    groups = of_samples(samples, engine, folder=features, known=embeddings)
    unreadable = np.fromiter(embeddings.unreadable, np.int64)
    redundant = groups.redundant(np.empty(0, np.int64))
    kept = np.setdiff1d(np.arange(len(paths)), np.union1d(unreadable, redundant))
    if not kept.size:
        raise InvalidSetting(f"images={folder}: no image can be read")
    return PoolLook(
        len(paths), unreadable.size, redundant.size, _sizes(embeddings.rows(kept).numpy(), seed)
    )


def _sizes(rows: np.ndarray, seed: int) -> tuple[int, ...]:
    count = int(np.clip(len(rows) // IMAGES_A_CLUSTER, 1, CLUSTERS))
    clusters: IndexArray = k_means(rows, count, rng=stream(seed, 0, "clusters"))
    sizes = np.bincount(clusters)
    return tuple(sorted(sizes[sizes > 0].tolist(), reverse=True))


def _none_of(size: int, total: int, drawn: int) -> float:
    """Return the probability that a draw without replacement has none of `size` of `total`."""
    if drawn > total - size:
        return 0.0
    left = np.arange(size)
    return float(np.prod((total - drawn - left) / (total - left)))
