"""Small sets for pose in the layouts of COCO, MPII, LSP and DeepLabCut, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

JOINTS = ("nose", "left_hand", "right_hand")


def write_image(path: Path, width: int = 80, height: int = 60, seed: int = 0) -> None:
    """Write an image of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels)


def figure(image_id: int, id_: int, x: float = 20, y: float = 10, **more: Any) -> dict[str, Any]:
    """Return an annotation of COCO: a box of 20 x 30 with three joints, one covered."""
    return {
        "id": id_, "image_id": image_id, "category_id": 1, "iscrowd": 0, "area": 400.0,
        "bbox": [x, y, 20, 30], "num_keypoints": 3,
        "keypoints": [x + 10, y + 2, 2, x + 18, y + 20, 1, x + 2, y + 20, 2], **more,
    }  # fmt: skip


def write_coco(
    root: Path,
    part: str,
    annotations: Sequence[dict[str, Any]],
    *,
    num_images: int = 2,
    categories: Sequence[dict[str, Any]] | None = None,
    **changes: Any,
) -> None:
    """Write a part of a set in COCO's format: `<part>.json` and a folder of images."""
    for k in range(num_images):
        write_image(root / part / f"{k}.jpg", seed=k)
    usual = [{"id": 1, "name": "bird", "keypoints": list(JOINTS), "skeleton": [[1, 2], [1, 3]]}]
    content = {
        "images": [
            {"id": k, "file_name": f"{k}.jpg", "width": 80, "height": 60} for k in range(num_images)
        ],
        "annotations": list(annotations),
        "categories": usual if categories is None else list(categories),
        **changes,
    }
    (root / f"{part}.json").write_text(json.dumps(content), encoding="utf-8")


def person(image: str, *, validation: bool = False, **more: Any) -> dict[str, Any]:
    """Return an entry of MPII's file: joints on a line, the pelvis covered, one ankle missing."""
    joints = [[20.0 + k, 10.0 + 2 * k, 1.0] for k in range(16)]
    joints[6][2] = 0.0
    joints[0] = [0.0, 0.0, 0.0]
    return {
        "dataset": "MPI", "isValidation": float(validation), "img_paths": image,
        "img_width": 80.0, "img_height": 60.0, "objpos": [30.0, 30.0], "scale_provided": 0.2,
        "joint_self": joints, "joint_others": [], "annolist_index": 5.0, **more,
    }  # fmt: skip


def write_collected(
    root: Path, video: str, rows: Sequence[str], *, head: Sequence[str] | None = None
) -> None:
    """Write the labels of a video of a DeepLabCut project, and its frames."""
    usual = [
        "scorer,me,me,me,me",
        "bodyparts,snout,snout,tail,tail",
        "coords,x,y,x,y",
    ]
    folder = root / "labeled-data" / video
    folder.mkdir(parents=True, exist_ok=True)
    lines = [*(usual if head is None else head), *rows]
    text = "".join(f"{line}\n" for line in lines)
    (folder / "CollectedData_me.csv").write_text(text, encoding="utf-8")
