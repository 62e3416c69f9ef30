"""MPII Human Pose (Andriluka et al., CVPR 2014) in the layout of `mpii_annotations.json`.

That file, which the code of stacked hourglasses is trained from, has an entry a person with its
joints, the middle and the scale of its body, and whether it is of the validation set. Coordinates
are MATLAB's, where the middle of the first pixel is 1. The annotations are at
http://human-pose.mpi-inf.mpg.de; the file is not part of this project.

Differs: the size of the head is the distance of upper neck and top of the head; the official one is
0.6 of the diagonal of a box around the head, which this file does not have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from al_core.errors import InvalidSetting
from experiments.data.detection import check_disjoint
from experiments.data.figure_files import FigureRecord, figure_set, read_part, warn_faults
from experiments.data.folders import lies_below
from experiments.data.labels import HIDDEN, MISSING, VISIBLE, Problem, UnusableFile, stated_size
from experiments.data.pose import PoseEstimation
from experiments.data.segmentation import picture_statistics
from experiments.data.untrusted import Number, checked, parse_json
from experiments.settings.checks import check_flag, check_folder

MAX_BYTES = 512 * 2**20
JOINT_NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis",
    "thorax", "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder",
    "left_shoulder", "left_elbow", "left_wrist",
)  # fmt: skip
SKELETON = (
    (0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9),
    (10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15),
)  # fmt: skip
UPPER_NECK, HEAD_TOP = 8, 9
BODY_PIXELS = 200.0
"""Height of a person at a scale of 1."""
FIRST_PIXEL = 0.5
"""Between MATLAB's coordinates and ours: there the middle of the first pixel is 1, here 0.5."""


@dataclass(frozen=True)
class _Person:
    img_paths: str
    joint_self: list[tuple[Number, Number, Number]]
    objpos: tuple[Number, Number]
    scale_provided: Number
    isValidation: bool | Number  # noqa: N815  # the name in the file
    dataset: str = "MPI"
    img_width: Any = None
    img_height: Any = None


_ENTRIES = TypeAdapter(list[Any])
_PERSON = TypeAdapter(_Person)


def mpii(
    root: str | Path,
    *,
    annotations: str = "mpii_annotations.json",
    images: str = "images",
    flip: bool = True,
) -> PoseEstimation:
    """Persons of MPII, each cut out by its middle and scale, which are given with the images.

    Args:
        root: Folder with both.
        annotations: The JSON file.
        images: Folder of the images.
        flip: False for no mirror images in training.

    Raises:
        InvalidSetting: The file is missing or of another layout, or nothing is left.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    path, data = read_part("data.annotations", folder, annotations, max_bytes=MAX_BYTES)
    try:
        entries = checked(_ENTRIES, parse_json(data))
    except UnusableFile as error:
        raise InvalidSetting(f"data.annotations: {path}: {error}") from None
    faults: list[Problem] = []
    parts: dict[bool, list[FigureRecord]] = {False: [], True: []}
    for position, entry in enumerate(entries):
        try:
            person = checked(_PERSON, entry)
            record = _record(person, position)
        except UnusableFile as error:
            faults.append(Problem(f"entry {position}", str(error)))
            continue
        if person.dataset == "MPI" and record.keypoints[:, 2].any():
            parts[bool(person.isValidation)].append(record)
    warn_faults(path, faults)
    train, test = parts[False], parts[True]
    for part, records in (("isValidation=0", train), ("isValidation=1", test)):
        if not records:
            raise InvalidSetting(f"data.annotations: {path} has no person with {part}")
    check_disjoint(_files(train), _files(test))
    pictures, figures = figure_set(train, folder / images, part="train")
    test_pictures, test_figures = figure_set(test, folder / images, part="test")
    return PoseEstimation(
        pictures, figures, test_pictures, test_figures, JOINT_NAMES,
        *picture_statistics(pictures), flip=flip, skeleton=SKELETON,
    )  # fmt: skip


def _files(records: Sequence[FigureRecord]) -> list[str]:
    return sorted({record.file for record in records})


def _record(person: _Person, position: int) -> FigureRecord:
    """Return the figure of an entry.

    Raises:
        UnusableFile: It is not of this layout.
    """
    if not lies_below(person.img_paths):
        raise UnusableFile("its path leads out of the folder of images")
    if len(person.joint_self) != len(JOINT_NAMES):
        raise UnusableFile(f"joint_self must have {len(JOINT_NAMES)} rows")
    if not person.scale_provided > 0:
        raise UnusableFile(f"scale_provided must be above 0, it is {person.scale_provided}")
    joints = np.array(person.joint_self, np.float64)
    # A joint that is not annotated is at (0, 0); one of visibility 0 elsewhere is covered.
    annotated: NDArray[np.bool_] = np.all(joints[:, :2] > 0, axis=1)
    visibility = np.where(annotated, np.where(joints[:, 2] > 0, VISIBLE, HIDDEN), MISSING)
    points = joints[:, :2] - FIRST_PIXEL
    head = float("nan")
    if annotated[UPPER_NECK] and annotated[HEAD_TOP]:
        head = float(np.linalg.norm(points[UPPER_NECK] - points[HEAD_TOP])) or head
    x, y = person.objpos
    half = BODY_PIXELS * person.scale_provided / 2
    return FigureRecord(
        f"{person.img_paths}#{position}",
        person.img_paths,
        np.column_stack([points, visibility]),
        box=(x - half, y - half, x + half, y + half),
        size=stated_size(person.img_height, person.img_width),
        head=head,
    )
