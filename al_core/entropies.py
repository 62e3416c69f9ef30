"""The CSV files that an annotation tool orders its queue by.

`write_entropies_csv` gives the bytes of superannotateai/active_learning @aa2b9ae: a header
`name,entropy_value`, CRLF, values at full precision. SuperAnnotate's importer cannot be trusted
with such values: it keeps the first 8 characters of a number, clips it to [0, 1e6], keeps 5
decimals, and matches bare file names only. `write_upload_csv` is made so that none of this changes
the order.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from al_core.errors import InvalidSetting, NonFiniteValue
from al_core.files import atomic_write

logger = logging.getLogger(__name__)

HEADER = ("name", "entropy_value")
LARGEST_UPLOAD_VALUE = 999_999
"""Six digits: within the importer's 8 characters and its clip at 1e6."""


class NamedImages(Protocol):
    """A data set that knows where its images are."""

    def get_image_path(self, index: int) -> str:
        """Return the path of the image at this position."""
        ...


def write_entropies_csv(
    dataset: NamedImages,
    indices: Iterable[int],
    entropies: Iterable[Any],
    file_out: str | os.PathLike[str],
) -> None:
    """Write `name,entropy_value` rows in the order given.

    Args:
        dataset: Its `get_image_path(index)` gives the name.
        indices: Positions in `dataset`.
        entropies: One number each, written as `str` gives it.
        file_out: Where; written whole or not at all.

    Raises:
        InvalidSetting: As many values as indices are needed.
        OSError: The file cannot be written.
    """
    names = [dataset.get_image_path(int(index)) for index in indices]
    values = [value.item() if hasattr(value, "detach") else value for value in entropies]
    write_ranking_csv(file_out, names, values)


def write_ranking_csv(
    path: str | os.PathLike[str],
    names: Iterable[str],
    values: Iterable[Any],
    *,
    more: Mapping[str, Iterable[Any]] | None = None,
) -> None:
    """Write `name,entropy_value` rows in the order given, raw values.

    Args:
        path: Where; written whole or not at all.
        names: Of any number: they are not kept.
        values: One a name.
        more: Further columns by heading: which part of an image a row is about, say.

    Raises:
        InvalidSetting: As many values as names are needed.
        OSError: The file cannot be written.
    """
    if isinstance(names, Sized) and isinstance(values, Sized) and len(names) != len(values):
        raise InvalidSetting(f"{len(names)} names cannot go with {len(values)} values")
    more = more or {}
    with atomic_write(path) as file:
        writer = csv.writer(file)  # CRLF is its default
        writer.writerow((*HEADER, *more))
        writer.writerows(zip(names, map(str, values), *more.values(), strict=True))


def read_ranking_csv(path: str | os.PathLike[str]) -> tuple[list[str], NDArray[np.float64]]:
    """Read back the names and values of either kind of file, without further columns.

    Raises:
        InvalidSetting: Not such a file; the text names the line.
    """
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    if not rows or tuple(rows[0][:2]) != HEADER:
        raise InvalidSetting(f"{path}: the first line must be {','.join(HEADER)}")
    names, values = [], []
    for line, row in enumerate(rows[1:], start=2):
        try:
            name, value, *more = row
            if len(more) != len(rows[0]) - 2:
                raise ValueError
            names.append(name)
            values.append(float(value))
        except ValueError:
            raise InvalidSetting(f"{path}, line {line}: not a name and a number: {row}") from None
    return names, np.asarray(values, dtype=np.float64)


def upload_values(scores: ArrayLike) -> NDArray[np.int64]:
    """Encode scores as whole numbers in [0, 999999] of the same order and the same ties.

    The smallest score becomes 0 and each larger one takes the next number. Beyond a million
    different scores the most wanted 999,999 keep their order and all others become 0.

    Raises:
        NonFiniteValue: A score is NaN or infinite; the text names the first.
    """
    array = np.asarray(scores, dtype=np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        at = int(np.flatnonzero(~finite)[0])
        raise NonFiniteValue(f"the score in row {at} is {array.flat[at]}: it cannot be uploaded")
    distinct, ranks = np.unique(array, return_inverse=True)
    surplus = max(0, distinct.size - 1 - LARGEST_UPLOAD_VALUE)
    if surplus:
        logger.warning(
            "%d different scores do not fit into six digits: the lowest %d are uploaded as equal",
            distinct.size,
            surplus + 1,
        )
    return np.maximum(ranks.reshape(array.shape) - surplus, 0).astype(np.int64)


def bare_name(name: str) -> str:
    """Return the file name without folders, whichever way the slashes lean."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def name_clashes(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the bare names that several of `names` share, each with those."""
    owners: dict[str, list[str]] = defaultdict(list)
    for name in names:
        owners[bare_name(name)].append(name)
    return {bare: sharing for bare, sharing in owners.items() if len(sharing) > 1}


def write_upload_csv(
    path: str | os.PathLike[str],
    names: Sequence[str],
    scores: ArrayLike,
    *,
    more: Mapping[str, Sequence[Any]] | None = None,
) -> dict[str, list[str]]:
    """Write the file to upload: bare names and values that the importer cannot change.

    Args:
        path: Where; written whole or not at all.
        names: Image names; only what follows the last slash is written.
        scores: Raw scores, in any order; rows keep the order given.
        more: Further columns by heading.

    Returns:
        The clashes, as `name_clashes`; they are also logged as a warning, since the tool would give
        images that share a bare name the same place.

    Raises:
        NonFiniteValue: A score is NaN or infinite.
        OSError: The file cannot be written.
    """
    bare = [bare_name(name) for name in names]
    write_ranking_csv(path, bare, upload_values(scores).tolist(), more=more)
    clashes = name_clashes(names)
    if clashes:
        name, sharing = next(iter(clashes.items()))
        logger.warning(
            "%d file names stand for several images once folders are dropped (%s: %s, ...); the "
            "annotation tool cannot tell them apart",
            len(clashes),
            name,
            ", ".join(sharing[:3]),
        )
    return clashes
