"""The images to rank: those of a folder, at any depth, or those that a list names.

They come as a stream in no order, since there may be millions; the store sorts them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from al_core.errors import InvalidSetting
from experiments.data.folders import files_below
from experiments.data.header import IMAGE_SUFFIXES
from experiments.data.retrying import is_permanent, retried

PATH_COLUMNS = ("path", "image", "image_path", "file_name", "filename", "name")
"""Names of the column of paths in a Parquet file with several columns, in order of preference."""


class File(NamedTuple):
    """An image file at the time of the listing.

    Attributes:
        name: Path below the folder, with "/", or the text in the list.
        size: Bytes; -1 if the file does not exist.
        modified_ns: Time of the last change of its contents.
        changed_ns: Time of the last change of contents or permissions.
    """

    name: str
    size: int
    modified_ns: int
    changed_ns: int


@dataclass
class Listing:
    """The images of a folder or list, and the files that were passed over so far.

    Args:
        source: A folder, or a file that ends in .txt (one path in each line), .parquet or .pq.

    Raises:
        InvalidSetting: The source is of another kind.
    """

    source: Path
    ignored: Counter[str] = field(default_factory=Counter)
    unnamable: list[str] = field(default_factory=list)
    """Escaped names that are not UTF-8, so that no CSV can hold them."""

    def __post_init__(self) -> None:
        suffix = self.source.suffix.lower()
        if not self.source.is_dir() and suffix not in (".txt", ".parquet", ".pq"):
            raise InvalidSetting(
                f"images={self.source} must be a folder, or a list of paths that ends in .txt, "
                ".parquet or .pq"
            )

    def path(self, name: str) -> str:
        """Return the path of the image of this name."""
        folder = self.source if self.source.is_dir() else self.source.parent
        return os.path.join(folder, name)  # an absolute name stays as it is

    def files(self) -> Iterator[File]:
        """Yield the images in no order; those of a list may come more than once.

        Symbolic links are followed. Hidden files and folders, and files with other endings, are
        passed over and counted; a file that a list names is taken whatever its ending.

        Raises:
            InvalidSetting: A folder or the list cannot be read.
            OSError: A disk or a network fails.
        """
        for name in self._names():
            try:
                name.encode("utf-8")
            except UnicodeEncodeError:
                self.unnamable.append(name.encode("utf-8", "backslashreplace").decode("utf-8"))
                continue
            yield self._file(name)

    def _file(self, name: str) -> File:
        path = self.path(name)
        try:
            status = retried(partial(os.stat, path), path)
        except ValueError:  # a NUL in a list
            return File(name, -1, -1, -1)
        except OSError as error:
            if not is_permanent(error):
                raise  # taken for gone, it would lose its score
            return File(name, -1, -1, -1)
        return File(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def _names(self) -> Iterator[str]:
        if not self.source.is_dir():
            yield from self._listed()
            return
        for name in files_below(self.source):
            base = name.rpartition("/")[2]
            suffix = os.path.splitext(base)[1].lower()
            if base.startswith("."):
                self.ignored["hidden"] += 1
            elif suffix not in IMAGE_SUFFIXES:
                self.ignored[suffix or "no ending"] += 1
            else:
                yield name

    def _listed(self) -> Iterator[str]:
        if self.source.suffix.lower() != ".txt":
            yield from _parquet_paths(self.source)
            return
        try:
            with open(self.source, encoding="utf-8-sig", newline="") as file:
                for line in file:
                    name = line.rstrip("\r\n")
                    if name.strip():
                        yield name
        except UnicodeDecodeError:
            raise InvalidSetting(f"images={self.source} is not a text file in UTF-8") from None


def _parquet_paths(source: Path) -> Iterator[str]:
    try:
        from pyarrow import ArrowInvalid, parquet, types
    except ModuleNotFoundError:
        raise InvalidSetting(
            f"images={source}: reading Parquet needs pyarrow: pip install -e '.[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(source) as file:
            schema = file.schema_arrow
            columns = [
                field.name
                for field in schema
                if types.is_string(field.type) or types.is_large_string(field.type)
            ]
            named = [name for name in PATH_COLUMNS if name in columns]
            if not named and len(columns) != 1:
                raise InvalidSetting(
                    f"images={source} must have one column of text, or one that is called "
                    f"{' or '.join(PATH_COLUMNS)}; it has {', '.join(schema.names) or 'none'}"
                )
            for batch in file.iter_batches(columns=[(named or columns)[0]]):
                for name in batch.column(0).to_pylist():
                    if name:
                        yield name
    except ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise InvalidSetting(f"images={source} cannot be read as Parquet: {reason}") from None
