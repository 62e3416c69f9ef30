"""ProbCover: samples whose neighborhoods cover most of the pool, for budgets of a few labels.

Source: Yehuda, Dekel, Hacohen & Weinshall, *Active Learning Through a Covering Lens*, NeurIPS 2022
(arXiv 2205.11320), algorithm 1; the radius by purity, section 3.2.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.contracts import Learner, Prediction, Query, ScoreArray
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool
from al_core.strategies.blocks import blocks, squared_distances, tensor
from al_core.strategies.clustering import k_means
from al_core.strategies.rows import (
    EmbeddingChoice,
    Matrix,
    infer_rows,
    required_embedding,
    shuffled_candidates,
    unit_embedding,
    writable_folder,
)

MAX_BYTES = 4 * 10**9
"""Size of the coverage graph, one bit per pair: 178,000 candidates."""
JUDGED = 1000
"""Rows whose neighborhoods determine the radius."""


class ProbCover:
    """Greedy maximum coverage by balls of radius `delta` in the space of embeddings of length 1.

    Args:
        delta: The radius, in (0, 2]. None to take the largest radius at which a share `purity` of
            the balls lies within one cluster, with as many clusters as classes (section 3.2).
        purity: Share of balls, in (0, 1].
        embedding: "model" for the model's own embeddings, "pretrained" for those of a network that
            was trained on other data.
        embeddings_folder: Folder for a memory-mapped file of embeddings; None to use memory.

    Raises:
        InvalidSetting: A number out of its range.
    """

    def __init__(
        self,
        *,
        delta: float | None = None,
        purity: float = 0.95,
        embedding: EmbeddingChoice = "model",
        embeddings_folder: str | Path | None = None,
    ) -> None:
        if delta is not None and not 0 < delta <= 2:
            raise InvalidSetting(f"delta must lie in (0, 2] or be null, got {delta!r}")
        if not 0 < purity <= 1:
            raise InvalidSetting(f"purity must lie in (0, 1], got {purity!r}")
        self.delta, self.purity = delta, purity
        self.requires = frozenset({required_embedding(embedding)})
        self._extract = partial(_classes_and_embedding, choice=embedding)
        self.folder = writable_folder(embeddings_folder)

    @shuffled_candidates
    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Choose by embeddings; scores are the numbers of newly covered candidates."""
        _check_size(candidates.size)  # before inference on all of them
        everyone = np.concatenate([candidates, pool.labeled])
        rows = infer_rows(learner, everyone, self._extract, folder=self.folder)
        num_classes, rows = int(rows[0, 0]), rows[:, 1:]
        offered = rows[: candidates.size]
        delta = self.delta
        if delta is None:
            delta = radius(offered, num_classes, purity=self.purity, rng=rng)
        chosen, gains = probcover(offered, budget, delta=delta, labeled=rows[candidates.size :])
        return Query(candidates[chosen], gains)


def _classes_and_embedding(prediction: Prediction, choice: EmbeddingChoice) -> Tensor:
    """Extract (b, 1 + d): the number of classes and the embedding."""
    embedded = unit_embedding(prediction, choice)
    count = embedded.new_full((len(embedded), 1), prediction.log_probs.shape[1])
    return torch.cat([count, embedded], 1)


def radius(
    embeddings: Matrix, num_classes: int, *, purity: float, rng: np.random.Generator
) -> float:
    """Return the largest radius at which a share `purity` of the balls is pure (section 3.2).

    A ball is pure if all of its rows belong to one cluster of k-means, that is, if its radius is
    smaller than the distance from its center to the nearest row of another cluster. The radius is
    therefore a quantile of these distances.

    Args:
        embeddings: (n, d).
        num_classes: Number of clusters.
        purity: Share of pure balls, in (0, 1].
        rng: Seeds the clustering; the balls are centered at the first `JUDGED` rows.
    """
    clusters = torch.from_numpy(k_means(embeddings, min(num_classes, len(embeddings)), rng=rng))
    judged = tensor(embeddings[:JUDGED])
    nearest = torch.full((len(judged),), torch.inf)
    for block in blocks(len(embeddings)):
        squared = squared_distances(judged, tensor(embeddings[block]))
        squared[clusters[:JUDGED, None] == clusters[None, block]] = torch.inf
        torch.minimum(nearest, squared.amin(1), out=nearest)
    foreign = nearest.sqrt().numpy()
    if not np.isfinite(foreign).all():  # a single cluster
        return 2.0
    found = float(np.quantile(foreign, 1 - purity, method="lower"))
    return max(float(np.nextafter(found, 0)), 1e-6)  # rows of different clusters may be equal


