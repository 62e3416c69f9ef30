"""Sets in COCO's format (Lin et al., ECCV 2014): a folder of images and a JSON file a part.

Boxes in the files are (x, y, width, height), edges of pixels counted from 0. Objects that are
marked `iscrowd` become difficult ones.
Differs: pycocotools lets any number of detections fall into a crowd and measures their overlap by
their own area; here a crowd is a difficult object like any other.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from al_core.errors import InvalidSetting
from experiments.data.class_names import warn_doubtful_names
from experiments.data.coco_json import read_coco
from experiments.data.detection import (
    ObjectDetection,
    Objects,
    check_disjoint,
    size_check,
    tidied,
    warn_unreadable,
)
from experiments.data.folders import lies_below
from experiments.data.labels import Box, Problem, UnusableFile
from experiments.data.pictures import FilePictures
from experiments.data.untrusted import parse_json, read_untrusted
from experiments.settings.checks import check_flag, check_folder
from experiments.settings.wording import counted, listed

log = logging.getLogger(__name__)

MAX_BYTES, MAX_PARTS = 8 * 2**30, 256_000_000
"""Largest file that is read: a data set of one's own may be larger than what people send back."""


def coco(
    root: str | Path,
    *,
    train_annotations: str = "annotations/instances_train2017.json",
    train_images: str = "train2017",
    test_annotations: str = "annotations/instances_val2017.json",
    test_images: str = "val2017",
    flip: bool = True,
) -> ObjectDetection:
    """Images with objects in COCO's format: COCO itself, or the export of an annotation tool.

    Classes are the categories of the pool's file, by id. An image that is listed but missing, or of
    another size than the file states, is left out and named in the run folder's `quarantine.csv`. A
    faulty entry of the file is left out and named in the log.

    Args:
        root: Folder that the other four are relative to.
        train_annotations: JSON file of the pool.
        train_images: Folder of its images.
        test_annotations: JSON file of the test set; its categories are matched by name.
        test_images: Folder of its images.
        flip: False if mirror images are not of the same class, as with text.

    Raises:
        InvalidSetting: A file is missing or not of this format, an image is in both parts, or
            nothing is left.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    parts = []
    for part, file, images in (
        ("train", train_annotations, train_images),
        ("test", test_annotations, test_images),
    ):
        for key, value in ((f"{part}_annotations", file), (f"{part}_images", images)):
            if not isinstance(value, str):
                raise InvalidSetting(f"data.{key} must be a path below data.root; it is {value!r}")
            if not (folder / value).exists():
                raise InvalidSetting(
                    f"data.{key}: {folder / value} is not there; put COCO's images and annotations "
                    "(https://cocodataset.org/#download) or those of your own there, set the four "
                    "paths, or use data=digits backbone=light_ssd, which need no download"
                )
        parts.append(_read(folder / file, folder / images))
    train, test = parts
    counts = Counter(each.class_name for image in train.annotations for each in image)
    warn_doubtful_names(
        {name: counts[name] for name in train.class_names}, advice="merge the categories"
    )
    check_disjoint(map(str, train.paths), map(str, test.paths))
    train_pictures, train_objects = _part(train, train.class_names, part="train")
    test_pictures, test_objects = _part(test, train.class_names, part="test")
    return ObjectDetection(
        train_pictures, train_objects, test_pictures, test_objects, train.class_names, flip
    )


@dataclass(frozen=True)
class _File:
    class_names: tuple[str, ...]
    names: list[str]
    paths: list[Path]
    annotations: list[list[Box]]
    sizes: list[tuple[int, int] | None]


def _read(file: Path, images: Path) -> _File:
    """Read one JSON file; faulty entries are logged and left out.

    Raises:
        InvalidSetting: It is not of COCO's format.
    """
    try:
        data = read_untrusted(file, max_bytes=MAX_BYTES)
        content = read_coco(parse_json(data, max_parts=MAX_PARTS))
    except UnusableFile as error:
        raise InvalidSetting(f"data: {file}: {error}") from None
    except OSError as error:
        raise InvalidSetting(f"data: {file} cannot be read: {error.strerror}") from None
    class_names = tuple(content.class_names.values())
    if not class_names or len(set(class_names)) != len(class_names):
        raise InvalidSetting(f"data: {file} must have categories of distinct names")
    faults = list(content.problems)
    ordered = sorted(
        (image for image in content.images if lies_below(image.name)), key=lambda image: image.name
    )
    faults += [
        Problem(image.name, f"its path leads out of {images}")
        for image in content.images
        if not lies_below(image.name)
    ]
    names = [image.name for image in ordered]
    if len(set(names)) != len(names):
        raise InvalidSetting(f"data: {file} lists an image twice")
    boxes: list[list[Box]] = []
    for image in ordered:
        boxes.append([])
        for each in image.annotations:
            try:
                boxes[-1].append(Box(each.class_name, each.corners, each.is_crowd))
            except UnusableFile as error:
                image.faults.append(str(error))
        faults += [Problem(image.name, fault) for fault in image.faults]
    if faults:
        log.warning(
            "%s: %s left out:\n%s", file, counted(len(faults), "entry", "entries"), listed(faults)
        )
    return _File(
        class_names, names, [images / name for name in names], boxes, [i.size for i in ordered]
    )


def _part(
    file: _File, class_names: tuple[str, ...], *, part: str
) -> tuple[FilePictures, tuple[Objects, ...]]:
    pictures = FilePictures(
        file.paths, file.names, check=size_check(file.sizes), progress=f"checking {part}"
    )
    warn_unreadable(pictures, part=part)
    return pictures, tidied(file.annotations, pictures, class_names, part=part)
