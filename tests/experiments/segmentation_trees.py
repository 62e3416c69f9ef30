"""Small segmentation sets for tests: files in both layouts, and a set in memory."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from experiments.data.cityscapes import CLASSES
from experiments.data.palette import distinct_palette
from experiments.data.pictures import MemoryPictures
from experiments.data.samples import MemorySamples
from experiments.data.segmentation import MemoryMasks, SemanticSegmentation
from experiments.models.drn import drn_seg
from experiments.tasks.segmentation import Segmentation

LABEL_IDS = np.array([label_id for label_id, _ in CLASSES.values()], np.uint8)

Size = tuple[int, int]


def write(path: Path, image: NDArray[np.uint8]) -> Path:
    """Write an image file, RGB or gray."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image if image.ndim == 2 else image[:, :, ::-1])
    return path


def picture(rng: np.random.Generator, size: Size, num_classes: int) -> tuple[Any, Any]:
    """Make an image with its mask: blocks of classes, each of its own brightness."""
    height, width = size
    coarse = rng.integers(0, num_classes, (-(-height // 16), -(-width // 16)), dtype=np.uint8)
    mask = np.kron(coarse, np.ones((16, 16), np.uint8))[:height, :width]
    step = 200 // num_classes
    image = (mask[:, :, None] * step + rng.integers(0, 40, (height, width, 3))).astype(np.uint8)
    return image, np.ascontiguousarray(mask)


def write_cityscapes(root: Path, *, num_train: int = 12, num_val: int = 4) -> Path:
    """Write a tree as published: half of the images have their trainIds, the others labelIds."""
    rng = np.random.default_rng(0)
    for split, count in (("train", num_train), ("val", num_val)):
        for i in range(count):
            city = ("aachen", "bremen")[i % 2]
            image, mask = picture(rng, (48, 64), len(CLASSES))
            mask[0, :5] = 255
            stem = f"{city}_{i:06d}_000019"
            write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
            beside = root / "gtFine" / split / city / f"{stem}_gtFine"
            if i % 4 < 2:
                write(Path(f"{beside}_labelTrainIds.png"), mask)
            else:
                label_ids = np.where(mask == 255, 3, LABEL_IDS[np.minimum(mask, 18)])
                write(Path(f"{beside}_labelIds.png"), label_ids.astype(np.uint8))
            write(Path(f"{beside}_color.png"), image)
    return root


def write_drn_list(
    root: Path,
    *,
    sizes: tuple[Size, ...] = ((48, 64),),
    num_train: int = 16,
    num_val: int = 6,
    num_classes: int = 4,
    info: dict[str, Any] | None = None,
) -> Path:
    """Write lists, images and masks; the sizes take turns."""
    rng = np.random.default_rng(1)
    for split, count in (("train", num_train), ("val", num_val)):
        images, masks = [], []
        for i in range(count):
            image, mask = picture(rng, sizes[i % len(sizes)], num_classes)
            mask[-1, :7] = 255
            write(root / f"images/{split}/{i:03d}.jpg", image)
            write(root / f"labels/{split}/{i:03d}.png", mask)
            images.append(f"images/{split}/{i:03d}.jpg\n")
            masks.append(f"labels/{split}/{i:03d}.png\n")
        (root / f"{split}_images.txt").write_text("".join(images), encoding="utf-8")
        (root / f"{split}_labels.txt").write_text("".join(masks), encoding="utf-8")
    values = {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]} if info is None else info
    (root / "info.json").write_text(json.dumps(values), encoding="utf-8")
    return root


def small_data(
    num_train: int = 20, num_test: int = 7, *, size: Size = (48, 64), num_classes: int = 4
) -> SemanticSegmentation:
    """A set in memory; the first column of each mask has no class."""
    rng = np.random.default_rng(2)
    parts: list[Any] = []
    for part, count in (("train", num_train), ("test", num_test)):
        made = [picture(rng, size, num_classes) for _ in range(count)]
        pixels = torch.from_numpy(np.stack([image for image, _ in made])).permute(0, 3, 1, 2)
        masks = np.stack([mask for _, mask in made])
        masks[:, :, 0] = 255
        names = [f"{part}/{i:03d}.png" for i in range(count)]
        parts += [MemoryPictures(MemorySamples(pixels.contiguous(), names)), MemoryMasks(masks)]
    return SemanticSegmentation(
        *parts,
        class_names=tuple(f"c{label}" for label in range(num_classes)),
        palette=distinct_palette(num_classes),
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.25, 0.3),
        flip=True,
    )


tiny_drn = partial(drn_seg, model_name="drn_d_tiny")


def small_task(data: SemanticSegmentation | None = None, **arguments: Any) -> Segmentation:
    """The task with a small network and small crops; nothing is annotated."""
    return Segmentation(data or small_data(), tiny_drn, **{"crop_size": 32, **arguments})
