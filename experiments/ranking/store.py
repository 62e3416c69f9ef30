"""The state of a ranking: every image with its score, or with the reason why it has none.

One SQLite file, written in transactions: a process killed at any moment loses what it has not yet
committed, and nothing else. Names and scores stay on disk, so that memory does not grow with the
number of images; sorting a ranking is SQLite's, which sorts beyond memory too.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from al_core.entropies import bare_name
from al_core.errors import ActiveLearningError
from experiments.ranking.listing import File

COMMIT_SECONDS = 2.0
"""What a kill can cost; a transaction waits for the disk."""
PAGE = 10_000
"""Rows that are held at a time."""
PENDING = "present AND score IS NULL AND reason IS NULL"
WRITTEN = "written"
"""A note on the files that were last written of the ranking as it stands."""
ORDER = "ORDER BY score DESC, tie(name)"


class Changes(NamedTuple):
    """How the images differ from those of the time before."""

    new: int
    changed: int
    gone: int


class Counts(NamedTuple):
    """How far a ranking is, in images that are there."""

    images: int
    scored: int
    unreadable: int

    @property
    def left(self) -> int:
        """Images that are neither scored nor known to be unreadable."""
        return self.images - self.scored - self.unreadable


class Store:
    """Images, scores and reasons in one file.

    Args:
        path: The file; made if it is not there.

    Raises:
        ActiveLearningError: It is no such file, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.create_function("tie", 1, _tie, deterministic=True)
        self._db.create_function("bare", 1, bare_name, deterministic=True)
        self._committed = time.monotonic()
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS images (id INTEGER PRIMARY KEY, name TEXT UNIQUE, "
                "size INTEGER, modified_ns INTEGER, changed_ns INTEGER, present INTEGER, "
                "score REAL, reason TEXT)"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT)")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ActiveLearningError(
                f"{path} cannot be read ({error}); move it away to start anew"
            ) from None

    def close(self) -> None:
        """Commit and close."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._db.close()

    def note(self, key: str) -> Any:
        """Return what was noted under this key, or None."""
        row = self._db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_note(self, key: str, value: Any) -> None:
        """Keep a value that JSON can hold; None takes it away."""
        self._db.execute("DELETE FROM notes WHERE key = ?", (key,))
        if value is not None:
            self._db.execute("INSERT INTO notes VALUES (?, ?)", (key, json.dumps(value)))

    def update(self, files: Iterable[File]) -> Changes:
        """Take over what is there now, in one transaction.

        The rule: a new image is to be scored, after those that are known; one whose size or time
        of change differs is to be scored again; one that is gone is left out of the ranking, and
        keeps its score should it come back as it was. An unreadable one is tried again when
        anything about it has changed, its permissions included. Any difference takes the note
        WRITTEN away.
        """
        db = self._db
        db.execute(
            "CREATE TEMP TABLE found (name TEXT PRIMARY KEY, size, modified_ns, changed_ns) "
            "WITHOUT ROWID"
        )
        db.execute("BEGIN")
        source = iter(files)
        while page := list(islice(source, PAGE)):
            db.executemany("INSERT OR IGNORE INTO found VALUES (?, ?, ?, ?)", page)
        gone = db.execute(
            "UPDATE images SET present = 0 "
            "WHERE present AND NOT EXISTS (SELECT 1 FROM found WHERE found.name = images.name)"
        ).rowcount
        returned = db.execute(
            "UPDATE images SET present = 1 "
            "WHERE NOT present AND EXISTS (SELECT 1 FROM found WHERE found.name = images.name)"
        ).rowcount
        changed = db.execute(
            "UPDATE images SET size = found.size, modified_ns = found.modified_ns, "
            "changed_ns = found.changed_ns, score = NULL, reason = NULL FROM found "
            "WHERE found.name = images.name AND (found.size <> images.size "
            "OR found.modified_ns <> images.modified_ns "
            "OR (reason IS NOT NULL AND found.changed_ns <> images.changed_ns))"
        ).rowcount
        new = db.execute(
            "INSERT INTO images (name, size, modified_ns, changed_ns, present) "
            "SELECT name, size, modified_ns, changed_ns, 1 FROM found "
            "WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.name = found.name) ORDER BY name"
        ).rowcount
        if new or changed or gone or returned:
            self.set_note(WRITTEN, None)
        db.execute("COMMIT")
        db.execute("DROP TABLE found")
        return Changes(new, changed, gone)

    def counts(self) -> Counts:
        """Count the images that are there."""
        row = self._db.execute(
            "SELECT COUNT(*), COUNT(score), COUNT(reason) FROM images WHERE present"
        ).fetchone()
        return Counts(*row)

    def pending(self) -> Iterator[tuple[int, str]]:
        """Yield id and name of the images to be scored, in a fixed order, page by page."""
        last = 0
        while True:
            rows: list[tuple[int, str]] = self._db.execute(
                f"SELECT id, name FROM images WHERE id > ? AND {PENDING} ORDER BY id LIMIT ?",
                (last, PAGE),
            ).fetchall()
            if not rows:
                return
            yield from rows
            last = rows[-1][0]

    def record(
        self, ids: Sequence[int], scores: NDArray[np.float64], reasons: dict[int, str]
    ) -> None:
        """Take down scores, and reasons by position in `ids`; committed every few seconds."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN")
        rows = [
            (None, reasons[k], id_) if k in reasons else (score, None, id_)
            for k, (id_, score) in enumerate(zip(ids, scores.tolist(), strict=True))
        ]
        self._db.executemany("UPDATE images SET score = ?, reason = ? WHERE id = ?", rows)
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Make what was recorded durable."""
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._committed = time.monotonic()

    def ranked(self, *, limit: int | None = None) -> Iterator[tuple[str, float]]:
        """Yield name and score in decreasing order.

        Equal scores are ordered by a hash of the name, which neither the order of the images nor
        their number decides: an alphabetical order is often one of classes.
        """
        yield from self._db.execute(
            f"SELECT name, score FROM images WHERE present AND score IS NOT NULL {ORDER} LIMIT ?",
            (-1 if limit is None else limit,),
        )

    def least(self, limit: int) -> list[tuple[str, float]]:
        """Return name and score of the end of the ranking, in its order."""
        rows: list[tuple[str, float]] = self._db.execute(
            "SELECT name, score FROM images WHERE present AND score IS NOT NULL "
            "ORDER BY score, tie(name) DESC LIMIT ?",
            (limit,),
        ).fetchall()
        return rows[::-1]

    def scores(self) -> NDArray[np.float64]:
        """Return all scores in the order of `ranked`."""
        rows = self._db.execute(
            "SELECT score FROM images WHERE present AND score IS NOT NULL ORDER BY score DESC"
        )
        return np.fromiter((score for (score,) in rows), np.float64)

    def unreadable(self) -> Iterator[tuple[str, str]]:
        """Yield name and reason, by name."""
        yield from self._db.execute(
            "SELECT name, reason FROM images WHERE present AND reason IS NOT NULL ORDER BY name"
        )

    def clashes(self) -> Iterator[tuple[str, str]]:
        """Yield bare name and name of the ranked images whose bare name others have too."""
        yield from self._db.execute(
            "SELECT bare(name) AS short, name FROM images WHERE present AND score IS NOT NULL "
            "AND short IN (SELECT bare(name) AS b FROM images WHERE present AND score IS NOT NULL "
            "GROUP BY b HAVING COUNT(*) > 1) ORDER BY short, name"
        )


def _tie(name: str) -> int:
    digest = hashlib.blake2b(name.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
