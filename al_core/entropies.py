"""Write the CSV files by which an annotation tool orders its queue.

`write_entropies_csv` writes the bytes of superannotateai/active_learning @aa2b9ae: a header
`name,entropy_value`, CRLF line ends, values at full precision. SuperAnnotate's importer changes
such values: it keeps the first 8 characters of a number, clips it to [0, 1e6], keeps 5 decimals,
and matches bare file names only. `write_upload_csv` encodes names and values so that the importer
cannot change their order.
"""

from __future__ import annotations

import csv
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
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


class FolderOfImages(Protocol):
    """A data set with the files of torchvision's `ImageFolder`."""

    samples: Sequence[tuple[str, Any]]
    """The path and the label of each image."""


ImageNames = NamedImages | FolderOfImages | Sequence[str] | Callable[[int], str]
"""Names of images by position: a data set that knows them, a list, or a function."""


def write_entropies_csv(
    dataset: ImageNames,
    indices: Iterable[int],
    entropies: Iterable[Any] | None,
    file_out: str | os.PathLike[str],
) -> None:
    """Write `name,entropy_value` rows in the order given.

    Args:
        dataset: Gives the names: by a method `get_image_path(index)`; by `samples`, the list of
            (path, label) that torchvision's `ImageFolder` has; as a `torch.utils.data.Subset` of
            one of these; as a list of names; or as a function from position to name.
        indices: Positions in `dataset`.
        entropies: One number for each, written as `str` renders it. None, as
            `choose_active_learning_indices` returns in cycle 0, where samples are drawn at random:
            every row gets 0.0, so that the tool reads equal values and keeps the order.
        file_out: The file; it is written completely or not at all.

    Raises:
        InvalidSetting: The numbers of indices and values differ, or `dataset` does not give names.
        OSError: The file cannot be written.
    """
    names = [image_name(dataset, int(index)) for index in indices]
    if entropies is None:
        entropies = [0.0] * len(names)
    values = [value.item() if hasattr(value, "detach") else value for value in entropies]
    write_ranking_csv(file_out, names, values)


def image_name(dataset: Any, index: int) -> str:
    """Return the name of the image at this position; `write_entropies_csv` lists the sources.

    Raises:
        InvalidSetting: The data set does not give names, or has no such position.
    """
    if hasattr(dataset, "get_image_path"):
        path: str = dataset.get_image_path(index)
        return path
    if hasattr(dataset, "indices") and hasattr(dataset, "dataset"):
        return image_name(dataset.dataset, int(_item(dataset.indices, index)))
    if hasattr(dataset, "samples"):
        name = _item(dataset.samples, index)
        name = name[0] if isinstance(name, (tuple, list)) else name
    elif hasattr(dataset, "__getitem__") and not isinstance(dataset, (str, bytes)):
        name = _item(dataset, index)
    else:
        name = dataset(index) if callable(dataset) else None
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidSetting(
            f"{type(dataset).__name__} does not give the name of image {index}: it needs a method "
            "get_image_path(index) or a list samples of (path, label); or pass a list of names, or "
            "a function from position to name, in its place"
        )
    return os.fspath(name)


def _item(sequence: Any, index: int) -> Any:
    try:
        return sequence[index]
    except (IndexError, KeyError):
        raise InvalidSetting(f"there is no image at position {index}") from None


def write_ranking_csv(
    path: str | os.PathLike[str],
    names: Iterable[str],
    values: Iterable[Any],
    *,
    more: Mapping[str, Iterable[Any]] | None = None,
) -> None:
    """Write `name,entropy_value` rows in the order given, with values as they are.

    Args:
        path: The file; it is written completely or not at all.
        names: Image names. A generator is consumed row by row, so any number fits into memory.
        values: One value for each name.
        more: Further columns by heading, for example the part of an image that a row is about.

    Raises:
        InvalidSetting: The numbers of names and values differ.
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
    """Read the names and values of either kind of file; further columns are ignored.

    Raises:
        InvalidSetting: The file has another format; the text names the line.
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
    """Encode scores as whole numbers in [0, 999999] with the same order and the same ties.

    The smallest score becomes 0 and each larger one the next number. If there are more than a
    million different scores, the largest 999,999 keep their order and all others become 0.

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
    """Return the file name without folders, separated by slashes or backslashes."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def name_clashes(names: Iterable[str]) -> dict[str, list[str]]:
    """Map each bare name that several of `names` share to these names."""
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
    """Write the file to upload: bare names, and values that the importer cannot change.

    Args:
        path: The file; it is written completely or not at all.
        names: Image names; only the part after the last slash is written.
        scores: Raw scores in any order; rows keep the order given.
        more: Further columns by heading.

    Returns:
        The clashes, as from `name_clashes`. They are also logged as a warning, since the tool
        cannot distinguish images that share a bare name.

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
            "annotation tool cannot distinguish them",
            len(clashes),
            name,
            ", ".join(sharing[:3]),
        )
    return clashes
