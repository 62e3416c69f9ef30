"""Blockwise arithmetic on matrices that are too large to copy.

Squared distances are computed as |x|^2 + |y|^2 - 2 x.y, mostly by a matrix product. In float32 this
cancels where two rows are close, so decisions that depend on small distances are made in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from al_core.strategies.rows import Matrix

ROWS = 4096
"""Rows of a block: 8 MB in float32 with 512 columns, about the size of a core's caches."""
UNDERFLOW = 2.0**-100
"""Squares below this may have underflowed in float32."""


def blocks(num_rows: int, size: int = ROWS) -> Iterator[slice]:
    """Cut 0..num_rows into slices of at most `size`."""
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def tensor(rows: NDArray[np.float32]) -> Tensor:
    """Return rows as a tensor that shares their memory if it is writeable.

    Read-only rows are copied, because torch has no read-only tensors and warns about such memory.
    """
    rows = np.asarray(rows)
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())


def squared_norms(matrix: Matrix) -> NDArray[np.float64]:
    """Return |x|^2 of each row, (n,), summed in float64."""
    norms = np.empty(len(matrix))
    for block in blocks(len(matrix), 512):  # 2 MB in float64, the size of a core's own cache
        norms[block] = tensor(matrix[block]).double().square_().sum(1).numpy()
    return norms


def rounding(num_terms: int, dtype: torch.dtype = torch.float32) -> float:
    """Bound the error of an inner product, relative to the product of the vectors' lengths.

    The bound holds for sums in any order (Higham, *Accuracy and Stability of Numerical Algorithms*,
    2002, section 3.1) and leaves room for a few further operations on the result.
    """
    return (num_terms + 8) * torch.finfo(dtype).eps


def normalized(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a copy of the rows, scaled to length 1; a row of zeros stays as it is."""
    scale = np.sqrt(squared_norms(rows))
    scale[scale == 0] = 1
    return np.asarray(rows / scale[:, None], np.float32)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2, (n, m), clamped at zero, in the precision of `x` and `y`."""
    products = torch.addmm(y.square().sum(1), x, y.T, alpha=-2.0)
    return products.add_(x.square().sum(1, keepdim=True)).clamp_(min=0)
