"""Results of one model on the test set, class by class: the contents of `evaluation/cycle_00.json`.

Sources: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), for the reliability
diagram and the expected calibration error, with bins of equal width.

Like the schema of `cycles.csv`, this module does not import torch: reports read the files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FORMAT = 1
OBJECTS, BACKGROUND = "objects", "background"
"""The unit of detections, and what their confusion matrix calls everything that is no object."""
NUM_BINS = 15
"""Bins of the reliability diagram, as many as Guo et al. have."""
RECALLS = np.linspace(0, 1, 101)
"""Recalls at which precision-recall curves are kept."""
_DIGITS = 6


@dataclass(frozen=True, eq=False)
class Calibration:
    """Sums over the predictions of each confidence bin; bins are of equal width over 0..1.

    Attributes:
        counts: (NUM_BINS,) predictions.
        confidence: (NUM_BINS,) sum of their confidences.
        right: (NUM_BINS,) number of right ones among them.
    """

    counts: FloatArray
    confidence: FloatArray
    right: FloatArray

    @property
    def ece(self) -> float:
        """Expected calibration error in percent: the mean gap of confidence and share of right
        predictions over the bins, weighted by their counts. NaN without a prediction.
        """
        total = float(self.counts.sum())
        gap = np.abs(self.confidence - self.right).sum()
        return 100.0 * float(gap) / total if total else math.nan

    def __add__(self, other: Calibration) -> Calibration:
        return Calibration(
            self.counts + other.counts,
            self.confidence + other.confidence,
            self.right + other.right,
        )


def calibration(confidence: FloatArray, right: NDArray[np.bool_]) -> Calibration:
    """Return the bins of predictions, (n,) confidences in 0..1 and whether each is right."""
    bins = np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1)

    def total(values: NDArray[Any] | None) -> FloatArray:
        return np.bincount(bins, values, minlength=NUM_BINS).astype(np.float64)

    return Calibration(total(None), total(confidence), total(right))


@dataclass(frozen=True)
class Confused:
    """A test image behind a cell of the confusion matrix.

    Attributes:
        true: Number of the true class.
        predicted: Number of the predicted class.
        image: Position of the image in the test set.
        name: Its name; empty until it is known.
        file: Its picture beside the JSON file; empty where none was drawn.
    """

    true: int
    predicted: int
    image: int
    name: str = ""
    file: str = ""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's results on the test set.

    Attributes:
        class_names: k names.
        score: Name of the measure of a class: "accuracy", "AP" or "IoU".
        scores: (k,) in percent; NaN for a class without an example in the test set.
        unit: The things that are counted: "images", "objects" or "pixels".
        counts: (k,) number of these by true class.
        confusion: (k, k) true against predicted class, in the unit. Of objects it is
            (k + 1, k + 1), and the last class is the background: what was missed, or invented.
        precision: (k, len(RECALLS)) precision at each recall, NaN for a class without an object;
            None where there are no boxes.
        calibration: Confidence against share of right predictions.
        confused: Images behind cells of the confusion matrix, those of the largest cells first.
    """

    class_names: tuple[str, ...]
    score: str
    scores: FloatArray
    unit: str
    counts: IntArray
    calibration: Calibration
    confusion: IntArray | None = None
    precision: FloatArray | None = None
    confused: tuple[Confused, ...] = ()

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the rows and columns of the confusion matrix."""
        return (*self.class_names, *([BACKGROUND] if self.has_background else []))

    @property
    def has_background(self) -> bool:
        """True for detections: the confusion matrix has a last row and column for background."""
        return self.unit == OBJECTS

    def to_json(self) -> str:
        """Return the text of the file."""
        bins = self.calibration
        content: dict[str, Any] = {
            "format": FORMAT,
            "class_names": list(self.class_names),
            "score": self.score,
            "unit": self.unit,
            "scores": _numbers(self.scores),
            "counts": self.counts.tolist(),
            "calibration": {
                "counts": _numbers(bins.counts),
                "confidence": _numbers(bins.confidence),
                "right": _numbers(bins.right),
                "ece": _number(bins.ece),
            },
            "confused": [vars(each) for each in self.confused],
        }
        if self.confusion is not None:
            true, predicted = np.nonzero(self.confusion)
            cells = np.stack([true, predicted, self.confusion[true, predicted]], 1)
            content["confusion"] = cells.tolist()  # of 1,000 classes most cells are empty
        if self.precision is not None:
            content["precision"] = [_numbers(row, digits=4) for row in self.precision]
        return json.dumps(content, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Evaluation:
        """Read the text of a file.

        Raises:
            ValueError: The text is damaged, or of another version.
        """
        try:
            content = json.loads(text)
            if content["format"] != FORMAT:
                raise ValueError(f"its format is {content['format']}, not {FORMAT}")
            names = tuple(str(name) for name in content["class_names"])
            bins = content["calibration"]
            confusion = precision = None
            if "confusion" in content:
                cells = np.array(content["confusion"], np.int64).reshape(-1, 3)
                if (cells < 0).any():
                    raise ValueError("its confusion matrix has negative numbers")
                side = len(names) + (content["unit"] == OBJECTS)
                confusion = np.zeros((side, side), np.int64)
                confusion[cells[:, 0], cells[:, 1]] = cells[:, 2]
            if "precision" in content:
                rows = [_array(row) for row in content["precision"]]
                precision = np.stack(rows) if rows else np.zeros((0, len(RECALLS)))
            found = cls(
                class_names=names,
                score=str(content["score"]),
                scores=_array(content["scores"]),
                unit=str(content["unit"]),
                counts=np.array(content["counts"], np.int64),
                calibration=Calibration(
                    *(_array(bins[key]) for key in ("counts", "confidence", "right"))
                ),
                confusion=confusion,
                precision=precision,
                confused=tuple(Confused(**each) for each in content["confused"]),
            )
        except (
            KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError,
        ) as error:  # fmt: skip
            raise ValueError(f"{type(error).__name__}: {error}") from None
        found._check()
        return found

    def _check(self) -> None:
        """Raise ValueError unless shapes and numbers of classes are as the attributes say."""
        k = len(self.class_names)
        if self.scores.shape != (k,) or self.counts.shape != (k,):
            raise ValueError("it has not one score and count for each class")
        if any(each.shape != (NUM_BINS,) for each in vars(self.calibration).values()):
            raise ValueError(f"its calibration has not {NUM_BINS} bins")
        if self.precision is not None and self.precision.shape != (k, len(RECALLS)):
            raise ValueError(f"a class has not {len(RECALLS)} precisions")
        if self.confused and self.confusion is None:
            raise ValueError("it has confused images without a confusion matrix")
        for each in self.confused:
            classes, texts = (each.true, each.predicted), (each.name, each.file)
            if not all(isinstance(n, int) and 0 <= n < len(self.answers) for n in classes):
                raise ValueError(f"a confused image has the classes {classes}, of {k}")
            if not all(isinstance(text, str) for text in texts):
                raise ValueError(f"a confused image has the names {texts}")

    def with_images(self, positions: IntArray, names: Sequence[str]) -> Evaluation:
        """Replace places in the order of evaluation by positions in the test set, and name them.

        Args:
            positions: The evaluated images, in their order.
            names: Names of all images of the test set.
        """
        found = [int(positions[each.image]) for each in self.confused]
        return replace(
            self,
            confused=tuple(
                replace(each, image=at, name=names[at])
                for each, at in zip(self.confused, found, strict=True)
            ),
        )


def images_with_most(
    cells: Sequence[Sequence[tuple[int, int, int]]], limit: int
) -> dict[tuple[int, int], list[int]]:
    """Return the images of each cell of a confusion matrix that have the most of it.

    Args:
        cells: True class, predicted class and number, for each cell of each image.
        limit: Number of images of a cell at most.
    """
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for image, own in enumerate(cells):
        for true, predicted, number in own:
            found.setdefault((true, predicted), []).append((-number, image))
    return {cell: [image for _, image in sorted(those)[:limit]] for cell, those in found.items()}


def most_confused(
    confusion: IntArray, images: Mapping[tuple[int, int], Sequence[int]], *, limit: int
) -> tuple[Confused, ...]:
    """Return images behind the largest cells off the diagonal, evenly over these cells.

    Args:
        confusion: (k, k) true against predicted class.
        images: Images of each cell, the clearest first.
        limit: Number of images at most.
    """
    cells = sorted(
        (cell for cell in images if cell[0] != cell[1]), key=lambda cell: (-confusion[cell], cell)
    )[:limit]
    rounds = max((len(images[cell]) for cell in cells), default=0)
    chosen = [
        (rank, place, images[cell][rank])
        for rank in range(rounds)
        for place, cell in enumerate(cells)
        if rank < len(images[cell])
    ][:limit]
    return tuple(Confused(*cells[place], image) for _, place, image in
                 sorted(chosen, key=lambda each: (each[1], each[0])))  # fmt: skip


def _number(value: float, digits: int = _DIGITS) -> float | None:
    return None if math.isnan(value) else round(value, digits)


def _numbers(values: FloatArray, digits: int = _DIGITS) -> list[float | None]:
    return [_number(value, digits) for value in values.tolist()]


def _array(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], np.float64)
