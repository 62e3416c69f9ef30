"""Images of your own without labels: the pool of `oracle=people`, for all three tasks.

The images are those below a folder; labels are what people have said of them so far. The test set
is what people have said of the images that were held out for it, or a folder of labeled images.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.annotation.ledger import Kept, listed
from experiments.data.classification import (
    UNMEASURED,
    ImageClassification,
    Reading,
    read_samples,
)
from experiments.data.decoding import UnreadableImage
from experiments.data.detection import ObjectDetection, tidied, warn_unreadable
from experiments.data.folders import find_images
from experiments.data.labels import Label, Problem, Rules
from experiments.data.pictures import FilePictures
from experiments.data.samples import channel_statistics
from experiments.data.segmentation import (
    MAX_CLASSES,
    Mask,
    Masks,
    SemanticSegmentation,
    distinct_palette,
    picture_statistics,
    read_mask,
)
from experiments.handoff.masks import write_png
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import files_in, read_file, upright_size
from experiments.settings.checks import check_flag, check_folder, check_number, check_whole_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION, check_interpolation
from experiments.settings.wording import counted

T = TypeVar("T")
IMAGE_FOLDERS = ("images", "JPEGImages")
"""Where a test set has its images, if it has something else in other folders."""


@dataclass(frozen=True)
class Collected:
    """What people have said so far.

    Attributes:
        run_folder: Where masks are kept.
        names: Of the images, below the folder, by position.
        labels: By position, of the images that are labeled and there.
        batches: Positions to train on, since which cycle: one tuple a cycle.
        test: Positions that are held out for measuring; empty where a test set is given.
        excluded: Positions that are neither trained on nor asked for: test, refused, still out.
    """

    run_folder: Path
    names: tuple[str, ...]
    labels: Mapping[int, Kept]
    batches: tuple[tuple[int, ...], ...]
    test: tuple[int, ...]
    excluded: frozenset[int]


def classification(
    root: str | Path,
    *,
    class_names: Sequence[str],
    test: str | None = None,
    image_size: int = 32,
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    flip: bool = True,
    lazy: bool = False,
    collected: Collected | None = None,
) -> ImageClassification:
    """Images to be classified; sizes and memory as in `classification.image_folder`.

    Args:
        root: Folder of the images.
        class_names: The classes.
        test: Folder of a test set in folders named for the classes, or with a CSV; or null.
        image_size: Side of the images in pixels.
        interpolation: As for `resize_square`.
        max_memory_gb: A larger set is decoded whenever it is read.
        flip: False where mirror images are not of the same class.
        lazy: As for `classification.image_folder`.
        collected: What people have said.

    Raises:
        InvalidSetting: A setting or the test set is wrong.
    """
    folder = check_folder("data.root", root)
    check_whole_number("data.image_size", image_size, low=1, high=4096)
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_interpolation("data.interpolation", interpolation)
    check_flag("data.flip", flip)
    check_flag("data.lazy", lazy)
    rules = Rules("classification", checked_class_names(class_names, "classification"))
    given = _checked(collected)
    position = {name: index for index, name in enumerate(rules.class_names)}
    in_memory = len(given.names) * 3 * image_size**2 <= max_memory_gb * 1e9
    reading = Reading(image_size, interpolation, in_memory=in_memory, lazy=lazy)
    train = read_samples(folder, list(given.names), reading)
    train_targets = np.zeros(len(train), np.int64)
    for index, kept in given.labels.items():
        train_targets[index] = _known(position, kept.class_name)
    if test is None:
        test_names = [given.names[index] for index in given.test]
        targets = [_known(position, given.labels[index].class_name) for index in given.test]
        test_folder = folder
    else:
        test_folder, labeled = labeled_folder(
            test, rules, lambda label: _known(position, label.class_name)
        )
        test_names, targets = list(labeled), list(labeled.values())
    test_samples = read_samples(test_folder, test_names, reading)
    mean, std = UNMEASURED if lazy else channel_statistics(train)
    return ImageClassification(
        train=train,
        train_targets=train_targets,
        test=test_samples,
        test_targets=np.array(targets, np.int64),
        class_names=rules.class_names,
        mean=mean,
        std=std,
        flip=flip,
        interpolation=interpolation,
    )


def detection(
    root: str | Path,
    *,
    class_names: Sequence[str],
    test: str | None = None,
    flip: bool = True,
    collected: Collected | None = None,
) -> ObjectDetection:
    """Images to find objects in; arguments as `classification`.

    A test set is images with Pascal VOC's XML beside them or in another folder, or with a JSON of
    COCO.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    rules = Rules("detection", checked_class_names(class_names, "detection"), empty_is_answer=True)
    given = _checked(collected)
    paths = [folder / name for name in given.names]
    train = FilePictures(paths, given.names, progress="checking the pool")
    warn_unreadable(train, part="the pool")
    boxes = [given.labels.get(index, Kept()).objects or () for index in range(len(paths))]
    train_objects = tidied(boxes, train, rules.class_names, part="the pool")
    if test is None:
        names = [given.names[index] for index in given.test]
        test_folder, test_boxes = folder, [boxes[index] for index in given.test]
    else:
        test_folder, labeled = labeled_folder(test, rules, lambda label: label.boxes or ())
        names, test_boxes = list(labeled), list(labeled.values())
    pictures = FilePictures([test_folder / name for name in names], names)
    warn_unreadable(pictures, part="test")
    test_objects = tidied(test_boxes, pictures, rules.class_names, part="test")
    return ObjectDetection(train, train_objects, pictures, test_objects, rules.class_names, flip)


