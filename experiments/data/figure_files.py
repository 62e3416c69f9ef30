"""Figures that annotations in files describe: the form between all readers and sets for pose.

Where an image may show several figures, a sample is one of them: the part of the image around its
box, which must be known beforehand. Its name is that of the image with a number behind "#".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.decoding import UnreadableImage
from experiments.data.detection import size_check, warn_unreadable
from experiments.data.labels import MISSING, Problem, Size, UnusableFile
from experiments.data.pictures import FilePictures, Pictures
from experiments.data.pose import Figure
from experiments.data.untrusted import read_untrusted
from experiments.settings.wording import counted, listed

log = logging.getLogger(__name__)

CROP_MARGIN = 1.25
"""Sides of the part of an image that shows a figure, in sides of its box; of published recipes."""

Window = tuple[float, float, float, float]
"""x_min, y_min, x_max, y_max in pixels."""


@dataclass(frozen=True, eq=False)
class FigureRecord:
    """A figure as a file describes it.

    Attributes:
        name: Name of the sample, unique in its part.
        file: Path of the image below the folder of images.
        keypoints: float (j, 3), x and y in pixels of the whole image, and the visibility.
        box: The figure's box, around which the image is cut; None for the whole image.
        size: (height, width) in pixels of the image, if the file states it.
        head: Size of the head in pixels; NaN where it is not known.
        area: Area of the figure in square pixels; NaN where it is not known.
    """

    name: str
    file: str
    keypoints: NDArray[np.float64]
    box: Window | None = None
    size: Size | None = None
    head: float = math.nan
    area: float = math.nan


@dataclass(frozen=True, eq=False)
class CroppedPictures:
    """Parts of images, as `Pictures`; they are from no files of their own.

    Attributes:
        pictures: The whole images.
        names: One unique name a part.
        sources: The image of each part, by position.
        boxes: What each part shows, before the margin is added and the image's border cuts it.
    """

    pictures: Pictures
    names: Sequence[str]
    sources: Sequence[int]
    boxes: Sequence[Window]
    paths: None = field(init=False, default=None)
    in_memory: bool = field(init=False, default=False)
    unreadable: Mapping[int, str] = field(init=False)

    def __post_init__(self) -> None:
        found: dict[int, str] = {}
        for position, source in enumerate(self.sources):
            if source in self.pictures.unreadable:
                found[position] = self.pictures.unreadable[source]
            elif 0 in self._sides(position):
                found[position] = "the box of its figure lies outside the image"
        object.__setattr__(self, "unreadable", found)

    def __len__(self) -> int:
        return len(self.sources)

    def window(self, index: int) -> tuple[int, int, int, int]:
        """Return the part that is shown: x_min, y_min, x_max, y_max, whole pixels."""
        height, width = self.pictures.size(self.sources[index])
        x_min, y_min, x_max, y_max = self.boxes[index]
        more_x, more_y = ((CROP_MARGIN - 1) / 2 * side for side in (x_max - x_min, y_max - y_min))
        low = max(0, math.floor(x_min - more_x)), max(0, math.floor(y_min - more_y))
        high = min(width, math.ceil(x_max + more_x)), min(height, math.ceil(y_max + more_y))
        return *low, *high

    def size(self, index: int) -> Size:
        return (0, 0) if index in self.unreadable else self._sides(index)

    def picture(self, index: int) -> NDArray[np.uint8]:
        if index in self.unreadable:
            raise UnreadableImage(f"{self.names[index]} cannot be used: {self.unreadable[index]}")
        left, top, right, bottom = self.window(index)
        return self.pictures.picture(self.sources[index])[top:bottom, left:right]

    def _sides(self, index: int) -> Size:
        left, top, right, bottom = self.window(index)
        return max(0, bottom - top), max(0, right - left)


def figure_set(
    records: Sequence[FigureRecord], images: Path, *, part: str
) -> tuple[Pictures, tuple[Figure, ...]]:
    """Return the samples of a part of a set with their figures.

    A joint that lies outside the image is missing. Images that cannot be read, or that have another
    size than the file states, are left out and named in the run folder's `quarantine.csv`.

    Args:
        records: The figures; all of them have a box, or none has.
        images: Folder of the images.
        part: Name of the part for the log.

    Raises:
        InvalidSetting: No image is usable, or no joint is annotated.
    """
    stated = {record.file: record.size for record in records}
    files = sorted(stated)
    pictures: Pictures = FilePictures(
        [images / file for file in files],
        files,
        check=size_check([stated[file] for file in files]),
        progress=f"checking {part}",
    )
    place = {file: position for position, file in enumerate(files)}
    if any(record.box is not None for record in records):
        boxes = [record.box for record in records if record.box is not None]
        assert len(boxes) == len(records), "all figures have a box, or none has"
        sources = [place[record.file] for record in records]
        pictures = CroppedPictures(pictures, [record.name for record in records], sources, boxes)
    else:
        records = sorted(records, key=lambda record: place[record.file])
    warn_unreadable(pictures, part=part)
    figures, num_outside = [], 0
    for index, record in enumerate(records):
        figure, outside = _figure(record, pictures, index)
        figures.append(figure)
        num_outside += outside
    num_joints = sum(int((figure.visibility != MISSING).sum()) for figure in figures)
    log.info(
        "%s: %s with %s%s", part, counted(len(figures), "figure"), counted(num_joints, "joint"),
        f"; {counted(num_outside, 'joint')} outside the image left out" if num_outside else "",
    )  # fmt: skip
    if not num_joints:
        raise InvalidSetting(f"data: no joint is annotated in {part}")
    return pictures, tuple(figures)


def _figure(record: FigureRecord, pictures: Pictures, index: int) -> tuple[Figure, int]:
    """Return a figure in pixels of its sample, and how many of its joints lie outside."""
    height, width = pictures.size(index)
    shift = np.zeros(2)
    if isinstance(pictures, CroppedPictures) and index not in pictures.unreadable:
        shift = np.array(pictures.window(index)[:2], np.float64)
    points = record.keypoints[:, :2] - shift
    visibility = record.keypoints[:, 2].astype(np.uint8)
    inside: NDArray[np.bool_] = np.all(
        (points >= 0) & (points <= (width, height)), axis=1
    )  # False where not a number
    outside = (visibility != MISSING) & ~inside
    visibility[~inside] = MISSING
    points = np.where(inside[:, None], points, 0.0)
    return (
        Figure(points.astype(np.float32), visibility, record.head, record.area),
        int(outside.sum()),
    )


def read_part(key: str, folder: Path, file: object, *, max_bytes: int) -> tuple[Path, bytes]:
    """Read a file of annotations that a setting names.

    Args:
        key: The setting.
        folder: Folder that the file is relative to.
        file: The setting's value.
        max_bytes: Largest file that is read.

    Raises:
        InvalidSetting: It is no path, or the file is missing or cannot be read.
    """
    if not isinstance(file, str) or not file:
        raise InvalidSetting(f"{key} must be a path below data.root; it is {file!r}")
    path = folder / file
    if not path.exists():
        raise InvalidSetting(f"{key}: {path} is not there")
    try:
        return path, read_untrusted(path, max_bytes=max_bytes)
    except UnusableFile as error:
        raise InvalidSetting(f"{key}: {path}: {error}") from None
    except OSError as error:
        raise InvalidSetting(f"{key}: {path} cannot be read: {error.strerror}") from None


def warn_faults(path: Path, faults: Sequence[Problem]) -> None:
    """Log the entries of a file that are left out."""
    if faults:
        log.warning(
            "%s: %s left out:\n%s", path, counted(len(faults), "entry", "entries"), listed(faults)
        )
