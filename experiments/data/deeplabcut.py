"""A project of DeepLabCut (Mathis et al., Nature Neuroscience 2018): labeled frames of videos.

Each folder below `labeled-data` has the frames of one video and a `CollectedData_<scorer>.csv`:
three rows of headings (scorer, bodyparts, coords), then a row a frame with its path and the x and y
of each body part; an empty cell is a joint that is not annotated. Coordinates count from 0 at the
middle of the first pixel. Newer projects give the path in three columns.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.figure_files import FigureRecord, figure_set, read_part, warn_faults
from experiments.data.folders import lies_below
from experiments.data.labeled_files import check_test_fraction
from experiments.data.labels import MISSING, VISIBLE, Problem, UnusableFile, shown
from experiments.data.pose import PoseEstimation
from experiments.data.segmentation import picture_statistics
from experiments.data.untrusted import parse_text
from experiments.settings.checks import check_flag, check_folder
from experiments.settings.wording import printable

LABELED = "labeled-data"
MAX_BYTES, MAX_COLUMNS, MAX_ROWS = 64 * 2**20, 2000, 1_000_000
PIXEL_MIDDLE = 0.5
"""Between coordinates that count from the middle of the first pixel, and ours, from its edge."""


def deeplabcut(
    root: str | Path,
    *,
    test_videos: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    flip: bool = False,
) -> PoseEstimation:
    """Frames of a DeepLabCut project with one animal each.

    Args:
        root: Folder of the project, which has `labeled-data`.
        test_videos: Folders below `labeled-data` whose frames are the test set: frames of one video
            are alike, so this is the honest measure. None to hold out frames of every video.
        test_fraction: Share of the frames of each video that is held out then: every fifth for 0.2.
        flip: True if a mirrored image is one of an animal whose left and right parts are swapped.

    Raises:
        InvalidSetting: The project has another layout or several animals, or nothing is left.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    check_test_fraction(test_fraction)
    videos = _videos(folder)
    if test_videos is not None:
        listed_ = isinstance(test_videos, (list, tuple)) and bool(test_videos)
        unknown = sorted(set(map(str, test_videos)) - set(videos)) if listed_ else [test_videos]
        if unknown:
            raise InvalidSetting(
                f"data.test_videos: {unknown[0]!r} is no folder below {folder / LABELED} with "
                f"labels; there are {', '.join(videos)}"
            )
    joints: tuple[str, ...] = ()
    train: list[FigureRecord] = []
    test: list[FigureRecord] = []
    for video, file in videos.items():
        path, data = read_part("data.root", folder, file, max_bytes=MAX_BYTES)
        faults: list[Problem] = []
        try:
            names, records = read_collected(data, video, faults)
        except UnusableFile as error:
            raise InvalidSetting(f"data.root: {path}: {error}") from None
        warn_faults(path, faults)
        if joints and names != joints:
            raise InvalidSetting(
                f"data.root: the body parts of {path} are {', '.join(names)}, those of the first "
                f"video are {', '.join(joints)}"
            )
        joints = names
        for number, record in enumerate(records):
            # Evenly spread, so that the test set is of all moments of a video.
            of_test = math.floor((number + 1) * test_fraction) > math.floor(number * test_fraction)
            chosen = of_test if test_videos is None else video in test_videos
            (test if chosen else train).append(record)
    if not train or not test:
        raise InvalidSetting(
            f"data.root: {len(train)} frames to choose from and {len(test)} to test with are too "
            "few; change data.test_videos or data.test_fraction"
        )
    pictures, figures = figure_set(train, folder, part="train")
    test_pictures, test_figures = figure_set(test, folder, part="test")
    return PoseEstimation(
        pictures, figures, test_pictures, test_figures, joints,
        *picture_statistics(pictures), flip=flip,
    )  # fmt: skip


