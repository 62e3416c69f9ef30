"""The forms in which requests and answers are kept as JSON, checked whenever they are read.

A run folder may be somebody else's: every path in it stays in its folder, and sizes are possible.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from al_core.files import atomic_write
from experiments.data.labels import MAX_SIDE, Box, Keypoint, UnusableFile, shown
from experiments.data.untrusted import read_untrusted

T = TypeVar("T")
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
BoxRecord = tuple[str, float, float, float, float, bool]
"""Class, x_min, y_min, x_max, y_max in pixels, difficult."""


@dataclass(frozen=True)
class Request:
    """Images that people are asked to annotate, the most wanted first.

    Attributes:
        cycle: The cycle that trains on them.
        train: Names, most wanted first.
        test: Names of the images that are held out for measuring; of batch 0 only.
        scores: Acquisition scores of `train`, or None.
    """

    cycle: int
    train: tuple[str, ...]
    test: tuple[str, ...] = ()
    scores: tuple[float, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Training images, then test images."""
        return (*self.train, *self.test)

    @property
    def queue(self) -> tuple[str, ...]:
        """All names in the order in which people are to see them.

        Test images are spread evenly, so that whoever stops early has annotated some of both.
        """
        places = {
            name: (place + 0.5) / len(part)
            for part in (self.train, self.test)
            for place, name in enumerate(part)
        }
        return tuple(sorted(places, key=places.__getitem__))


@dataclass(frozen=True)
class Kept:
    """An answer as it is kept.

    Attributes:
        refused: Whether the image cannot be labeled.
        class_name: Class of a classified image.
        boxes: Objects of a detector's image.
        mask: Path of a PNG file below `annotations`.
        keypoints: Joints of a figure's image: name, x and y in pixels, visibility.
        source: The file from which the answer came.
        order: Number of that file among all that came; the answer with the highest number counts.
        at: Time at which it was accepted, UTC.
    """

    refused: bool = False
    class_name: str | None = None
    boxes: tuple[BoxRecord, ...] | None = None
    mask: Annotated[str, Field(pattern=r"^masks/[0-9a-f]{32}\.png$")] | None = None
    keypoints: tuple[tuple[str, float, float, Annotated[int, Field(ge=1, le=2)]], ...] | None = None
    source: str = ""
    order: int = 0
    at: str = ""

    @property
    def objects(self) -> tuple[Box, ...] | None:
        """The boxes, as they were drawn."""
        if self.boxes is None:
            return None
        return tuple(
            Box(name, (x_min, y_min, x_max, y_max), difficult)
            for name, x_min, y_min, x_max, y_max, difficult in self.boxes
        )

    @property
    def joints(self) -> tuple[Keypoint, ...] | None:
        """The keypoints, as they were set."""
        return None if self.keypoints is None else tuple(Keypoint(*each) for each in self.keypoints)

    @property
    def value(self) -> tuple[Any, ...]:
        """The answer itself, without its origin."""
        return self.refused, self.class_name, self.boxes, self.mask, self.keypoints


@dataclass(frozen=True)
class Seen:
    """A returned file that was read.

    Attributes:
        fingerprint: Its size and time of change when it was read.
        order: As in `Kept`.
        problems: Its parts that were not used; while there are any, the file is read again.
    """

    fingerprint: str
    order: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """The model's draft of a requested image; `boxes` have their score instead of `difficult`."""

    class_name: str | None = None
    score: float | None = None
    boxes: tuple[tuple[str, float, float, float, float, float | None], ...] | None = None
    mask: Annotated[str, Field(pattern=r"^drafts/[0-9]{6}\.png$")] | None = None
    keypoints: tuple[tuple[str, float, float, int, float | None], ...] | None = None


@dataclass(frozen=True)
class ItemRecord:
    """An image of a request: its size (height, width) in pixels, score and draft."""

    size: tuple[Side, Side]
    score: float | None
    draft: Draft | None


@dataclass(frozen=True)
class Items:
    """The images of a request, in its order; the rest of `request.json` is a `Request`."""

    items: tuple[ItemRecord, ...]


NAMES = TypeAdapter(list[str])
ANSWERS = TypeAdapter(dict[str, Kept])
SEEN = TypeAdapter(dict[str, Seen])
REQUEST = TypeAdapter(Request)
ITEMS = TypeAdapter(Items)


def check_names(names: Sequence[str], file: Path) -> None:
    """Check that names are paths below the folder of the images.

    Raises:
        UnusableFile: One is not.
    """
    for name in names:
        if not name or "\0" in name or name.startswith("/") or ".." in name.split("/"):
            raise UnusableFile(
                f"{file} cannot be used ({shown(name)} leads out of the folder of the images): "
                "restore it from a copy"
            )


def read_json(path: Path, content: TypeAdapter[T]) -> T | None:
    """Read a file of the record; None where there is none."""
    if not path.exists():
        return None
    try:
        return content.validate_json(read_untrusted(path))
    except UnusableFile as error:
        raise UnusableFile(f"{path}: {error}") from None
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"]))
        raise UnusableFile(
            f"{path} cannot be read ({place}{': ' if place else ''}{fault['msg']}): restore it "
            "from a copy"
        ) from None


def write_json(path: Path, content: Any) -> None:
    """Write a file of the record, whole."""
    with atomic_write(path) as file:
        json.dump(content, file, ensure_ascii=False)
