"""Results by class as the page shows them: a table, the confusion matrix, sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.metrics.evaluation import BACKGROUND, Confused, Evaluation, IntArray
from experiments.reporting.evaluations import FOLDER, ClassResults, class_scores
from experiments.reporting.gallery import is_file_in
from experiments.reporting.numbers import NONE, count, estimate_text, listed
from experiments.reporting.statistics import mean_interval
from experiments.reporting.summary import Summary
from experiments.reporting.text_table import Table

MOST_CLASSES = 24
"""Classes in a confusion matrix at most: those with the most errors."""
_DECIMALS = 1


@dataclass(frozen=True)
class Cell:
    """A cell of the confusion matrix.

    Attributes:
        text: Its count; empty for none.
        share: Its share of the row, 0..1.
        right: It lies on the diagonal.
        about: The cell in words.
        anchor: The pictures behind it on the page; empty where there are none.
    """

    text: str
    share: float
    right: bool
    about: str
    anchor: str = ""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        names: The classes that it shows.
        rows: The cells of each.
        unit: What is counted.
        left_out: The number of classes that it does not show.
        background: Whether the background is among them.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    unit: str
    left_out: int
    background: bool


@dataclass(frozen=True)
class Mistake:
    """A cell of the confusion matrix with the images behind it.

    Attributes:
        cell: Numbers of the true and the predicted class.
        anchor: Its pictures on the page.
        about: The cell in words.
        folder: The folder of the pictures' files.
        images: The images.
    """

    cell: tuple[int, int]
    anchor: str
    about: str
    folder: Path
    images: tuple[Confused, ...]


def class_table(summary: Summary) -> Table | None:
    """Return a row for each class: of one strategy its score at each cycle, of several the score of
    each at the last cycle that the area has, means over the seeds.
    """
    results = summary.classes
    if not results:
        return None
    one = next(iter(results.values()))
    names, unit = one.any.class_names, one.any.unit
    if len(summary.experiment.runs) == 1:
        runs = next(iter(summary.experiment.runs.values())).values()
        labels = {cycle: n for run in runs for cycle, n in run.series("num_labeled").items()}
        columns = {count(labels[cycle]): one.at(cycle) for cycle in one.cycles}
        first = f"{one.any.score} in %, by labeled images"
    else:
        last = summary.cycles[-1] if summary.cycles else one.cycles[-1]
        columns = {label: result.at(last) for label, result in results.items()}
        first = f"{one.any.score} in %, after cycle {last}"
    scores = [class_scores(list(each.values())) for each in columns.values() if each]
    heads = [head for head, each in columns.items() if each]
    rows = [
        (
            name,
            count(int(one.any.counts[k])),
            *(
                estimate_text(mean_interval(column[k]), _DECIMALS) if column[k] else NONE
                for column in scores
            ),
        )
        for k, name in enumerate(names)
    ]
    return Table((first, f"test {unit}", *heads), tuple(rows))


def calibration_sentence(summary: Summary) -> str:
    """Return the expected calibration error of each strategy, and how to read it."""
    errors = {la: result.calibration() for la, result in summary.classes.items()}
    errors = {label: each for label, each in errors.items() if each.counts.sum()}
    if not errors:
        return ""
    several = len(summary.experiment.runs) > 1
    texts = [
        f"{label + ': ' if several else ''}{each.ece:.1f} points" for label, each in errors.items()
    ]
    text = f"Expected calibration error {listed(texts)}."
    if not several:
        (each,) = errors.values()
        gap = float((each.confidence - each.right).sum() / each.counts.sum())
        if abs(gap) >= 0.01:
            how = (
                "more confident than it is right" if gap > 0 else "right more often than it claims"
            )
            text += f" On average the model is {how}."
    return text


def weakest(evaluations: Sequence[Evaluation]) -> tuple[str, float, str, float] | None:
    """Return name and mean score of the worst and of the best class; None for less than two."""
    means = {
        name: float(np.mean(scores))
        for name, scores in zip(evaluations[0].class_names, class_scores(evaluations), strict=True)
        if scores
    }
    if len(means) < 2:
        return None
    worst, best = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    return worst, means[worst], best, means[best]


def mistakes(result: ClassResults, prefix: str) -> list[Mistake]:
    """Return the cells with pictures, of the first seed that has any, the largest cells first."""
    for seed, evaluation in result.last.items():
        found: dict[tuple[int, int], list[Confused]] = {}
        folder = result.folders[seed]
        for each in evaluation.confused:
            if each.file and is_file_in(folder.parent.resolve() / FOLDER, folder / each.file):
                found.setdefault((each.true, each.predicted), []).append(each)
        if found:
            confusion = evaluation.confusion
            assert confusion is not None
            return [
                Mistake(
                    (true, predicted),
                    f"{prefix}-{true}-{predicted}",
                    _about(evaluation, confusion, true, predicted),
                    folder,
                    tuple(images),
                )
                for (true, predicted), images in found.items()
            ]
    return []


def matrix(result: ClassResults, shown: Sequence[Mistake]) -> Matrix | None:
    """Return the confusion matrix of the last cycle, summed over the seeds."""
    parts = [each.confusion for each in result.last.values() if each.confusion is not None]
    if not parts or not sum(int(part.sum()) for part in parts):
        return None
    evaluation, confusion = result.any, np.sum(parts, axis=0)
    errors = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    kept = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES]).tolist()
    anchors = {each.cell: each.anchor for each in shown}
    rows = tuple(
        tuple(
            Cell(
                count(int(confusion[t, p])) if confusion[t, p] else "",
                _share(confusion, t, p),
                t == p,
                _about(evaluation, confusion, t, p),
                anchors.get((t, p), ""),
            )
            for p in kept
        )
        for t in kept
    )
    names = tuple(evaluation.answers[k] for k in kept)
    left_out = len(evaluation.answers) - len(kept)
    return Matrix(names, rows, evaluation.unit, left_out, evaluation.has_background)


def _about(evaluation: Evaluation, confusion: IntArray, true: int, predicted: int) -> str:
    names, n = evaluation.answers, int(confusion[true, predicted])
    if names[true] == BACKGROUND and evaluation.has_background:
        share = f"{n / max(int(confusion[:, predicted].sum()), 1):.0%}"
        what = names[predicted]
        return f"{what} seen where there is none: {count(n)} detections, {share} of those of {what}"
    share = f"{count(n)} {evaluation.unit}, {_share(confusion, true, predicted):.0%}"
    if true == predicted:
        return f"{names[true]} recognized: {share} of {names[true]}"
    if names[predicted] == BACKGROUND and evaluation.has_background:
        return f"{names[true]} missed: {share} of {names[true]}"
    return f"{names[true]} taken for {names[predicted]}: {share} of {names[true]}"


def _share(confusion: IntArray, true: int, predicted: int) -> float:
    return float(confusion[true, predicted] / max(confusion[true].sum(), 1))


def by_class(result: ClassResults) -> Mapping[str, Mapping[int, Mapping[int, float]]]:
    """Return the defined scores by class name, seed and cycle."""
    names = result.any.class_names
    return {
        name: {
            seed: {
                cycle: float(each.scores[k])
                for cycle, each in by_cycle.items()
                if not np.isnan(each.scores[k])
            }
            for seed, by_cycle in result.by_seed.items()
        }
        for k, name in enumerate(names)
    }
