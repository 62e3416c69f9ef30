"""Labeled images as a data set to train on elsewhere: one folder, with train and test apart."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from experiments.data.labels import Item, Rules, UnusableFile
from experiments.handoff import coco, voc, yolo
from experiments.handoff.masks import write_png

Splits = Mapping[str, Sequence[Item]]
"""Items by "train" and "test"; the label of an item is its `draft`."""
FORMATS = {
    "labels": ("classification", "detection", "segmentation", "pose"),
    "csv": ("classification", "detection", "segmentation"),
    "coco": ("detection", "segmentation", "pose"),
    "voc": ("detection",),
    "yolo": ("detection",),
}
"""Formats, with the tasks whose labels they hold."""
BOX_COLUMNS = ("x_min", "y_min", "x_max", "y_max", "difficult")


def check_dataset_format(name: str, rules: Rules) -> None:
    """Refuse a format that cannot hold the labels of the task.

    Raises:
        UnusableFile: The text lists the formats.
    """
    fitting = [one for one, kinds in FORMATS.items() if rules.kind in kinds]
    if name not in fitting:
        raise UnusableFile(f"labels of {rules.kind} go into {', '.join(fitting)}, not into {name}")


def write_dataset(
    splits: Splits, rules: Rules, format_name: str, folder: Path, *, images: str = "none"
) -> None:
    """Write the labels into an empty folder.

    `labels` is the form that a run takes back or as a test set: `labels.csv`, `coco.json` or
    `masks/`, with `splits.csv` beside the last two. `csv` is one table, with masks beside it.

    Args:
        splits: Labeled images.
        rules: Classes and task.
        format_name: One of `FORMATS`.
        folder: An empty folder.
        images: "none", or "link" or "copy" for the images themselves in `images/`.

    Raises:
        UnusableFile: The format does not hold the labels of the task, or two images would share a
            file.
        OSError: The disk is full, ...
    """
    check_dataset_format(format_name, rules)
    everything = [item for items in splits.values() for item in items]
    if format_name in ("voc", "yolo") or rules.kind == "segmentation":
        _check_stems(everything)
    if format_name == "csv" or (format_name == "labels" and rules.kind == "classification"):
        _write_csv(folder / "labels.csv", _rows(splits, rules))
        _write_masks(everything, folder)
    elif format_name == "labels":
        if rules.kind != "segmentation":
            _write_coco(everything, rules, folder / "coco.json")
        _write_masks(everything, folder)
        _write_csv(folder / "splits.csv", _splits(splits))
    elif format_name == "coco":
        for split, items in splits.items():
            _write_coco(items, rules, folder / f"{split}.json")
    elif format_name == "voc":
        voc.write(everything, rules, folder)
        (folder / "ImageSets" / "Main" / "default.txt").unlink()
        for split, items in splits.items():
            stems = [str(PurePosixPath(item.name).with_suffix("")) for item in items]
            _write_lines(folder / "ImageSets" / "Main" / f"{split}.txt", stems)
    else:
        _write_yolo(splits, everything, rules, folder)
    put_images(everything, folder / "images", images)


def put_images(items: Sequence[Item], folder: Path, how: str) -> None:
    """Link or copy the images into a folder, under their names; nothing for "none"."""
    for item in items if how != "none" else ():
        target = folder / item.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if how == "copy":
            shutil.copy2(item.path, target)
        else:
            os.symlink(item.path.resolve(), target)


def _rows(splits: Splits, rules: Rules) -> Iterator[Sequence[Any]]:
    """Yield the head and the rows of the table: one for each image, or for each box."""
    if rules.kind == "classification":
        yield "name", "label", "split"
    elif rules.kind == "detection":
        yield "name", "class", *BOX_COLUMNS, "split"
    else:
        yield "name", "mask", "split"
    for split, items in splits.items():
        for item in items:
            label = item.draft
            assert label is not None, "the image is labeled"
            if rules.kind == "classification":
                yield item.name, label.class_name, split
            elif rules.kind == "segmentation":
                yield item.name, f"masks/{_mask_name(item)}", split
            else:
                for box in label.boxes or ():
                    yield item.name, box.class_name, *box.corners, int(box.difficult), split
                if not label.boxes:  # an image without objects
                    yield item.name, "", *("" for _ in BOX_COLUMNS), split


def _splits(splits: Splits) -> Iterator[Sequence[str]]:
    yield "name", "split"
    for split, items in splits.items():
        yield from ((item.name, split) for item in items)


def _write_yolo(splits: Splits, everything: Sequence[Item], rules: Rules, folder: Path) -> None:
    yolo.write(everything, rules, folder)
    content = {  # without `path`, which trainers take from other folders than that of this file
        "train": "train.txt",
        "val": "test.txt",
        "names": dict(enumerate(rules.class_names)),
    }
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    for split, items in splits.items():
        _write_lines(folder / f"{split}.txt", [f"./images/{item.name}" for item in items])


def _write_coco(items: Sequence[Item], rules: Rules, path: Path) -> None:
    # A label has no score, and a drawn mask is no crowd of the model's.
    content = coco.write([replace(item, score=None) for item in items], rules)
    content["info"] = {"description": "labels of people"}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _write_masks(items: Sequence[Item], folder: Path) -> None:
    for item in items:
        if item.draft is not None and item.draft.mask is not None:
            target = folder / "masks" / _mask_name(item)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(write_png(item.draft.mask))


def _mask_name(item: Item) -> str:
    return str(PurePosixPath(item.name).with_suffix(".png"))


def _check_stems(items: Sequence[Item]) -> None:
    owners: dict[PurePosixPath, str] = {}
    for item in items:
        other = owners.setdefault(PurePosixPath(item.name).with_suffix(""), item.name)
        if other != item.name:
            raise UnusableFile(
                f"{item.name} and {other} would share one file of labels: rename one of them, or "
                "export csv or coco"
            )


def _write_csv(path: Path, rows: Iterator[Sequence[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