def segmentation(
    root: str | Path,
    *,
    class_names: Sequence[str],
    test: str | None = None,
    flip: bool = True,
    collected: Collected | None = None,
) -> SemanticSegmentation:
    """Images to be segmented; arguments as `classification`.

    A test set has `images` and, in another folder, masks of their names.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    rules = Rules("segmentation", checked_class_names(class_names, "segmentation"))
    given = _checked(collected)
    train = FilePictures(
        [folder / name for name in given.names], given.names, progress="checking the pool"
    )
    warn_unreadable(train, part="the pool")
    masks = KeptMasks(given, range(len(given.names)))
    test_masks: Masks
    if test is None:
        names = [given.names[index] for index in given.test]
        test_folder, test_masks = folder, KeptMasks(given, given.test)
    else:
        test_folder, labeled = labeled_folder(test, rules, _packed)
        names = list(labeled)
        test_masks = GivenMasks(tuple(labeled.values()))
    pictures = FilePictures([test_folder / name for name in names], names)
    warn_unreadable(pictures, part="test")
    mean, std = picture_statistics(train)
    return SemanticSegmentation(
        train, masks, pictures, test_masks,
        class_names=rules.class_names, palette=distinct_palette(len(rules.class_names)),
        mean=mean, std=std, flip=flip,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class KeptMasks:
    """Masks that people have drawn, as `Masks`; those of other images are never read."""

    collected: Collected
    positions: Sequence[int]

    def __len__(self) -> int:
        return len(self.positions)

    def mask(self, index: int) -> Mask:
        """As in `Masks`."""
        kept = self.collected.labels[self.positions[index]].mask
        assert kept is not None, "an image was labeled without a mask"
        path = self.collected.run_folder / "annotations" / kept
        try:
            return read_mask(path)
        except UnreadableImage as error:
            raise UnreadableImage(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks of a test set, kept as PNG files are: a thousandth of their size."""

    packed: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.packed)

    def mask(self, index: int) -> Mask:
        """As in `Masks`."""
        with Image.open(io.BytesIO(self.packed[index])) as image:
            return np.array(image)


def labeled_folder(
    test: str, rules: Rules, convert: Callable[[Label], T]
) -> tuple[Path, dict[str, T]]:
    """Read a folder of images with their annotations, in any form in which they can come back.

    Returns:
        The folder of the images, and of each labeled one, by its name, what `convert` makes of it.

    Raises:
        InvalidSetting: There is none, or an annotation cannot be used: a test set must be right.
    """
    folder = check_folder("data.test", test)
    if not folder.is_dir():
        raise InvalidSetting(f"data.test: there is no folder {folder}")
    inner = next((name for name in IMAGE_FOLDERS if (folder / name).is_dir()), "")
    images = folder / inner
    names = ImageNames(find_images(images).names)
    labels: dict[str, T] = {}
    problems: list[Problem] = []

    def size_of(name: str) -> tuple[int, int]:
        return upright_size(images / name)

    for source in files_in(folder):
        if inner and source.startswith(f"{inner}/") and rules.kind != "classification":
            continue
        for one in read_file(folder, source, rules, names, size_of):
            if isinstance(one, Problem):
                problems.append(one)
            elif not one.label.refused:
                labels[one.name] = convert(one.label)
    if problems:
        wrong = counted(len(problems), "thing")
        raise InvalidSetting(f"data.test: {wrong} cannot be used:\n{listed(problems)}")
    if not labels:
        raise InvalidSetting(f"data.test: there is no annotated image in {folder}")
    return images, dict(sorted(labels.items()))


def checked_class_names(names: Sequence[object], kind: str) -> tuple[str, ...]:
    """Check the names of the classes.

    Raises:
        InvalidSetting: It is no list of as many distinct names as the task needs.
    """
    least = 1 if kind == "detection" else 2
    listed_ = isinstance(names, (list, tuple))
    if listed_:  # classes that are numbers are named by them
        names = [str(name) if isinstance(name, int) else name for name in names]
    if (
        not listed_
        or not all(isinstance(name, str) and name.strip() for name in names)
        or not least <= len(set(names)) == len(names) <= MAX_CLASSES
    ):
        raise InvalidSetting(
            f"data.class_names must be a list of {least} .. {MAX_CLASSES} distinct names, such as "
            f"[cat,dog]; it is {names!r}"
        )
    return tuple(map(str, names))


def _checked(collected: Collected | None) -> Collected:
    if collected is None:
        raise InvalidSetting("data=unlabeled has no labels: it needs oracle=people")
    return collected


def _known(position: Mapping[str, int], class_name: str | None) -> int:
    if class_name is None or class_name not in position:
        raise InvalidSetting(
            f"data.class_names: an image was annotated as {class_name}, which is none of "
            f"{', '.join(position)}"
        )
    return position[class_name]


def _packed(label: Label) -> bytes:
    assert label.mask is not None, "a mask was read"
    return write_png(label.mask)