def _videos(folder: Path) -> dict[str, str]:
    """Return the file of labels, below the project's folder, of each video that has one."""
    found = {}
    for path in sorted((folder / LABELED).glob("*/CollectedData_*.csv")):
        if path.parent.name in found:
            raise InvalidSetting(f"data.root: {path.parent} has several files CollectedData_*.csv")
        found[path.parent.name] = str(path.relative_to(folder))
    if not found:
        raise InvalidSetting(
            f"data.root: there is no {LABELED}/VIDEO/CollectedData_SCORER.csv in {folder}"
        )
    return found


def read_collected(
    data: bytes, video: str, faults: list[Problem]
) -> tuple[tuple[str, ...], list[FigureRecord]]:
    """Read a file of labels; rows that cannot be used are added to the faults.

    Args:
        data: The file.
        video: Its folder below `labeled-data`.
        faults: Gets a problem for each row that is left out.

    Raises:
        UnusableFile: The headings are of another layout.
    """
    rows = _rows(data)
    head = {}
    for row in rows:
        if row and row[0] in ("scorer", "individuals", "bodyparts", "coords"):
            head[row[0]] = row
        if row and row[0] == "coords":
            break
    if set(head) - {"individuals"} != {"scorer", "bodyparts", "coords"}:
        raise UnusableFile("its first rows must be those of scorer, bodyparts and coords")
    if "individuals" in head:
        raise UnusableFile("it has several animals (a row individuals): one animal a frame is read")
    coords, parts = head["coords"], head["bodyparts"]
    first = next((k for k, cell in enumerate(coords) if k and cell), 0)
    names = tuple(parts[first::2])
    expected = ["x", "y"] * len(names)
    if not names or coords[first:] != expected or parts[first:] != [n for n in names for _ in "xy"]:
        raise UnusableFile("coords must be x and y of each body part in turn")
    if len(set(names)) != len(names) or not all(name == printable(name) for name in names):
        raise UnusableFile("the names of body parts must be distinct and printable")
    records: dict[str, FigureRecord] = {}
    for number, row in enumerate(rows, start=len(head) + 1):
        if not any(row):
            continue
        try:
            record = _record(row, first, len(names), video)
            if record.name in records:
                raise UnusableFile(f"{record.name} has a row before")
        except UnusableFile as error:
            faults.append(Problem(f"row {number}", str(error)))
            continue
        records[record.name] = record
    return names, list(records.values())


def _rows(data: bytes) -> Iterator[list[str]]:
    """Yield the rows, at most `MAX_ROWS` of at most `MAX_COLUMNS` cells.

    Raises:
        UnusableFile: It is no CSV in UTF-8, or larger.
    """
    reader = csv.reader(io.StringIO(parse_text(data), newline=""), strict=True)
    try:
        for number, row in enumerate(reader):
            if number >= MAX_ROWS or len(row) > MAX_COLUMNS:
                raise UnusableFile(f"it has more than {MAX_ROWS} rows or {MAX_COLUMNS} columns")
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise UnusableFile(f"it is no CSV: {error}") from None


def _record(row: Sequence[str], first: int, num_joints: int, video: str) -> FigureRecord:
    """Return the figure of a row.

    Raises:
        UnusableFile: Its path or a number is wrong.
    """
    path = "/".join(part for cell in row[:first] for part in cell.replace("\\", "/").split("/"))
    frame = path.rpartition("/")[2]
    # Projects move, and their paths name the place where they were made.
    name = f"{LABELED}/{video}/{frame}"
    if frame in ("", ".", "..") or not lies_below(name):
        raise UnusableFile(f"it names no frame: {shown(path)}")
    if len(row) != first + 2 * num_joints:
        raise UnusableFile(f"it has {len(row)} cells, not {first + 2 * num_joints}")
    values = np.array([_number(cell) for cell in row[first:]], np.float64).reshape(-1, 2)
    known: NDArray[np.bool_] = np.all(np.isfinite(values), axis=1)
    points = np.where(known[:, None], values + PIXEL_MIDDLE, 0.0)
    keypoints = np.column_stack([points, np.where(known, VISIBLE, MISSING)])
    return FigureRecord(name, name, keypoints)


def _number(cell: str) -> float:
    try:
        return float(cell) if cell else math.nan
    except ValueError:
        raise UnusableFile(f"{shown(cell)} is no number") from None
