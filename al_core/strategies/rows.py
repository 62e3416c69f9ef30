"""What strategies ask of a learner: rows of numbers about samples, in one pass over each set.

`Learner.infer` gives one tensor. Here it is asked chunk by chunk into an array that is made once,
in memory or in a memory-mapped file, so that a pool's rows never exist twice and need not fit in
memory. Strategies that go by embeddings read these arrays block by block, and see their candidates
by `shuffled_candidates`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from al_core.contracts import Learner, Prediction, Query, QueryStrategy
from al_core.errors import InvalidSetting, NonFiniteValue
from al_core.pool import IndexArray, Pool
from al_core.strategies.scoring import check_budget

Matrix = NDArray[np.float32]
"""(n, d) float32, one row a sample; may be a `numpy.memmap`."""

Select = TypeVar("Select", bound=Callable[..., Query])

CHUNK = 2**16
"""Samples of one call of `infer`: a multiple of any usual batch, so that batches are the same."""


def infer_rows(
    learner: Learner,
    indices: IndexArray,
    extract: Callable[[Prediction], Tensor],
    *,
    folder: str | Path | None = None,
) -> Matrix:
    """Return the rows (n, c) of `extract` (b, c), in the order of `indices`, float32.

    Args:
        learner: Is asked about at most `CHUNK` samples at a time.
        indices: Positions, at least one.
        extract: Rows of a batch, (b, c).
        folder: Keep the rows in an unnamed temporary file of this folder, mapped into memory; it is
            gone when the array is, however the process ends. None: in memory.

    Raises:
        NonFiniteValue: A number is NaN or infinite; the text names the first such position.
        InvalidSetting: The folder is not one that can be written to.
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
            raise NonFiniteValue(f"what the model says of sample {at} is not finite")
        if rows is None:
            rows = _made((indices.size, got.shape[1]), folder)
        rows[start : start + part.size] = got.numpy()
    assert rows is not None, "a learner was to be asked about nothing"
    return rows


def _made(shape: tuple[int, int], folder: str | Path | None) -> Matrix:
    if folder is None:
        return np.empty(shape, np.float32)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # the map outlives the handle
            return np.memmap(file, np.float32, "w+", shape=shape)
    except OSError as error:
        raise InvalidSetting(
            f"embeddings_folder={folder} cannot be written to: {error.strerror}"
        ) from None


def embedding(prediction: Prediction) -> Tensor:
    """Extract the embedding (b, d) in float32.

    Raises:
        InvalidSetting: The model gives none.
    """
    if prediction.embedding is None:
        raise InvalidSetting(
            "this strategy looks at embeddings, and the model gives none: it needs a method "
            "get_discriminative_al_features() that returns its classifier's input (b, d)"
        )
    return prediction.embedding.float()


def unit_embedding(prediction: Prediction) -> Tensor:
    """Extract the embedding (b, d), scaled to length 1; a row of zeros stays one.

    Raises:
        InvalidSetting: The model gives none.
    """
    return F.normalize(embedding(prediction), dim=1)


def shuffled_candidates(select: Select) -> Select:
    """Wrap a strategy's `select`: it sees candidates shuffled, and a budget of at least 1.

    Their order does not depend on the one they are given in, and is random, so that whoever takes
    the first of equal ones takes any of them. A budget of 0 is met by nothing, without asking the
    model; one that the candidates cannot meet raises InvalidSetting.
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
    folder: str | Path | None = None,
) -> tuple[Matrix, Matrix]:
    """Return the embeddings of candidates (n, d) and of labeled samples (l, d)."""
    wanted = infer_rows(learner, candidates, embedding, folder=folder)
    if not labeled.size:
        return wanted, np.empty((0, wanted.shape[1]), np.float32)
    return wanted, infer_rows(learner, labeled, embedding, folder=folder)
