"""The label of one image, by a person or as a model's draft: the form between all formats.

Boxes are (x_min, y_min, x_max, y_max), edges of pixels counted from 0, as everywhere here, and
points are (x, y) likewise, so that the middle of the first pixel is (0.5, 0.5); each format
converts from and to its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from al_core.errors import ActiveLearningError
from experiments.settings.wording import one_line

Mask = NDArray[np.uint8]
Size = tuple[int, int]
"""(height, width) in pixels."""
NO_CLASS = 255
"""In a mask: no class."""
MISSING, HIDDEN, VISIBLE = 0, 1, 2
"""COCO's visibility of a joint: not annotated (it may lie outside the image), annotated although
something covers it, and annotated in plain sight."""
MAX_SIDE = 10**6
"""Longest side of an image, in pixels: far beyond what cameras and most formats have."""
MAX_COVERAGE = 1_000
"""Limit for the summed areas of an image's shapes, in areas of the image. Drawing takes time in
proportion."""


class UnusableFile(ActiveLearningError):
    """A file, or one record in it, that cannot be used; the text gives the reason in one line."""


class Box(NamedTuple):
    """One object."""

    class_name: str
    corners: tuple[float, float, float, float]
    """x_min, y_min, x_max, y_max in pixels."""
    difficult: bool = False
    score: float | None = None
    """Score of a model's draft, in 0..1."""


class Keypoint(NamedTuple):
    """One joint of a figure, or another named point of an object."""

    name: str
    x: float
    """In pixels, as `y`."""
    y: float
    visibility: int = VISIBLE
    """`HIDDEN` or `VISIBLE`; a joint that is `MISSING` has no keypoint."""
    score: float | None = None
    """Score of a model's draft, in 0..1."""


class Patch(NamedTuple):
    """The pixels that a shape covers."""

    top: int
    left: int
    covered: NDArray[np.bool_]
    """bool (height, width), wholly inside the image."""


@dataclass(frozen=True, eq=False)
class Label:
    """The label of one image: a class, boxes, a mask, keypoints, or a refusal.

    Attributes:
        class_name: Class of a classified image.
        boxes: Objects of a detector's image; empty where there is none.
        mask: uint8 (height, width), positions in the class names, 255 for none.
        keypoints: Joints of the image's figure, each name at most once; empty where none is seen.
        refused: Whether the person who looked at the image could not label it.
        score: Score of a model's draft, in 0..1.
    """

    class_name: str | None = None
    boxes: tuple[Box, ...] | None = None
    mask: Mask | None = None
    keypoints: tuple[Keypoint, ...] | None = None
    refused: bool = False
    score: float | None = None


@dataclass(frozen=True, eq=False)
class Shape:
    """Something painted, not drawn yet.

    Attributes:
        class_name: Its class.
        area: Upper bound of the pixels of its patch.
        draw: Returns the patch; raises UnusableFile where the shape is damaged.
    """

    class_name: str
    area: int
    draw: Callable[[], Patch]


Drawing = Callable[[], Label]
"""A label that takes memory in proportion to its image: only drawn once the size is known to be
that of the image. Raises UnusableFile where a shape is damaged."""


@dataclass(frozen=True, eq=False)
class Relative:
    """A label in fractions of the sides of its image, in a file that does not state the sides.

    Attributes:
        on: Returns the label on an image of (height, width) pixels; raises UnusableFile where the
            label is damaged.
    """

    on: Callable[[Size], Label | Drawing]


def _ignored(given: str, meant: str) -> None:
    pass


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


