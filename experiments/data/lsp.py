"""Leeds Sports Pose (Johnson & Everingham, BMVC 2010): 2,000 images of one person each.

`joints.mat` holds an array `joints`, (3, 14, n): x, y and a flag of each joint of each image. The
extended set (CVPR 2011) has (14, 3, n). Coordinates are MATLAB's, where the middle of the first
pixel is 1. As published, the first half of the images is for training, the second for testing.

In the set of 2,000 all joints are annotated; the flag is taken as "covered", which changes nothing
but the drawing, since covered joints count like others. In the extended set, joints with a flag of
0 are missing. Neither could be checked against the data here.
"""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.figure_files import FigureRecord, figure_set, read_part
from experiments.data.labels import HIDDEN, MISSING, VISIBLE
from experiments.data.mpii import FIRST_PIXEL
from experiments.data.pose import PoseEstimation
from experiments.data.segmentation import picture_statistics
from experiments.data.stick_figures import HEAD_TOP, JOINT_NAMES, NECK, SKELETON
from experiments.settings.checks import check_flag, check_folder, check_whole_number

MAX_BYTES = 64 * 2**20
"""Largest `joints.mat` that is read: that of the extended set has 1 MB."""


def lsp(root: str | Path, *, num_test: int | None = None, flip: bool = True) -> PoseEstimation:
    """Images of Leeds Sports Pose, or of its extended set.

    Args:
        root: Folder with `joints.mat` and `images/im0001.jpg` and so on (or `im00001.jpg`).
        num_test: Images at the end that are the test set; None for half of them, as published.
        flip: False for no mirror images in training.

    Raises:
        InvalidSetting: Files are missing or of another form, or SciPy is not installed.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    joints = _joints(folder)
    total = len(joints)
    if num_test is None:
        num_test = total // 2
    check_whole_number("data.num_test", num_test, low=1, high=total - 1)
    digits = 5 if total >= 10_000 else 4
    records = [
        FigureRecord(
            f"im{number:0{digits}d}.jpg", f"im{number:0{digits}d}.jpg", each, head=_head(each)
        )
        for number, each in enumerate(joints, start=1)
    ]
    pictures, figures = figure_set(records[:-num_test], folder / "images", part="train")
    test_pictures, test_figures = figure_set(records[-num_test:], folder / "images", part="test")
    return PoseEstimation(
        pictures, figures, test_pictures, test_figures, JOINT_NAMES,
        *picture_statistics(pictures), flip=flip, skeleton=SKELETON,
    )  # fmt: skip


def _joints(folder: Path) -> NDArray[np.float64]:
    """Return (n, 14, 3): x and y in pixels and the visibility.

    Raises:
        InvalidSetting: The file is missing or of another form, or SciPy is not installed.
    """
    path, data = read_part("data.root", folder, "joints.mat", max_bytes=MAX_BYTES)
    if importlib.util.find_spec("scipy") is None:
        raise InvalidSetting("data=lsp reads joints.mat by SciPy: pip install learning-loss[pose]")
    from scipy.io import loadmat

    try:
        content = loadmat(io.BytesIO(data), variable_names=["joints"])
    except Exception as error:  # noqa: BLE001  # a decoder may raise anything on damaged bytes
        reason = " ".join(str(error).split())[:200]
        raise InvalidSetting(f"data.root: {path} is no file of MATLAB: {reason}") from None
    found = content.get("joints")
    num_joints = len(JOINT_NAMES)
    is_numeric = isinstance(found, np.ndarray) and found.dtype.kind in "fiu" and found.ndim == 3
    if not is_numeric or found.shape[:2] not in ((3, num_joints), (num_joints, 3)):
        form = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else "missing"
        raise InvalidSetting(
            f"data.root: joints of {path} must be numbers (3, {num_joints}, n) or "
            f"({num_joints}, 3, n), they are {form}"
        )
    if found.shape[2] < 2:
        raise InvalidSetting(f"data.root: {path} has joints of {found.shape[2]} images")
    is_extended = found.shape[0] == num_joints
    joints = np.array(found.transpose(2, 0, 1) if is_extended else found.transpose(2, 1, 0))
    joints = joints.astype(np.float64)
    flag = joints[:, :, 2] > 0
    joints[:, :, 2] = (
        np.where(flag, VISIBLE, MISSING) if is_extended else np.where(flag, HIDDEN, VISIBLE)
    )
    joints[:, :, :2] -= FIRST_PIXEL
    return joints


def _head(joints: NDArray[np.float64]) -> float:
    known = (joints[[NECK, HEAD_TOP], 2] != MISSING).all()
    length = float(np.linalg.norm(joints[NECK, :2] - joints[HEAD_TOP, :2]))
    return length if known and length > 0 else float("nan")
