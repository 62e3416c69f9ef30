"""Image files with one class each, in the layouts in which people have them.

Those are folders of classes, in `train` and a folder for testing or all in one place. An image that
is held out for testing is chosen by a hash of its content, so that it stays one when images are
added, renamed or put in another order, and whatever the seed is.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.content import content_hashes
from experiments.data.folders import describe_ignored, find_images
from experiments.settings.checks import check_number
from experiments.settings.wording import counted, is_utf8

log = logging.getLogger(__name__)

TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")
"""The first that is there has the test set."""
LAYOUTS = (
    "train/<class>/<images> with test, val, valid or validation beside it, or <class>/<images> "
    "with data.test_fraction=0.2"
)
NUM_NAMED = 6
"""Folders that a message names."""


@dataclass(frozen=True, eq=False)
class LabeledFiles:
    """Image files and their classes.

    Attributes:
        folder: What the names are relative to.
        names: Paths with "/", sorted.
        targets: int64 (len(names),), positions of the classes.
    """

    folder: Path
    names: list[str]
    targets: NDArray[np.int64]

    def part(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> LabeledFiles:
        """Return some of the files, by position or by a mask."""
        names = [str(name) for name in np.array(self.names, object)[kept]]
        return replace(self, names=names, targets=self.targets[kept])


@dataclass(frozen=True, eq=False)
class SplitFiles:
    """Image files of a pool and of a test set; the classes are those of the pool, by name."""

    train: LabeledFiles
    test: LabeledFiles
    class_names: tuple[str, ...]


def find_labeled(root: Path, *, test_fraction: float | None) -> SplitFiles:
    """Find the images of a folder that has one of the `LAYOUTS`.

    Args:
        root: The folder.
        test_fraction: Share of the images that are held out where there is no folder for testing;
            None if there must be one.

    Raises:
        InvalidSetting: The layout is another one, or a class has no images.
    """
    check_test_fraction(test_fraction)
    folders = _class_folders(root) if root.is_dir() else ()
    lower = {name.lower(): name for name in folders}
    train = lower.get(TRAIN_FOLDER)
    tests = [lower[name] for name in TEST_FOLDERS if name in lower]
    if train is not None and not tests and not _class_folders(root / train):
        train = None  # a class of trains
    if train is None and (tests or len(folders) < 2 or test_fraction is None):
        raise InvalidSetting(f"data.root: {_found(root, folders)}; needed are {LAYOUTS}")
    if train is not None and not tests and test_fraction is None:
        raise InvalidSetting(
            f"data.root: {_found(root, folders)}, but none to test with: add one of "
            f"{', '.join(TEST_FOLDERS)}, or set data.test_fraction=0.2"
        )
    if tests and test_fraction is not None:
        raise InvalidSetting(
            f"data.test_fraction={test_fraction} holds out images where there is no test set, and "
            f"{root / tests[0]} is one: leave it out, or move the folder away"
        )
    if len(tests) > 1:
        log.info("%s: %s has the test set; ignored %s", root, tests[0], ", ".join(tests[1:]))
    pool, class_names = _labeled_folder(root if train is None else root / train)
    if tests:
        return SplitFiles(pool, _test_folder(root / tests[0], class_names), class_names)
    assert test_fraction is not None, "there is neither a test set nor a share of one"
    return held_out(pool, class_names, test_fraction)


def check_test_fraction(test_fraction: float | None) -> None:
    """Raise InvalidSetting unless it is a share of the images, or None."""
    if test_fraction is None:
        return
    check_number("data.test_fraction", test_fraction, low=0, high=1)
    if test_fraction in (0, 1):
        raise InvalidSetting(
            f"data.test_fraction must lie between 0 and 1, got {test_fraction!r}; 0.2 is usual"
        )


def held_out(files: LabeledFiles, class_names: tuple[str, ...], test_fraction: float) -> SplitFiles:
    """Hold a share of each class out for testing.

    The hash of an image's content decides for each image on its own, so the share of a class is
    only about `test_fraction`. Of two or more images of a class at least one is in either part: the
    one with the smallest hash is held out, or the one with the largest is not.

    Raises:
        OSError: A file cannot be read at present.
    """
    hashes = content_hashes(
        [files.folder / name for name in files.names], progress="hashing images"
    )
    # A missing file cannot be tested with.
    shares = np.array(
        [1.0 if each is None else int.from_bytes(each[:6], "big") / 2**48 for each in hashes]
    )
    is_test = shares < test_fraction
    ratios = []
    for target in range(len(class_names)):
        members = np.flatnonzero(files.targets == target)
        if members.size > 1 and not is_test[members].any():
            is_test[members[shares[members].argmin()]] = True
        if members.size > 1 and is_test[members].all():
            is_test[members[shares[members].argmax()]] = False
        ratios.append(float(is_test[members].mean()))
    log.info(
        "data.test_fraction=%g: %d of %s held out for testing, between %.0f%% and %.0f%% of a "
        "class",
        test_fraction, is_test.sum(), counted(len(files.names), "image"),
        100 * min(ratios), 100 * max(ratios),
    )  # fmt: skip
    return SplitFiles(files.part(~is_test), files.part(is_test), class_names)


def _found(root: Path, folders: tuple[str, ...]) -> str:
    if not root.is_dir():
        return f"there is no folder {root}"
    if not folders:
        return f"{root} has no folders"
    return f"{root} has the {'folder' if len(folders) == 1 else 'folders'} {_named(folders)}"


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more


def _labeled_folder(folder: Path) -> tuple[LabeledFiles, tuple[str, ...]]:
    class_names = _class_folders(folder)
    if len(class_names) < 2:
        found = f"the only one is {class_names[0]}" if class_names else "there are none"
        raise InvalidSetting(f"data.root: {folder} needs two class folders, {found}")
    files = _labeled_files(folder, class_names)
    empty = set(range(len(class_names))) - set(files.targets.tolist())
    if empty:
        raise InvalidSetting(f"data.root: no image in {folder / class_names[min(empty)]}")
    return files, class_names


def _test_folder(folder: Path, class_names: tuple[str, ...]) -> LabeledFiles:
    unknown = sorted(set(_class_folders(folder)) - set(class_names))
    if unknown:
        raise InvalidSetting(
            f"data.root: {folder} has a class that train has not: {unknown[0]}; train has "
            f"{_named(class_names)}"
        )
    files = _labeled_files(folder, class_names)
    if not files.names:
        raise InvalidSetting(f"data.root: no image in {folder.name}/<class>/ of {folder.parent}")
    return files


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = (entry.name for entry in os.scandir(folder) if entry.is_dir())
    return tuple(sorted(name for name in names if not name.startswith(".") and is_utf8(name)))


def _labeled_files(folder: Path, class_names: tuple[str, ...]) -> LabeledFiles:
    """Return the images in class folders, sorted by name, and their classes."""
    found = find_images(folder)
    ignored = Counter(found.ignored)
    position: Mapping[str, int] = {name: index for index, name in enumerate(class_names)}
    names, targets = [], []
    for name in found.names:
        class_name, slash, _ = name.partition("/")
        if slash:
            names.append(name)
            targets.append(position[class_name])
        else:
            ignored["outside the class folders"] += 1
    if ignored:
        log.info("%s: ignored %s", folder, describe_ignored(ignored))
    return LabeledFiles(folder, names, np.array(targets, dtype=np.int64))