def probcover(
    embeddings: Matrix, budget: int, *, delta: float, labeled: Matrix | None = None
) -> tuple[NDArray[np.int64], ScoreArray]:
    """Repeatedly choose the row that has the most uncovered rows within `delta`.

    Args:
        embeddings: (n, d).
        budget: 0..n.
        delta: Radius; a row at exactly this distance is covered.
        labeled: (l, d) embeddings of labeled samples, which cover rows from the beginning.

    Returns:
        (budget,) different rows, the first among equals, and the number of rows that each newly
        covered. Once all rows are covered, the first remaining ones follow.

    Raises:
        InvalidSetting: The graph of this many rows exceeds the memory limit.
    """
    num_rows = len(embeddings)
    _check_size(num_rows)
    covers = _graph(embeddings, delta)
    uncovered = np.ones(num_rows, bool)
    if labeled is not None and len(labeled):
        for block in blocks(num_rows, 1024):
            for held in blocks(len(labeled)):
                squared = squared_distances(tensor(embeddings[block]), tensor(labeled[held]))
                uncovered[block] &= ~(squared <= delta**2).any(1).numpy()
    gains = _counts(covers, np.flatnonzero(uncovered), num_rows)
    chosen: list[int] = []
    found: list[float] = []
    for _ in range(budget):
        row = int(gains.argmax())
        chosen.append(row)
        found.append(float(gains[row]))
        newly = np.unpackbits(covers[row], count=num_rows).astype(bool) & uncovered
        uncovered &= ~newly
        gains -= _counts(covers, np.flatnonzero(newly), num_rows)
        gains[chosen] = -1
    return np.array(chosen, np.int64), np.array(found)


def _check_size(num_rows: int) -> None:
    if num_rows**2 / 8 > MAX_BYTES:
        raise InvalidSetting(
            f"ProbCover compares all pairs: {num_rows} candidates are too many, at most "
            f"{int((8 * MAX_BYTES) ** 0.5)} are possible; show it fewer "
            "(on the command line cycle.candidates=50000)"
        )


def _graph(embeddings: Matrix, delta: float) -> NDArray[np.uint8]:
    """Return the pairs within `delta`: n rows of n bits, symmetric, with the diagonal set."""
    num_rows = len(embeddings)
    covers = np.zeros((num_rows, (num_rows + 7) // 8), np.uint8)
    for rows in blocks(num_rows):
        x = tensor(embeddings[rows])
        for columns in blocks(num_rows):
            if columns.start < rows.start:
                continue  # filled in by symmetry, so that rounding cannot break it
            near = squared_distances(x, tensor(embeddings[columns])) <= delta**2
            if columns == rows:
                near |= near.T.clone()
                near.fill_diagonal_(True)
            within = near.numpy()
            for one, other, part in ((rows, columns, within), (columns, rows, within.T)):
                start, stop = other.start // 8, (other.stop + 7) // 8  # blocks are whole bytes
                covers[one, start:stop] = np.packbits(part, axis=1)
    return covers


def _counts(
    covers: NDArray[np.uint8], members: NDArray[np.int64], num_rows: int
) -> NDArray[np.int64]:
    """Count for each row how many of `members` it covers, (n,)."""
    counts = np.zeros(num_rows, np.int64)
    for block in blocks(members.size, 255):  # the largest count of a byte
        bits = np.unpackbits(covers[members[block]], axis=1, count=num_rows)
        counts += bits.sum(0, dtype=np.uint8)
    return counts
