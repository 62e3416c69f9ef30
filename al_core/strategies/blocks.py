"""Arithmetic on matrices too large to copy: block by block, with torch's threads.

Squared distances are |x|^2 + |y|^2 - 2 x.y, so that the work is a matrix product. In float32 that
cancels where two rows are close; what is decided by small distances is computed in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.strategies.rows import Matrix

ROWS = 4096
"""Rows of a block: with 512 columns 8 MB in float32, about what a core's caches hold."""
UNDERFLOW = 2.0**-100
"""Squares below it may have lost everything in float32."""


def blocks(num_rows: int, size: int = ROWS) -> Iterator[slice]:
    """Cut 0..num_rows into slices of at most `size`."""
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def tensor(rows: NDArray[np.float32]) -> Tensor:
    """Return rows as a tensor that shares their memory, where they may be written to.

    torch has no read-only tensors and warns of such memory; those rows are copied.
    """
    rows = np.asarray(rows)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def squared_norms(matrix: Matrix) -> NDArray[np.float64]:
    """Return |x|^2 of each row, (n,), summed in float64."""
    norms = np.empty(len(matrix))
    for block in blocks(len(matrix), 512):  # in float64 what a core's own cache holds
        norms[block] = tensor(matrix[block]).double().square_().sum(1).numpy()
    return norms


def rounding(num_terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Return how far a product of vectors can be off, as a share of the product of their lengths.

    Holds for sums in any order (Higham, *Accuracy and Stability of Numerical Algorithms*, 2002,
    section 3.1), with room for a few further operations on the result.
    """
    return (num_terms + 8) * torch.finfo(dtype).eps


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy of the rows, scaled to length 1; a row of zeros stays as it is."""
    scale = np.sqrt(squared_norms(rows))
    scale[scale == 0] = 1
    return np.asarray(rows / scale[:, None], np.float32)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2, (n, m), not below zero, in the precision of `x` and `y`."""
    products = torch.addmm(y.square().sum(1), x, y.T, alpha=-2.0)
    return products.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)
