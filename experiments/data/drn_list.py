"""Images of your own in the layout of fyu/drn @ d75db2e: lists of images and of masks.

`<split>_images.txt` and `<split>_labels.txt` have one path per line, relative to the root; the same
line of both files belongs to one sample. `info.json` may have mean and std (RGB, in 0..1) and
`class_names`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from al_core.errors import InvalidSetting
from experiments.data.detection import check_disjoint
from experiments.data.folders import lies_below
from experiments.data.labels import shown
from experiments.data.palette import distinct_palette
from experiments.data.samples import ChannelValues
from experiments.data.segmentation import (
    MAX_CLASSES,
    Pair,
    SemanticSegmentation,
    picture_statistics,
    read_pairs,
)
from experiments.settings.checks import check_flag, check_folder

LAYOUT = "{train,val}_images.txt and {train,val}_labels.txt"


def drn_list(
    root: str | Path,
    *,
    train_split: str = "train",
    test_split: str = "val",
    class_names: Sequence[str] | None = None,
    flip: bool = True,
) -> SemanticSegmentation:
    """Read images and masks by lists. Masks have class numbers from 0, and 255 for no class.

    An image that cannot be read, or whose mask is unusable, is excluded and listed in the run
    folder's `quarantine.csv`. Names are the paths of the list.

    Args:
        root: Folder with the lists.
        train_split: Name of the pool's lists up to `_images.txt`.
        test_split: Name of the test set's lists up to `_images.txt`.
        class_names: Names in the order of the class numbers. Null for those of `info.json`, or, if
            it has none, `class_0` and so on, as many as the masks have.
        flip: False if mirrored images have other classes, such as text.

    Raises:
        InvalidSetting: A list is missing or does not match the other, an image is in both splits,
            or no image is usable.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    for key, split in (("train_split", train_split), ("test_split", test_split)):
        if not isinstance(split, str) or not split:
            raise InvalidSetting(f"data.{key} must be the name of a split; it is {split!r}")
    info = _info(folder)
    names = _class_names(info.get("class_names") if class_names is None else class_names)
    count = None if names is None else len(names)
    listed = {split: _pairs(folder, split) for split in (train_split, test_split)}
    check_disjoint(*([pair.name for pair in listed[s]] for s in (train_split, test_split)))
    train, train_masks, found = read_pairs(listed[train_split], part=train_split, num_classes=count)
    test, test_masks, more = read_pairs(listed[test_split], part=test_split, num_classes=count)
    if names is None:
        names = tuple(f"class_{label}" for label in range(max(found, more, 2)))
    mean, std = _values(info, "mean"), _values(info, "std")
    if mean is None or std is None:
        mean, std = picture_statistics(train)
    return SemanticSegmentation(
        train, train_masks, test, test_masks,
        class_names=names, palette=distinct_palette(len(names)), mean=mean, std=std, flip=flip,
    )  # fmt: skip


def _pairs(folder: Path, split: str) -> list[Pair]:
    images, masks = (_lines(folder / f"{split}_{kind}.txt") for kind in ("images", "labels"))
    if len(images) != len(masks):
        raise InvalidSetting(
            f"data: {split}_images.txt has {len(images)} lines and {split}_labels.txt {len(masks)}"
        )
    if outside := [name for name in (*images, *masks) if not lies_below(name)]:
        raise InvalidSetting(
            f"data: a list of {split} names {shown(outside[0])}, which is not in {folder}"
        )
    repeated = len(images) - len(set(images))
    if repeated:
        raise InvalidSetting(f"data: {split}_images.txt has {repeated} images twice")
    return [
        Pair(image, folder / image, folder / mask)
        for image, mask in zip(images, masks, strict=True)
    ]


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise InvalidSetting(
            f"data.root: {file.parent} must hold {LAYOUT}; {file.name} is not there or cannot be "
            "read; data=digits needs no files"
        ) from None
    return [line.strip() for line in lines if line.strip()]


def _info(folder: Path) -> Mapping[str, Any]:
    file = folder / "info.json"
    if not file.exists():
        return {}
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSetting(f"data: {file} cannot be read: {error}") from None
    if not isinstance(info, dict):
        raise InvalidSetting(f"data: {file} must be an object with mean and std")
    return info


def _class_names(given: Any) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = tuple(given) if isinstance(given, (list, tuple)) else ()
    fits = 2 <= len(names) <= MAX_CLASSES and len(set(names)) == len(names)
    if not fits or not all(isinstance(name, str) and name for name in names):
        raise InvalidSetting(
            f"data.class_names must be a list of 2 .. 255 distinct names or null; it is {given!r}"
        )
    return names


def _values(info: Mapping[str, Any], key: str) -> ChannelValues | None:
    values = info.get(key)
    if values is None:
        return None
    is_list = isinstance(values, list) and len(values) == 3
    if not is_list or not all(isinstance(v, (int, float)) and 0 < v < 1 for v in values):
        raise InvalidSetting(
            f"data: {key} in info.json must be three numbers between 0 and 1; it is {values!r}"
        )
    return (float(values[0]), float(values[1]), float(values[2]))
