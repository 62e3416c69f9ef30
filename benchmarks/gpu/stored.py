"""CIFAR-10 from an archive of JPEG files, decoded once for many runs.

The archive has train/<class>/* and test/<class>/*. JPEG changes the pixels a little, so accuracies
are those of this copy of CIFAR-10.
"""

from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch

from experiments.data.classification import CIFAR10_MEAN, CIFAR10_STD, ImageClassification
from experiments.data.long_tail import long_tailed
from experiments.data.samples import MemorySamples
from experiments.engine.cores import num_cores
from experiments.settings.input_format import DEFAULT_INTERPOLATION

PARTS = ("train", "test")


def store(archive: Path, folder: Path) -> None:
    """Decode an archive into `folder`: pixels, names and labels of both parts.

    Raises:
        ValueError: An image cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, dict[str, bytes]] = {part: {} for part in PARTS}
    with tarfile.open(archive) as opened:
        for member in opened:
            part, _, name = member.name.removeprefix("./").partition("/")
            content = opened.extractfile(member) if member.isfile() and part in files else None
            if content is not None:
                files[part][name] = content.read()
    for part, contents in files.items():
        names = sorted(contents)
        with ThreadPoolExecutor(num_cores()) as executor:
            pixels = list(executor.map(lambda name: _decoded(contents[name]), names))  # noqa: B023
        np.save(folder / f"{part}.npy", np.stack(pixels))
        (folder / f"{part}.txt").write_text("\n".join(names), encoding="utf-8")


def _decoded(content: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("an image of the archive cannot be decoded")
    return image.transpose(2, 0, 1)


@cache
def stored(
    root: str,
    *,
    download: bool = False,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    imbalance: float = 1.0,
) -> ImageClassification:
    """Return what `store` has written to `root`; the same object each time, in one process.

    Arguments are those of `experiments.data.classification.cifar10`, in whose place it stands.
    """
    parts = []
    class_names: tuple[str, ...] = ()
    for part in PARTS:
        names = Path(root, f"{part}.txt").read_text(encoding="utf-8").split("\n")
        pixels = np.load(Path(root, f"{part}.npy"))
        classes = [name.partition("/")[0] for name in names]
        class_names = class_names or tuple(sorted(set(classes)))
        targets = np.array([class_names.index(each) for each in classes], np.int64)
        kept = long_tailed(targets, imbalance) if part == "train" else np.arange(len(names))
        samples = MemorySamples(
            torch.from_numpy(pixels[kept]),
            [names[i] for i in kept.tolist()],
            image_size=image_size,
            interpolation=interpolation,
        )
        parts.append((samples, targets[kept]))
    return ImageClassification(
        *parts[0], *parts[1],
        class_names=class_names, mean=CIFAR10_MEAN, std=CIFAR10_STD, flip=True,
        interpolation=interpolation,
    )  # fmt: skip
