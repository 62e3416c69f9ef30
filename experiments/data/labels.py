"""What a person, or a model as a first draft, says of one image: the form between all formats.

Boxes are (x_min, y_min, x_max, y_max), edges of pixels counted from 0, as everywhere here; each
format converts from and to its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from al_core.errors import ActiveLearningError
from experiments.settings.wording import one_line

Mask = NDArray[np.uint8]
MAX_SIDE = 10**9
"""Of an image, in pixels, far beyond any."""
NO_CLASS = 255
"""In a mask: no class."""


class UnusableFile(ActiveLearningError):
    """A file, or one record in it, that cannot be used; the text gives the reason in one line."""


class Box(NamedTuple):
    """One object."""

    class_name: str
    corners: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in pixels."""
    difficult: bool = False
    score: float | None = None
    """Of a model's draft, in 0..1."""


@dataclass(frozen=True, eq=False)
class Label:
    """What is said of one image: a class, boxes, a mask, or that it cannot be labeled.

    Attributes:
        class_name: Of a classified image.
        boxes: Of a detector's image; empty where there is no object.
        mask: uint8 (height, width), positions in the class names, 255 for none.
        refused: Whoever looked at it could not label it.
        score: Of a model's draft, in 0..1.
    """

    class_name: str | None = None
    boxes: tuple[Box, ...] | None = None
    mask: Mask | None = None
    refused: bool = False
    score: float | None = None


@dataclass(frozen=True)
class Rules:
    """What an annotation has to keep to.

    Attributes:
        kind: "classification", "detection" or "segmentation".
        class_names: The classes there are.
        refusal: The word that stands where a class would, when an image cannot be labeled.
        empty_is_answer: Whether an image without objects in a file of VOC, COCO or CVAT has been
            looked at. Their exports list images that nobody has opened in the same way.
        voc_origin: What Pascal VOC's XML calls the first pixel: 1 as VOC itself, labelImg and Label
            Studio do, 0 as CVAT does.
        colors: RGB -> class name, of masks in color; from CVAT's labelmap.txt.
    """

    kind: str
    class_names: tuple[str, ...]
    refusal: str = "cannot_label"
    empty_is_answer: bool = False
    voc_origin: int = 1
    colors: Mapping[tuple[int, int, int], str] = field(default_factory=dict)

    def check_class(self, name: str) -> str:
        """Return the name of a class that there is.

        Raises:
            UnusableFile: There is none of that name.
        """
        if name not in self.class_names:
            raise UnusableFile(
                f"there is no class {name!r}; there are {', '.join(self.class_names)}"
            )
        return name

    def classified(self, words: Iterable[str]) -> Label:
        """Return the label that one word, a class or the refusal, stands for.

        Raises:
            UnusableFile: Another number of words, or no such class.
        """
        given = list(dict.fromkeys(words))
        if self.refusal in given:
            return Label(refused=True)
        if self.kind != "classification":
            raise UnusableFile(f"{self.kind} takes no class for a whole image but {self.refusal}")
        if len(given) != 1:
            raise UnusableFile(f"one class is needed, there are {len(given)}: {', '.join(given)}")
        return Label(class_name=self.check_class(given[0]))

    def boxed(self, boxes: Sequence[Box]) -> Label | None:
        """Return the label that these objects are; None where it cannot be told from no answer.

        Raises:
            UnusableFile: A class that there is not.
        """
        if any(box.class_name == self.refusal for box in boxes):
            return Label(refused=True)
        for box in boxes:
            self.check_class(box.class_name)
        if not boxes and not self.empty_is_answer:
            return None
        return Label(boxes=tuple(boxes))

    def painted(
        self, shapes: Sequence[tuple[str, NDArray[np.bool_]]], size: tuple[int, int]
    ) -> Label | None:
        """Return the mask of shapes laid over each other, the last on top.

        What no shape covers is the class "background" if there is one, else of no class.

        Args:
            shapes: Class and bool (height, width) of each.
            size: (height, width) in pixels.

        Raises:
            UnusableFile: A class that there is not, or a shape of another size.
        """
        if any(name == self.refusal for name, _ in shapes):
            return Label(refused=True)
        if not shapes and not self.empty_is_answer:
            return None
        mask = np.full(size, self.uncovered, np.uint8)
        for name, covered in shapes:
            if covered.shape != size:
                raise UnusableFile(
                    f"a shape is drawn on {covered.shape[0]}x{covered.shape[1]} pixels, the image "
                    f"has {size[0]}x{size[1]}"
                )
            mask[covered] = self.class_names.index(self.check_class(name))
        return Label(mask=mask)

    @property
    def uncovered(self) -> int:
        """The class number of pixels that nobody painted."""
        named = "background" in self.class_names
        return self.class_names.index("background") if named else NO_CLASS


@dataclass(frozen=True, eq=False)
class Found:
    """What a file says of one image.

    Attributes:
        names: How the file calls the image, the most reliable first.
        label: What it says.
        size: (height, width) in pixels of the image that it was drawn on, if the file says so.
    """

    names: tuple[str, ...]
    label: Label
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Problem:
    """Something in a returned file that is not used: the place and the reason."""

    where: str
    why: str

    def __str__(self) -> str:
        return f"{one_line(self.where)}: {one_line(self.why)}"


@dataclass(frozen=True, eq=False)
class Item:
    """An image that is handed out.

    Attributes:
        name: Its path below the pool's folder, with "/".
        path: Its file.
        size: (height, width) in pixels, upright.
        score: Acquisition score, or None where nothing was scored.
        draft: What the model makes of it, to be corrected, or None.
    """

    name: str
    path: Path
    size: tuple[int, int]
    score: float | None = None
    draft: Label | None = None


def stated_size(height: object, width: object) -> tuple[int, int] | None:
    """Return the size that a file states, or None where it states none that can be."""
    # A whole number of more digits than pixels could have is none; its text would take long too.
    given = [side if isinstance(side, (int, str)) else "" for side in (height, width)]
    if any(isinstance(side, int) and not 0 < side <= MAX_SIDE for side in given):
        return None
    texts = [str(side).strip() for side in given]
    sizes = [int(text) if text.isdecimal() and len(text) <= 9 else 0 for text in texts]
    return (sizes[0], sizes[1]) if min(sizes) > 0 else None


def number(record: Mapping[str, Any], key: str) -> float:
    """Return a finite number of a record.

    Raises:
        UnusableFile: It is missing or none.
    """
    try:
        value = float(record[key])
    except (KeyError, TypeError, ValueError):
        raise UnusableFile(f"{key} must be a number, it is {record.get(key)!r}") from None
    if not np.isfinite(value):
        raise UnusableFile(f"{key} must be a number, it is {value}")
    return value
