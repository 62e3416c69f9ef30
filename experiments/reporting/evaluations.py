"""Reading of `evaluation/` in run folders: results by class, cycle by cycle.

Runs of older versions have no such folder; everything here is then empty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

import numpy as np

from experiments.metrics.evaluation import Calibration, Evaluation
from experiments.reporting.grouping import Experiment
from experiments.reporting.runs import ReportError, Run, one_line

FOLDER = "evaluation"


@dataclass(frozen=True)
class ClassResults:
    """Results by class of the runs of one strategy; only those whose classes are the same.

    Attributes:
        by_seed: Evaluations by seed and cycle.
        folders: Where the files of each seed are.
    """

    by_seed: Mapping[int, Mapping[int, Evaluation]]
    folders: Mapping[int, Path]

    @property
    def cycles(self) -> list[int]:
        """The cycles that some seed has, in ascending order."""
        return sorted({cycle for by_cycle in self.by_seed.values() for cycle in by_cycle})

    def at(self, cycle: int) -> dict[int, Evaluation]:
        """Return the evaluations of a cycle by seed."""
        return {s: by[cycle] for s, by in self.by_seed.items() if cycle in by}

    @property
    def last(self) -> dict[int, Evaluation]:
        """The evaluations of the last cycle by seed."""
        return self.at(self.cycles[-1])

    @property
    def any(self) -> Evaluation:
        """One of the evaluations, for what all of them share."""
        return next(iter(self.last.values()))

    def calibration(self) -> Calibration:
        """Return the calibration of the last cycle, over the predictions of all seeds."""
        return reduce(add, (each.calibration for each in self.last.values()))


def read_evaluations(run: Run) -> dict[int, Evaluation]:
    """Return the evaluations of a run by cycle, for the cycles that are on record.

    Raises:
        ReportError: A file is damaged.
    """
    found = {}
    for path in sorted((run.folder / FOLDER).glob("cycle_*.json")):
        match = re.fullmatch(r"cycle_(\d+)", path.stem)
        if match is None or int(match[1]) not in run.cycles:
            continue
        try:
            found[int(match[1])] = Evaluation.from_json(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ReportError(f"{path}: not an evaluation: {one_line(error)}") from error
    return found


def class_results(experiment: Experiment) -> dict[str, ClassResults]:
    """Return the results by class of each strategy that has any.

    Runs whose classes differ from those of the first are left out: they cannot be averaged.
    """
    names: tuple[str, ...] | None = None
    results = {}
    for label, runs in experiment.runs.items():
        by_seed = {}
        for seed, run in runs.items():
            evaluations = read_evaluations(run)
            if not evaluations:
                continue
            names = names or next(iter(evaluations.values())).class_names
            if all(each.class_names == names for each in evaluations.values()):
                by_seed[seed] = evaluations
        if by_seed:
            folders = {seed: runs[seed].folder / FOLDER for seed in by_seed}
            results[label] = ClassResults(by_seed, folders)
    return results


def class_scores(evaluations: Sequence[Evaluation]) -> list[list[float]]:
    """Return the scores of each class over several evaluations, those that are defined."""
    table = np.array([each.scores for each in evaluations])
    return [column[~np.isnan(column)].tolist() for column in table.T]
