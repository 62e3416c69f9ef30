"""Queries that were made earlier, by another run, another tool or by hand."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from al_core.contracts import Learner, Query
from al_core.errors import InvalidSetting
from al_core.pool import IndexArray, Pool, as_indices
from al_core.strategies.scoring import check_budget


class Precomputed:
    """The first samples of a list that have no label yet.

    Args:
        source: A run folder, whose query of the same cycle is repeated, or a file of positions in
            the training set: a CSV with a column `index` (such as `queries/cycle_00.csv` of a run
            folder), a text file with one position per line, or a `.npy` array.

    Raises:
        InvalidSetting: The folder or file does not exist, or the file holds no list.
    """

    def __init__(self, source: str | Path) -> None:
        self.source = Path(source).expanduser()
        if not self.source.exists():
            raise InvalidSetting(
                f"strategy.query.source: there is no {self.source}; give a run folder, a CSV with "
                "a column index, a text file of indices or a .npy file"
            )
        if self.source.is_file():  # a bad file fails before anything is trained
            _read(self.source)

    def select(
        self,
        pool: Pool,
        candidates: IndexArray,
        learner: Learner,
        budget: int,
        rng: np.random.Generator,
    ) -> Query:
        """Return the first `budget` listed samples without a label, in the order of the list.

        Candidates are ignored, because a random subset of the pool may lack the listed samples.

        Raises:
            InvalidSetting: The list cannot be read, names no sample of the pool, or is too short.
        """
        check_budget(budget, candidates)
        if not budget:
            return Query(np.empty(0, np.int64))
        file = self.source
        if file.is_dir():
            file = file / "queries" / f"cycle_{max(pool.cycle, 0):02d}.csv"
        try:
            listed = as_indices(_read(file), num_samples=pool.num_samples)
        except FileNotFoundError:
            raise InvalidSetting(
                f"{self.source} has no query of this cycle: there is no {file}"
            ) from None
        except InvalidSetting:
            raise
        except ValueError as error:
            raise InvalidSetting(f"{file} holds no list of indices: {error}") from None
        listed = listed[np.isin(listed, pool.unlabeled)]
        if listed.size < budget:
            raise InvalidSetting(
                f"{file} lists {listed.size} samples without a label, fewer than the query of "
                f"{budget}"
            )
        return Query(listed[:budget])


def _read(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            return np.asarray(np.load(file, allow_pickle=False))
        with open(file, encoding="utf-8", newline="") as lines:
            if file.suffix != ".csv":
                return np.array([int(line) for line in lines if line.strip()], np.int64)
            reader = csv.DictReader(lines)
            if "index" not in (reader.fieldnames or ()):
                raise ValueError("it has no column index")
            return np.array([int(row["index"]) for row in reader], np.int64)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidSetting(f"{file} holds no list of indices: {error}") from None
