"""Cityscapes (Cordts et al., CVPR 2016): street scenes, fine annotation, 19 classes of 2975 + 500
images. Class numbers and colors are those of cityscapesScripts, which calls them trainIds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from al_core.errors import InvalidSetting
from experiments.data.decoding import UnreadableImage
from experiments.data.folders import find_images
from experiments.data.segmentation import (
    IGNORED,
    Mask,
    Pair,
    SemanticSegmentation,
    read_mask,
    read_pairs,
)
from experiments.settings.checks import check_folder

CLASSES = {
    "road": (7, (128, 64, 128)), "sidewalk": (8, (244, 35, 232)), "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)), "fence": (13, (190, 153, 153)), "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)), "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)), "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)), "person": (24, (220, 20, 60)), "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)), "truck": (27, (0, 0, 70)), "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)), "motorcycle": (32, (0, 0, 230)), "bicycle": (33, (119, 11, 32)),
}  # fmt: skip
"""LabelId and color by name, in the order of trainIds."""
LARGEST_LABEL_ID = 33
MEAN = (0.29010095242892997, 0.32808144844279574, 0.28696394422942517)
STD = (0.1829540508368939, 0.18656561047509476, 0.18447508988480435)
"""Mean and deviation of the training images, from fyu/drn @ d75db2e."""

IMAGES, ANNOTATIONS = "leftImg8bit", "gtFine"


def cityscapes(root: str | Path) -> SemanticSegmentation:
    """Read the fine annotation: `train` (2975 images) is the pool, `val` (500) the test set.

    If the converted `*_gtFine_labelTrainIds.png` of an image is missing, its classes are derived
    from `*_gtFine_labelIds.png`. Names are paths below `root`, as in the lists of fyu/drn.

    Args:
        root: Folder with `leftImg8bit` and `gtFine` as published.

    Raises:
        InvalidSetting: Images are missing, or none is usable.
    """
    folder = check_folder("data.root", root)
    for part in (
        f"{images}/{split}" for images in (IMAGES, ANNOTATIONS) for split in ("train", "val")
    ):
        if not (folder / part).is_dir():
            raise InvalidSetting(
                f"Cityscapes is not in {folder} (there is no {part}): register at "
                "https://www.cityscapes-dataset.com, unpack leftImg8bit_trainvaltest.zip (11 GB) "
                "and gtFine_trainvaltest.zip (241 MB) there, or set data.root, or use data=digits, "
                "which needs no download"
            )
    parts = {
        split: read_pairs(
            _pairs(folder, split),
            part=f"{IMAGES}/{split}",
            num_classes=len(CLASSES),
            read=read_train_ids,
        )
        for split in ("train", "val")
    }
    return SemanticSegmentation(
        *parts["train"][:2],
        *parts["val"][:2],
        class_names=tuple(CLASSES),
        palette=tuple(color for _, color in CLASSES.values()),
        mean=MEAN,
        std=STD,
        flip=True,
    )


def read_train_ids(path: Path, size: tuple[int, int]) -> Mask:
    """Decode a mask of (height, width) pixels, converting labelIds.

    Raises:
        UnreadableImage: As `read_mask`, or a labelId is unknown.
    """
    values = read_mask(path, size)
    if not path.stem.endswith("_labelIds"):
        return values
    # A license plate is -1, which is stored in 8 bits as 255.
    unknown = (values > LARGEST_LABEL_ID) & (values != IGNORED)
    if unknown.any():
        raise UnreadableImage(f"unknown labelId {values[unknown].max()}")
    table = np.full(256, IGNORED, np.uint8)
    for train_id, (label_id, _) in enumerate(CLASSES.values()):
        table[label_id] = train_id
    converted: Mask = table[values]
    return converted


def _pairs(folder: Path, split: str) -> list[Pair]:
    pairs = []
    for name in find_images(folder / IMAGES / split).names:
        city, _, file = name.rpartition("/")
        stem = Path(file).stem.removesuffix("_leftImg8bit")
        beside = folder / ANNOTATIONS / split / city
        mask = beside / f"{stem}_gtFine_labelTrainIds.png"
        if not mask.exists():
            mask = beside / f"{stem}_gtFine_labelIds.png"
        pairs.append(Pair(f"{IMAGES}/{split}/{name}", folder / IMAGES / split / name, mask))
    return pairs
