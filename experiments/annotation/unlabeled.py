"""Images without labels: the pool of `oracle=people`, for all three tasks.

The images are those below a folder; their labels are the answers of people so far. The test set is
the labeled images among those that were held out for it, or a folder of labeled images.
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
from experiments.annotation.records import Kept
from experiments.data.classification import (
    UNMEASURED,
    ImageClassification,
    read_samples,
    square_reader,
)
from experiments.data.decoding import UnreadableImage
from experiments.data.detection import ObjectDetection, tidied, warn_unreadable
from experiments.data.folders import find_images
from experiments.data.labels import Label, Problem, Rules
from experiments.data.palette import distinct_palette
from experiments.data.pictures import FilePictures
from experiments.data.pose import PoseEstimation, of_keypoints
from experiments.data.samples import channel_statistics
from experiments.data.segmentation import (
    MAX_CLASSES,
    Mask,
    Masks,
    SemanticSegmentation,
    picture_statistics,
    read_mask,
)
from experiments.handoff.masks import write_png
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import files_in, read_file, upright_size
from experiments.settings.checks import check_flag, check_folder, check_number
from experiments.settings.input_format import DEFAULT_INTERPOLATION
from experiments.settings.wording import counted, listed

T = TypeVar("T")
IMAGE_FOLDERS = ("images", "JPEGImages")
"""Folders in which a test set may have its images, beside annotations in other folders."""


@dataclass(frozen=True)
class Collected:
    """The answers of people so far.

    Attributes:
        run_folder: The run folder, which keeps the masks.
        names: Names of the images, below their folder, by position.
        labels: Labels by position, of the images that are labeled and present.
        batches: Positions to train on, one tuple for each cycle that added some.
        test: Positions that are held out for measuring; empty if a test set is given.
        excluded: Positions that are neither trained on nor asked for: test images, refused ones,
            and those that are still out for annotation.
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
    resize: str = "crop",
    interpolation: str = DEFAULT_INTERPOLATION,
    max_memory_gb: float = 4.0,
    cache: str | None = None,
    flip: bool = True,
    lazy: bool = False,
    collected: Collected | None = None,
) -> ImageClassification:
    """Return images to be classified; sizes and memory as in `classification.image_folder`.

    Args:
        root: Folder of the images.
        class_names: The classes.
        test: Folder of a test set in folders named for the classes, or with a CSV; or null.
        image_size: Side of the images in pixels.
        resize: "crop", "letterbox" or "stretch".
        interpolation: One of `INTERPOLATIONS`.
        max_memory_gb: Limit of the memory for decoded images; a larger set is decoded when read.
        cache: Folder that keeps the resized images; None for no cache.
        flip: False if mirror images are not of the same class.
        lazy: Decode images only when they are needed, as for `image_folder`.
        collected: The answers of people.

    Raises:
        InvalidSetting: A setting or the test set is wrong.
    """
    folder = check_folder("data.root", root)
    read = square_reader(image_size, resize=resize, interpolation=interpolation, cache=cache)
    check_number("data.max_memory_gb", max_memory_gb, low=0)
    check_flag("data.flip", flip)
    check_flag("data.lazy", lazy)
    rules = Rules("classification", checked_class_names(class_names, "classification"))
    given = _checked(collected)
    position = {name: index for index, name in enumerate(rules.class_names)}
    in_memory = len(given.names) * 3 * image_size**2 <= max_memory_gb * 1e9
    train = read_samples(folder, list(given.names), read=read, in_memory=in_memory, lazy=lazy)
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
    test_samples = read_samples(test_folder, test_names, read=read, in_memory=in_memory, lazy=lazy)
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
        resize=read.resize,
        interpolation=read.interpolation,
    )


def detection(
    root: str | Path,
    *,
    class_names: Sequence[str],
    test: str | None = None,
    flip: bool = True,
    collected: Collected | None = None,
) -> ObjectDetection:
    """Return images to find objects in; arguments as `classification`.

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
    """Return images to be segmented; arguments as `classification`.

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
    masks = KeptMasks(given, range(len(given.names)), train.size)
    test_masks: Masks
    if test is None:
        names = [given.names[index] for index in given.test]
        test_folder, test_masks = folder, KeptMasks(given, given.test, train.size)
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


def pose(
    root: str | Path,
    *,
    class_names: Sequence[str],
    test: str | None = None,
    flip: bool = True,
    collected: Collected | None = None,
) -> PoseEstimation:
    """Return images of one figure each; arguments as `classification`, the classes are the joints.

    A test set is images with a JSON of COCO or Label Studio, or XML of CVAT, beside them.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    rules = Rules("pose", checked_class_names(class_names, "pose"), empty_is_answer=True)
    given = _checked(collected)
    train = FilePictures(
        [folder / name for name in given.names], given.names, progress="checking the pool"
    )
    warn_unreadable(train, part="the pool")
    joints = [given.labels.get(index, Kept()).joints or () for index in range(len(given.names))]
    train_figures = [of_keypoints(each, rules.class_names) for each in joints]
    if test is None:
        names = [given.names[index] for index in given.test]
        test_folder, test_figures = folder, [train_figures[index] for index in given.test]
    else:
        test_folder, labeled = labeled_folder(
            test, rules, lambda label: of_keypoints(label.keypoints or (), rules.class_names)
        )
        names, test_figures = list(labeled), list(labeled.values())
    pictures = FilePictures([test_folder / name for name in names], names)
    warn_unreadable(pictures, part="test")
    return PoseEstimation(
        train, train_figures, pictures, test_figures, rules.class_names,
        *picture_statistics(train), flip=flip,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class KeptMasks:
    """Masks that people have drawn, as `Masks`; other masks are never read."""

    collected: Collected
    positions: Sequence[int]
    size: Callable[[int], tuple[int, int]]

    def __len__(self) -> int:
        return len(self.positions)

    def mask(self, index: int) -> Mask:
        kept = self.collected.labels[self.positions[index]].mask
        assert kept is not None, "an image was labeled without a mask"
        path = self.collected.run_folder / "annotations" / kept
        try:
            return read_mask(path, self.size(self.positions[index]))
        except UnreadableImage as error:
            raise UnreadableImage(f"{path} cannot be read: {error}") from None


@dataclass(frozen=True, eq=False)
class GivenMasks:
    """Masks of a test set, held as PNG data, which takes a fraction of their size."""

    packed: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.packed)

    def mask(self, index: int) -> Mask:
        with Image.open(io.BytesIO(self.packed[index])) as image:
            return np.array(image)


def labeled_folder(
    test: str, rules: Rules, convert: Callable[[Label], T]
) -> tuple[Path, dict[str, T]]:
    """Read a folder of images with their annotations, in any format that people may return.

    Returns:
        The folder of the images, and the converted label of each labeled image by its name.

    Raises:
        InvalidSetting: There is no annotated image, or an annotation cannot be used: a test set
            must be right.
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
        InvalidSetting: They are no list of distinct, printable names, or too few for the task.
    """
    least = 1 if kind in ("detection", "pose") else 2
    listed_ = isinstance(names, (list, tuple))
    if listed_:  # YAML reads a name such as 7 as a number
        names = [str(name) if isinstance(name, int) else name for name in names]
    if (
        not listed_
        or not all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
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
