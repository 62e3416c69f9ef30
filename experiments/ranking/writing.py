"""The tables of a ranking: its order, the file to upload, the query, and the unreadable images.

Each is moved into its place complete. Names in `ranking.csv`, `query.csv` and `quarantine.csv` are
paths below the folder of images, or those of the list; `upload.csv` has bare file names, since
annotation tools match nothing else.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from al_core.entropies import bare_name, upload_values, write_ranking_csv
from al_core.files import atomic_write
from experiments.data.duplicate_groups import COLUMNS, TABLE
from experiments.ranking.store import Store

logger = logging.getLogger(__name__)

RANKING, UPLOAD, QUERY = "ranking.csv", "upload.csv", "query.csv"
QUARANTINE, CLASHES = "quarantine.csv", "clashes.csv"


def write_tables(store: Store, folder: Path, *, budget: int, unnamable: Sequence[str]) -> None:
    """Write all tables, and remove quarantine and clashes of an earlier time if there are none now.

    Args:
        store: A complete ranking.
        folder: Folder of the tables.
        budget: Number of images, from the first on, that make the query.
        unnamable: Escaped names of the files that no CSV can name.
    """
    values = store.scores()
    write_ranking_csv(
        folder / RANKING,
        (name for name, _ in store.ranked()),
        (score for _, score in store.ranked()),
    )
    write_ranking_csv(
        folder / UPLOAD,
        (bare_name(name) for name, _ in store.ranked()),
        map(int, upload_values(values)),
    )
    query = ((rank, *row) for rank, row in enumerate(store.ranked(limit=budget)))
    write_table(folder / QUERY, ("rank", "name", "score"), query)
    unreadable = chain(
        store.unreadable(), ((name, "its name is not UTF-8") for name in sorted(unnamable))
    )
    write_table(folder / QUARANTINE, ("name", "reason"), unreadable, keep_empty=False)
    left_out = ((name, of, f"{share:.4f}") for name, of, share in store.near_duplicates())
    write_table(folder / TABLE, COLUMNS, left_out, keep_empty=False)
    write_table(folder / CLASHES, ("bare_name", "name"), store.clashes(), keep_empty=False)
    if (folder / CLASHES).exists():
        (_, first), (_, second) = list(store.clashes())[:2]
        logger.warning(
            "some file names are in several folders (%s and %s): in %s the annotation tool cannot "
            "tell them apart; all are in %s. Rename them before uploading",
            first, second, UPLOAD, folder / CLASHES,
        )  # fmt: skip


def write_table(
    path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], *, keep_empty: bool = True
) -> None:
    """Write a CSV; without `keep_empty`, remove it where there are no rows."""
    left = iter(rows)
    first = next(left, None)
    if first is None and not keep_empty:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(chain([] if first is None else [first], left))
