"""Inference into matrices: one row of numbers per sample, in one pass over the samples.

`Learner.infer` returns one tensor. Here it runs chunk by chunk into an array that is allocated
once, in memory or in a memory-mapped file, so that the rows of a pool never exist twice and need
not fit into memory. Strategies read these arrays block by block.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Literal, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from al_core.contracts import Learner, Prediction, Query, QueryStrategy, Requirement
from al_core.errors import InvalidSetting, NonFiniteValue
from al_core.pool import IndexArray, Pool
from al_core.strategies.scoring import check_budget

Matrix = NDArray[np.float32]
"""(n, d) float32, one row per sample; may be a `numpy.memmap`."""

Select = TypeVar("Select", bound=Callable[..., Query])

EmbeddingChoice = Literal["model", "pretrained"]
"""Which embedding a strategy uses: the model's own, or that of a pretrained network."""

CHUNK = 2**16
"""Samples per call of `infer`, a multiple of usual batch sizes so that batches do not change."""


def infer_rows(
    learner: Learner,
    indices: IndexArray,
    extract: Callable[[Prediction], Tensor],
    *,
    folder: str | Path | None = None,
) -> Matrix:
    """Return the rows (n, c) of `extract` (b, c), in the order of `indices`, float32.

    Args:
        learner: Infers at most `CHUNK` samples per call.
        indices: Positions, at least one.
        extract: Rows of a batch, (b, c).
        folder: Folder for an unnamed temporary file that holds the rows and is mapped into memory.
            It vanishes with the array, however the process ends. None to use memory.

    Raises:
        NonFiniteValue: A number is NaN or infinite; the text names the first such position.
        InvalidSetting: The rows fit neither into memory nor into the folder, or the folder is not
            writeable.
    """
    rows: Matrix | None = None
    for start in range(0, indices.size, CHUNK):
        part = indices[start : start + CHUNK]
        got = learner.infer(part, extract)
        finite = torch.isfinite(got.sum(1))  # a sum is finite only if all of its terms are
        if not bool(finite.all()):
            finite = torch.isfinite(got).all(1)
        if not bool(finite.all()):
            at = int(part[~finite.numpy()].min())
            raise NonFiniteValue(f"the model's output for sample {at} is not finite")
        if rows is None:
            rows = _made((indices.size, got.shape[1]), folder)
        rows[start : start + part.size] = got.numpy()
    assert rows is not None, "no samples to infer"
    return rows


def writable_folder(folder: str | Path | None) -> str | Path | None:
    """Return the folder for embeddings as it is, after checking that it can be written to.

    Raises:
        InvalidSetting: It is not there, or is read-only.
    """
    if folder is not None and not os.access(folder, os.W_OK):
        reason = "it is read-only" if os.path.isdir(folder) else "there is no such folder"
        raise InvalidSetting(f"embeddings_folder={folder} cannot be written to: {reason}")
    return folder


def _made(shape: tuple[int, int], folder: str | Path | None) -> Matrix:
    size = 4 * shape[0] * shape[1]
    if folder is None:
        if size > (free := _free_memory()):
            raise InvalidSetting(
                f"the rows of {shape[0]} samples take {size / 1e9:.3g} GB of memory, and "
                f"{free / 1e9:.3g} GB are free: show the strategy fewer candidates (on the command "
                "line cycle.candidates=50000), or let it keep them on disk if it can "
                "(strategy.query.embeddings_folder=FOLDER)"
            )
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # the map outlives the handle
            # Raises where the disk is too small; writing to the map would end the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, np.float32, "r+", shape=shape)
    except OSError as error:
        raise InvalidSetting(
            f"embeddings_folder={folder} cannot be written to: {error.strerror} "
            f"({size / 1e9:.3g} GB are needed)"
        ) from None


def _free_memory() -> int:
    """Return the bytes available without swapping on Linux, the total memory elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])


def required_embedding(choice: EmbeddingChoice) -> Requirement:
    """Return what the choice of an embedding requires of predictions.

    Raises:
        InvalidSetting: There is no such choice.
    """
    if choice not in ("model", "pretrained"):
        raise InvalidSetting(f"embedding must be model or pretrained, got {choice!r}")
    return Requirement.EMBEDDING if choice == "model" else Requirement.PRETRAINED_EMBEDDING


def embedding(prediction: Prediction, choice: EmbeddingChoice = "model") -> Tensor:
    """Extract an embedding (b, d) in float32.

    Raises:
        InvalidSetting: The prediction has none.
    """
    if choice == "pretrained":
        if prediction.pretrained_embedding is None:
            raise InvalidSetting("this strategy needs pretrained embeddings, and there are none")
        return prediction.pretrained_embedding.float()
    if prediction.embedding is None:
        raise InvalidSetting(
            "this strategy needs embeddings, and the model provides none: it needs a method "
            "get_discriminative_al_features() that returns its classifier's input (b, d)"
        )
    return prediction.embedding.float()


def unit_embedding(prediction: Prediction, choice: EmbeddingChoice = "model") -> Tensor:
    """Extract an embedding (b, d), scaled to length 1; a row of zeros stays zero.

    Raises:
        InvalidSetting: The prediction has none.
    """
    return F.normalize(embedding(prediction, choice), dim=1)


def shuffled_candidates(select: Select) -> Select:
    """Decorate a strategy's `select` to receive shuffled candidates and a budget of at least 1.

    The order is random and independent of the given one, so that a strategy which takes the first
    among equal candidates takes each with the same probability. A budget of 0 returns an empty
    query without inference; a budget above the number of candidates raises InvalidSetting.
    """

    @wraps(select)
    def wrapped(
        strategy: QueryStrategy,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        check_budget(budget, candidates)
        if not budget:
            return Query(np.empty(0, np.int64))
        return select(strategy, pool, rng.permutation(np.sort(candidates)), learner, budget, rng)

    return cast(Select, wrapped)


def embeddings_of(
    learner: Learner,
    candidates: IndexArray,
    labeled: IndexArray,
    *,
    choice: EmbeddingChoice = "model",
    folder: str | Path | None = None,
) -> tuple[Matrix, Matrix]:
    """Return the embeddings of candidates (n, d) and of labeled samples (l, d)."""
    extract = partial(embedding, choice=choice)
    wanted = infer_rows(learner, candidates, extract, folder=folder)
    if not labeled.size:
        return wanted, np.empty((0, wanted.shape[1]), np.float32)
    return wanted, infer_rows(learner, labeled, extract, folder=folder)
