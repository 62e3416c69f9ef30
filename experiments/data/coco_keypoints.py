"""Keypoints in COCO's format (Lin et al., ECCV 2014): a folder of images and a JSON file a part.

A sample is one figure, cut out by its box (see `experiments.data.figure_files`). The joints are
those of one category of the pool's file. Coordinates count from 0, as boxes do.
Differs: pycocotools matches all figures of an image; here each sample is measured by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from al_core.errors import InvalidSetting
from experiments.data.coco_json import CocoFile, read_coco
from experiments.data.detection import check_disjoint
from experiments.data.figure_files import FigureRecord, figure_set, read_part, warn_faults
from experiments.data.folders import lies_below
from experiments.data.labels import Problem, UnusableFile
from experiments.data.pose import Bones, PoseEstimation
from experiments.data.segmentation import picture_statistics
from experiments.data.untrusted import parse_json
from experiments.settings.checks import check_flag, check_folder

MAX_BYTES, MAX_PARTS = 2 * 2**30, 64_000_000
"""Largest file that is read: that of COCO's 118,287 images has 240 MB."""
COCO_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
"""Spread of annotations of COCO's joints, of its keypoint evaluation."""


def coco_keypoints(
    root: str | Path,
    *,
    train_annotations: str = "annotations/person_keypoints_train2017.json",
    train_images: str = "train2017",
    test_annotations: str = "annotations/person_keypoints_val2017.json",
    test_images: str = "val2017",
    category: str | None = None,
    flip: bool = True,
) -> PoseEstimation:
    """Figures with keypoints in COCO's format: COCO itself, or the export of an annotation tool.

    Crowds and figures without an annotated joint are left out. A faulty entry of the file is left
    out and named in the log.

    Args:
        root: Folder that the other four are relative to.
        train_annotations: JSON file of the pool.
        train_images: Folder of its images.
        test_annotations: JSON file of the test set; its joints must be those of the pool's.
        test_images: Folder of its images.
        category: The category whose figures are meant; None for the only one with keypoints.
        flip: False if a mirrored image is not one of a figure whose left and right are swapped.

    Raises:
        InvalidSetting: A file is missing or not of this format, an image is in both parts, or
            nothing is left.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    train = _read("data.train_annotations", folder, train_annotations, category)
    test = _read("data.test_annotations", folder, test_annotations, category)
    if test.joints != train.joints:
        raise InvalidSetting(
            f"data: the joints of {test_annotations} are {', '.join(test.joints)}, those of "
            f"{train_annotations} are {', '.join(train.joints)}"
        )
    files = [
        {str(folder / images / record.file) for record in part.records}
        for part, images in ((train, train_images), (test, test_images))
    ]
    check_disjoint(*files)
    pictures, figures = figure_set(train.records, folder / train_images, part="train")
    test_pictures, test_figures = figure_set(test.records, folder / test_images, part="test")
    return PoseEstimation(
        pictures, figures, test_pictures, test_figures, train.joints,
        *picture_statistics(pictures), flip=flip, skeleton=train.skeleton,
        sigmas=COCO_SIGMAS if train.joints == COCO_JOINTS else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    joints: tuple[str, ...]
    skeleton: Bones
    records: list[FigureRecord]


def _read(key: str, folder: Path, file: str, category: str | None) -> _Part:
    path, data = read_part(key, folder, file, max_bytes=MAX_BYTES)
    try:
        content = read_coco(parse_json(data, max_parts=MAX_PARTS))
        name = _category(content, category)
        joints, skeleton = content.joints[name]
    except UnusableFile as error:
        raise InvalidSetting(f"{key}: {path}: {error}") from None
    faults = list(content.problems)
    records = []
    for image in content.images:
        if not lies_below(image.name):
            faults.append(Problem(image.name, f"its path leads out of {folder}"))
            continue
        faults += [Problem(image.name, fault) for fault in image.faults]
        own = [each for each in image.annotations if each.class_name == name and not each.is_crowd]
        for number, each in enumerate(own):
            try:
                keypoints = np.array(each.points(), np.float64)
                box = each.corners
            except UnusableFile as error:
                faults.append(Problem(image.name, str(error)))
                continue
            if keypoints[:, 2].any():
                records.append(
                    FigureRecord(
                        f"{image.name}#{number}", image.name, keypoints, box, image.size,
                        area=float("nan") if each.area is None else each.area,
                    )
                )  # fmt: skip
    warn_faults(path, faults)
    if not records:
        raise InvalidSetting(f"{key}: {path} has no figure of {name!r} with an annotated joint")
    return _Part(joints, skeleton, sorted(records, key=lambda record: record.name))


def _category(content: CocoFile, wanted: str | None) -> str:
    """Return the category whose figures are meant.

    Raises:
        UnusableFile: There is none, or several and none is named.
    """
    known = sorted(content.joints)
    if wanted is not None and wanted in known:
        return wanted
    if wanted is None and len(known) == 1:
        return known[0]
    if not known:
        raise UnusableFile("no category has keypoints")
    raise UnusableFile(f"data.category must be one of {', '.join(known)}, it is {wanted!r}")