@dataclass(frozen=True)
class Rules:
    """Rules for annotations.

    Attributes:
        kind: "classification", "detection", "segmentation" or "pose".
        class_names: The classes; of pose, the joints.
        refusal: The word that stands for a class where an image cannot be labeled.
        empty_is_answer: Whether an image without objects in a file of VOC, COCO or CVAT counts as
            an answer. Their exports list images that nobody has opened in the same way.
        voc_origin: Coordinate of the first pixel in Pascal VOC's XML: 1 in VOC itself, labelImg and
            Label Studio, 0 in CVAT.
        colors: RGB -> class name, of masks in color; from CVAT's labelmap.txt.
        notice: Called with a name in a file, and with the class that it was taken for although it
            differs from it in case or in surrounding blanks.
    """

    kind: str
    class_names: tuple[str, ...]
    refusal: str = "cannot_label"
    empty_is_answer: bool = False
    voc_origin: int = 1
    colors: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    notice: Callable[[str, str], object] = field(default=_ignored, compare=False, repr=False)

    def meant(self, name: str) -> str | None:
        """Return the class, or the refusal, that a name in a file means; None if there is none.

        Case and surrounding blanks only matter between classes that differ in nothing else.
        """
        found = self._alike(name)
        if found is not None and found != name:
            self.notice(name, found)
        return found

    def _alike(self, name: str) -> str | None:
        known = (*self.class_names, self.refusal)
        if name in known:
            return name
        alike = [each for each in known if _plain(each) == _plain(name)]
        return alike[0] if len(alike) == 1 else None

    def is_refusal(self, name: str) -> bool:
        """Tell whether a name in a file is the refusal."""
        return self._alike(name) == self.refusal

    def check_class(self, name: str) -> str:
        """Return the name of the class that is meant.

        Raises:
            UnusableFile: No class has this name.
        """
        found = self.meant(name)
        if found is None or found == self.refusal:
            raise UnusableFile(
                f"there is no class {one_line(repr(name), 80)}; there are "
                f"{', '.join(self.class_names)}"
            )
        return found

    def classified(self, words: Iterable[str]) -> Label:
        """Return the label for one word, a class or the refusal.

        Raises:
            UnusableFile: There is no word, there are several, or the class is unknown.
        """
        given = list(dict.fromkeys(words))
        if any(map(self.is_refusal, given)):
            return Label(refused=True)
        if self.kind != "classification":
            raise UnusableFile(f"{self.kind} takes no class for a whole image but {self.refusal}")
        if len(given) != 1:
            raise UnusableFile(f"one class is needed, there are {len(given)}: {', '.join(given)}")
        return Label(class_name=self.check_class(given[0]))

    def boxed(self, boxes: Sequence[Box]) -> Label | None:
        """Return the label for objects; None where the image need not have been looked at.

        Raises:
            UnusableFile: A class is unknown, or a corner is not a finite number.
        """
        if any(self.is_refusal(box.class_name) for box in boxes):
            return Label(refused=True)
        boxes = [box._replace(class_name=self.check_class(box.class_name)) for box in boxes]
        for box in boxes:
            if not all(map(isfinite, box.corners)):
                raise UnusableFile(f"a box of a {box.class_name} has no four finite corners")
        if not boxes and not self.empty_is_answer:
            return None
        return Label(boxes=tuple(boxes))

    def posed(self, figures: Sequence[Sequence[Keypoint]]) -> Label | None:
        """Return the label for the figures of an image, of which there may be one.

        Args:
            figures: Their joints; missing ones left out.

        Returns:
            The label; None where there is no joint and the image need not have been looked at.

        Raises:
            UnusableFile: There are several figures, a joint is unknown or there twice, or a
                coordinate is not a finite number.
        """
        if len(figures) > 1:
            raise UnusableFile(f"it has {len(figures)} figures, and one is learned: keep one")
        keypoints = [
            each._replace(name=self.check_class(each.name)) for each in (figures or [()])[0]
        ]
        for position, each in enumerate(keypoints):
            if each.name in {other.name for other in keypoints[:position]}:
                raise UnusableFile(f"{each.name} is there twice")
            if not (isfinite(each.x) and isfinite(each.y)):
                raise UnusableFile(f"{each.name} has no two finite coordinates")
        if not keypoints and not self.empty_is_answer:
            return None
        order = {name: position for position, name in enumerate(self.class_names)}
        return Label(keypoints=tuple(sorted(keypoints, key=lambda each: order[each.name])))

    def painted(self, shapes: Sequence[Shape], size: Size) -> Label | Drawing | None:
        """Return the label for shapes laid over each other, the last on top.

        Pixels that no shape covers are of the class "background" if there is one, else of none.

        Args:
            shapes: The shapes; none of them is drawn before the drawing is called.
            size: (height, width) of the image in pixels.

        Returns:
            A drawing; a label for a refusal; None where the image need not have been looked at.

        Raises:
            UnusableFile: A class is unknown, or the shapes would take too long to draw.
        """
        if any(self.is_refusal(shape.class_name) for shape in shapes):
            return Label(refused=True)
        if not shapes and not self.empty_is_answer:
            return None
        numbers = [self.class_names.index(self.check_class(shape.class_name)) for shape in shapes]
        if sum(shape.area for shape in shapes) > MAX_COVERAGE * size[0] * size[1]:
            raise UnusableFile(f"its shapes cover the image more than {MAX_COVERAGE} times")

        def drawn() -> Label:
            mask = np.full(size, self.uncovered, np.uint8)
            for number, shape in zip(numbers, shapes, strict=True):
                top, left, covered = shape.draw()
                height, width = covered.shape
                mask[top : top + height, left : left + width][covered] = number
            return Label(mask=mask)

        return drawn

    @property
    def uncovered(self) -> int:
        """The class number of pixels that nobody painted."""
        named = "background" in self.class_names
        return self.class_names.index("background") if named else NO_CLASS


@dataclass(frozen=True, eq=False)
class Found:
    """The label that a file has for one image.

    Attributes:
        names: Names of the image in the file, the most reliable first.
        label: The label, a drawing of it, or a relative one.
        size: (height, width) in pixels of the image that was drawn on, if the file states it; a
            drawing always has one.
    """

    names: tuple[str, ...]
    label: Label | Drawing | Relative
    size: Size | None = None


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
        draft: The model's draft, to be corrected, or None.
    """

    name: str
    path: Path
    size: Size
    score: float | None = None
    draft: Label | None = None


def stated_size(height: object, width: object) -> Size | None:
    """Return the size that a file states as numbers or text, or None where it is no size."""
    sides = _side(height), _side(width)
    return (sides[0], sides[1]) if min(sides) > 0 else None


def _side(value: object) -> int:
    """Return a length in pixels, 0 where it is none."""
    if isinstance(value, str):
        text = value.strip()
        # More digits than a side can have are not even turned into a number.
        value = int(text) if text.isascii() and text.isdecimal() and len(text) <= 9 else 0
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 < value <= MAX_SIDE else 0  # type: ignore[operator,return-value]


def number(record: Mapping[str, Any], key: str) -> float:
    """Return a finite number of a record, given as a number or as text.

    Raises:
        UnusableFile: It is missing or no number.
    """
    value = record.get(key)
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        found = float(value)
    except (ValueError, OverflowError):
        raise UnusableFile(f"{key} must be a number, it is {shown(value)}") from None
    if not isfinite(found):
        raise UnusableFile(f"{key} must be a finite number, it is {found}")
    return found


def shown(value: object) -> str:
    """Return a value of a file for a message: short, in one line."""
    if isinstance(value, int) and abs(value) > 10**60:  # Python refuses to print longer ones
        return "a number of very many digits"
    return one_line(repr(value), 60)
