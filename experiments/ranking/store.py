"""The state of a ranking: every image with its score, or with the reason why it has none.

The state is one SQLite file, written in transactions, so that a process killed at any moment loses
only what it has not committed. Names and scores stay on disk, and memory does not grow with the
number of images; SQLite also sorts what does not fit into memory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from al_core.entropies import bare_name
from al_core.errors import ActiveLearningError
from experiments.ranking.listing import File

COMMIT_SECONDS = 2.0
"""Time between commits, and so the most that a kill costs; each commit waits for the disk."""
PAGE = 10_000
"""Rows in memory at a time."""
PENDING = "present AND score IS NULL AND reason IS NULL"
SCORED = "present AND score IS NOT NULL AND name NOT IN (SELECT name FROM near_duplicates)"
WRITTEN = "written"
"""Note with the settings of the tables that were written of the ranking as it stands."""
ORDER = "ORDER BY score DESC, tie(name)"
FAILURES = tuple(
    os.strerror(number) for number in (errno.EIO, errno.ESTALE, errno.EMFILE, errno.ETIMEDOUT)
)
"""Reasons that versions up to 0.1 recorded for images that could not be read at the moment."""


class Changes(NamedTuple):
    """Differences between the images now and those of the last start, as numbers of images."""

    new: int
    changed: int
    gone: int


class NearDuplicate(NamedTuple):
    """An image that is left out of a ranking.

    Attributes:
        name: Its name.
        group: Name of the most wanted image of its group, which is in the ranking.
        difference: From that image, as a share of what is permitted; 0 for a copy.
    """

    name: str
    group: str
    difference: float


class Counts(NamedTuple):
    """Progress of a ranking, in images that are present."""

    images: int
    scored: int
    unreadable: int
    near_duplicates: int

    @property
    def offered(self) -> int:
        """Number of images that are scored and no near-duplicates of others."""
        return self.scored - self.near_duplicates

    @property
    def left(self) -> int:
        """Number of images that are neither scored nor known to be unreadable."""
        return self.images - self.scored - self.unreadable


class Store:
    """Images, scores and reasons in one file.

    Every method raises ActiveLearningError where the disk is full or the file cannot be read or
    written; what was committed before is kept.

    Args:
        path: The file; it is created if there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_scored = 0
        """Images whose scores were recorded through this object."""
        self._committed = time.monotonic()
        with self._reported():
            self._db = sqlite3.connect(path, isolation_level=None)
        self._db.create_function("tie", 1, _tie, deterministic=True)
        self._db.create_function("bare", 1, bare_name, deterministic=True)
        try:
            self._run("PRAGMA synchronous = FULL")
            self._run(
                "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY, name TEXT UNIQUE, "
                "size INTEGER, modified_ns INTEGER, changed_ns INTEGER, present INTEGER, "
                "score REAL, reason TEXT)"
            )
            self._run(
                "CREATE TABLE IF NOT EXISTS near_duplicates (name TEXT PRIMARY KEY, instead TEXT, "
                "difference REAL) WITHOUT ROWID"
            )
            self._run("CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT)")
        except ActiveLearningError:
            self._db.close()
            raise

    def close(self) -> None:
        """Commit and close."""
        try:
            self.commit()
        finally:
            self._db.close()

    def note(self, key: str) -> Any:
        """Return the value of a note, or None."""
        rows = self._rows("SELECT value FROM notes WHERE key = ?", (key,))
        try:
            return json.loads(rows[0][0]) if rows else None
        except (TypeError, ValueError) as error:
            raise self.damaged(f"the note {key!r} is no JSON: {error}") from None

    def set_note(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold; None removes the note."""
        if value is None:
            self._run("DELETE FROM notes WHERE key = ?", (key,))
        else:
            self._run("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, json.dumps(value)))

    def update(self, files: Iterable[File]) -> Changes:
        """Take over the images that are there now, in one transaction.

        A new image is to be scored, after those that are known; one whose size or time of change
        differs is to be scored again; one that is gone is left out of the ranking, and keeps its
        score in case it comes back unchanged. An unreadable one is tried again when anything about
        it has changed, its permissions included, or when only reading it had failed. Any difference
        removes the note WRITTEN.
        """
        self._run(
            "CREATE TEMP TABLE found (name TEXT PRIMARY KEY, size, modified_ns, changed_ns) "
            "WITHOUT ROWID"
        )
        self._run("BEGIN")
        try:
            changes = self._update(files)
        except BaseException:  # half an update would hide from the next start what has changed
            if self._db.in_transaction:  # SQLite has rolled back by itself after some errors
                with self._reported():
                    self._db.rollback()
            raise
        self._run("COMMIT")
        self._run("DROP TABLE found")
        return changes

    def _update(self, files: Iterable[File]) -> Changes:
        source = iter(files)
        while page := list(islice(source, PAGE)):
            self._run_many("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?)", page)
        gone = self._run(
            "UPDATE images SET present = 0 "
            "WHERE present AND NOT EXISTS (SELECT 1 FROM found WHERE found.name = images.name)"
        )
        returned = self._run(
            "UPDATE images SET present = 1 "
            "WHERE NOT present AND EXISTS (SELECT 1 FROM found WHERE found.name = images.name)"
        )
        changed = self._run(
            "UPDATE images SET size = found.size, modified_ns = found.modified_ns, "
            "changed_ns = found.changed_ns, score = NULL, reason = NULL FROM found "
            "WHERE found.name = images.name AND (found.size <> images.size "
            "OR found.modified_ns <> images.modified_ns "
            "OR (reason IS NOT NULL AND found.changed_ns <> images.changed_ns))"
        )
        healed = self._run(
            f"UPDATE images SET reason = NULL WHERE reason IN ({','.join('?' * len(FAILURES))})",
            FAILURES,
        )
        new = self._run(
            "INSERT INTO images (name, size, modified_ns, changed_ns, present) "
            "SELECT name, size, modified_ns, changed_ns, 1 FROM found "
            "WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.name = found.name) ORDER BY name"
        )
        if new or changed or gone or returned or healed:
            self.set_note(WRITTEN, None)
        return Changes(new, changed, gone)

    def counts(self) -> Counts:
        """Count the images that are present."""
        (row,) = self._rows(
            "SELECT COUNT(*), COUNT(score), COUNT(reason), (SELECT COUNT(*) FROM near_duplicates) "
            "FROM images WHERE present"
        )
        return Counts(*row)

    def set_near_duplicates(self, rows: Iterable[NearDuplicate]) -> None:
        """Leave images out of the ranking, in place of those that were left out before."""
        self.commit()
        self._run("BEGIN")
        self._run("DELETE FROM near_duplicates")
        self._run_many("INSERT INTO near_duplicates VALUES (?, ?, ?)", rows)
        self._run("COMMIT")

    def near_duplicates(self) -> Iterator[NearDuplicate]:
        """Yield the images that are left out, by group."""
        rows = self._each("SELECT name, instead, difference FROM near_duplicates ORDER BY 2, 3, 1")
        yield from (NearDuplicate(*row) for row in rows)

    def all(self) -> list[tuple[int, str]]:
        """Return id and name of all images, in a fixed order."""
        return self._rows("SELECT id, name FROM images WHERE present ORDER BY id")

    def pending(self) -> Iterator[tuple[int, str]]:
        """Yield id and name of the images to be scored, once each, in a fixed order."""
        last = 0
        while True:
            rows = self._rows(
                f"SELECT id, name FROM images WHERE id > ? AND {PENDING} ORDER BY id LIMIT ?",
                (last, PAGE),
            )
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def record(
        self,
        ids: Sequence[int],
        scores: NDArray[np.float64],
        reasons: Mapping[int, str],
        failures: Mapping[int, str],
    ) -> None:
        """Record scores; they are committed every few seconds.

        Args:
            ids: Of the images.
            scores: (n,), NaN where there is none.
            reasons: Position in `ids` -> why the image is unreadable.
            failures: Position in `ids` -> why reading it failed; it stays to be scored.
        """
        if not self._db.in_transaction:
            self._run("BEGIN")
        rows = [
            (None, reasons[k], id_) if k in reasons else (score, None, id_)
            for k, (id_, score) in enumerate(zip(ids, scores.tolist(), strict=True))
            if k not in failures
        ]
        self._run_many("UPDATE images SET score = ?, reason = ? WHERE id = ?", rows)
        self.num_scored += sum(reason is None for _, reason, _ in rows)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make what was recorded durable."""
        if self._db.in_transaction:
            self._run("COMMIT")
        self._committed = time.monotonic()

    def ranked(self, *, limit: int | None = None) -> Iterator[tuple[str, float]]:
        """Yield name and score in decreasing order.

        Equal scores are ordered by a hash of the name, which depends neither on the order of the
        images nor on their number: an alphabetical order is often one of classes.
        """
        yield from self._each(
            f"SELECT name, score FROM images WHERE {SCORED} {ORDER} LIMIT ?",
            (-1 if limit is None else limit,),
        )

    def least(self, limit: int) -> list[tuple[str, float]]:
        """Return name and score of the end of the ranking, in its order."""
        rows = self._rows(
            f"SELECT name, score FROM images WHERE {SCORED} ORDER BY score, tie(name) DESC LIMIT ?",
            (limit,),
        )
        return rows[::-1]

    def scores(self) -> NDArray[np.float64]:
        """Return all scores in the order of `ranked`."""
        rows = self._each(f"SELECT score FROM images WHERE {SCORED} ORDER BY score DESC")
        try:
            return np.fromiter((score for (score,) in rows), np.float64)
        except (TypeError, ValueError) as error:
            raise self.damaged(f"a score is no number: {error}") from None

    def unreadable(self) -> Iterator[tuple[str, str]]:
        """Yield name and reason, by name."""
        yield from self._each(
            "SELECT name, reason FROM images WHERE present AND reason IS NOT NULL ORDER BY name"
        )

    def clashes(self) -> Iterator[tuple[str, str]]:
        """Yield bare name and name of the ranked images that share their bare name with others."""
        yield from self._each(
            f"SELECT bare(name) AS short, name FROM images WHERE {SCORED} "
            f"AND short IN (SELECT bare(name) AS b FROM images WHERE {SCORED} "
            "GROUP BY b HAVING COUNT(*) > 1) ORDER BY short, name"
        )

    def damaged(self, what: str) -> ActiveLearningError:
        """Return the error for contents that this project has not written."""
        return ActiveLearningError(
            f"{self.path} is damaged ({what}): restore a copy of it, or move it away to score all "
            "images again"
        )

    def _run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Execute a statement; return the number of rows that it changed."""
        with self._reported():
            return self._db.execute(sql, values).rowcount

    def _run_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._reported():
            self._db.executemany(sql, rows)

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._reported():
            return self._db.execute(sql, values).fetchall()

    def _each(self, sql: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield rows one by one: a ranking may not fit into memory."""
        with self._reported():
            cursor = self._db.execute(sql, values)
        while True:
            with self._reported():
                rows = cursor.fetchmany(PAGE)
            if not rows:
                return
            yield from rows

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn SQLite's errors into one line that says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            # The lower eight bits; the others tell apart kinds of one error. Connecting sets none.
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF
            if code == sqlite3.SQLITE_ERROR and not str(error).startswith("no such"):
                raise  # a mistake of this module; "no such column" is of another program's file
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
                raise self.damaged(str(error)) from None
            what = "the disk is full" if code == sqlite3.SQLITE_FULL else str(error)
            raise ActiveLearningError(
                f"{self.path}: {what} (what was scored is kept; the same command goes on from it)"
            ) from None


def _tie(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
