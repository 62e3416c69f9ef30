"""YOLO's folders: a text file for each image, and the names of the classes beside them.

A line is `class x y width height`, the center and the sides of a box in fractions of the image's
sides, or `class x1 y1 x2 y2 x3 y3 ...`, a polygon in the same units. A file with predictions has a
confidence after the box. The names are in `data.yaml` (a list or a mapping `names`), `classes.txt`
or `obj.names`, in the folder of the file or in one above it. Nothing of ultralytics is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import isfinite
from pathlib import Path, PurePosixPath

import yaml
from pydantic import TypeAdapter

from experiments.data.labels import (
    Box,
    Drawing,
    Found,
    Item,
    Label,
    Relative,
    Rules,
    Shape,
    Size,
    UnusableFile,
    shown,
)
from experiments.data.untrusted import Whole, checked, parse_text, read_untrusted
from experiments.handoff.regions import from_polygons, polygons_area

CLASS_LISTS = ("data.yaml", "data.yml", "dataset.yaml", "classes.txt", "obj.names")
"""Files that name the classes, in the order in which they are looked for in a folder."""
LABEL_FOLDERS = ("labels", "obj_train_data", "obj_valid_data", "obj_test_data")
"""Folders that hold nothing but annotations; the last three are CVAT's."""
OTHERS = ("classes.txt", "labelmap.txt", "train.txt", "valid.txt", "val.txt", "test.txt")
MAX_LABEL_BYTES, MAX_LIST_BYTES = 16 * 2**20, 2**17
"""The second is for names: 10,000 of them with 12 letters each."""
MAX_NESTED = 100
"""Limit for what may open lists and mappings in `data.yaml`; usual files have one or two."""


@dataclass(frozen=True)
class _Data:
    names: list[str | Whole] | dict[Whole, str | Whole]


_DATA = TypeAdapter(_Data)


def is_annotation(path: Path, folder: Path) -> bool:
    """Tell whether a text file holds annotations: by its folder, or by `classes.txt` beside it."""
    if path.name.lower() in OTHERS or path.name.lower().startswith("readme"):
        return False
    parts = path.relative_to(folder).parts[:-1]
    return any(part in LABEL_FOLDERS for part in parts) or os.path.lexists(
        path.parent / "classes.txt"
    )


def read(path: Path, folder: Path, rules: Rules) -> Found | None:
    """Read the annotation of one image.

    Args:
        path: The text file.
        folder: Folder in which annotations come back; nothing outside it is read.
        rules: Classes and task.

    Returns:
        The label, with names by stem; None for an image without objects, which perhaps nobody has
        opened.

    Raises:
        UnusableFile: It is damaged, or the names of the classes are missing.
        OSError: It cannot be read.
    """
    text = parse_text(read_untrusted(path, inside=folder, max_bytes=MAX_LABEL_BYTES))
    rows = [_numbers(row) for row in text.splitlines() if row.strip()]
    inner = path.relative_to(folder)
    names = (str(PurePosixPath(*inner.parts)),)
    if not rows and not rules.empty_is_answer:
        return None
    classes = _classes(path, folder) if rows else ()
    drawn = [(_class_name(row, classes), row[1:]) for row in rows]
    return Found(names, Relative(partial(_label, drawn, rules)))


def _numbers(row: str) -> list[float]:
    try:
        values = [float(cell) for cell in row.split()]
    except ValueError:
        values = []
    if len(values) < 5 or not all(map(isfinite, values)):
        raise UnusableFile(f"a line must be `class x y width height`, it is {shown(row)}")
    if any(abs(value) > 10 for value in values[1:]):
        raise UnusableFile(f"a line must be in fractions of the image's sides, it is {shown(row)}")
    return values


def _class_name(row: Sequence[float], classes: Sequence[str]) -> str:
    number = row[0]
    if not (number.is_integer() and 0 <= number < len(classes)):
        raise UnusableFile(f"there is no class number {number:g}; there are {len(classes)} classes")
    return classes[int(number)]


def _label(
    drawn: Sequence[tuple[str, Sequence[float]]], rules: Rules, size: Size
) -> Label | Drawing:
    height, width = size
    if rules.kind == "detection":
        label: Label | Drawing | None = rules.boxed(
            [Box(name, _corners(values, size)) for name, values in drawn]
        )
    else:
        shapes = []
        for name, values in drawn:
            if len(values) < 6 or len(values) % 2:
                raise UnusableFile("it holds boxes, and the task is segmentation")
            polygon = [
                value * (height if place % 2 else width) for place, value in enumerate(values)
            ]
            area = polygons_area([polygon], size)
            shapes.append(Shape(name, area, partial(from_polygons, [polygon], size)))
        label = rules.painted(shapes, size)
    assert label is not None, "it is not empty, or empty is an answer"
    return label


def _corners(values: Sequence[float], size: Size) -> tuple[float, float, float, float]:
    """Return corners in pixels: of a box, with a confidence or without, or around a polygon."""
    height, width = size
    if len(values) in (4, 5):
        x, y, w, h = values[:4]
        return (
            (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height,
        )  # fmt: skip
    if len(values) % 2:
        raise UnusableFile(f"a polygon needs an even number of values, it has {len(values)}")
    xs, ys = values[::2], values[1::2]
    return min(xs) * width, min(ys) * height, max(xs) * width, max(ys) * height


def _classes(path: Path, folder: Path) -> tuple[str, ...]:
    for parent in path.parents:
        if not parent.is_relative_to(folder):
            break
        for name in CLASS_LISTS:
            if os.path.lexists(parent / name):
                data = read_untrusted(parent / name, inside=folder, max_bytes=MAX_LIST_BYTES)
                try:
                    return class_names(data, is_yaml=name.endswith((".yaml", ".yml")))
                except UnusableFile as error:
                    raise UnusableFile(f"{name}: {error}") from None
    raise UnusableFile(
        "the names of the classes are missing: put data.yaml or classes.txt beside it, or above"
    )


@lru_cache(maxsize=4)  # one list serves every image of a folder
def class_names(data: bytes, *, is_yaml: bool) -> tuple[str, ...]:
    """Return the names in a list of classes.

    Raises:
        UnusableFile: It is no such list.
    """
    text = parse_text(data)
    if not is_yaml:
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    if text.count("[") + text.count("{") + text.count("- -") + text.count("? ") > MAX_NESTED:
        raise UnusableFile("it is not YAML of a usual form")  # nesting takes quadratic time
    try:
        for token in yaml.scan(text):
            # References to references grow without bound where mappings are merged.
            if isinstance(token, (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)):
                raise UnusableFile("it has anchors, aliases or tags, which are refused")
        names = checked(_DATA, yaml.safe_load(text)).names
    except yaml.YAMLError as error:
        raise UnusableFile(f"it is not YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError):
        raise UnusableFile("it is not YAML of a usual form") from None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise UnusableFile("names must be numbered 0, 1, 2, ...")
        names = [names[number] for number in range(len(names))]
    return tuple(map(str, names))


def write(items: Sequence[Item], rules: Rules, folder: Path) -> None:
    """Write `data.yaml`, `classes.txt` and `labels/`, with the drafts as boxes.

    An image without a draft gets no file.
    """
    labels = folder / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    names = dict(enumerate(rules.class_names))
    content = yaml.safe_dump({"names": names}, allow_unicode=True, sort_keys=False)
    (folder / "data.yaml").write_text(content, encoding="utf-8")
    listed = "".join(f"{name}\n" for name in rules.class_names)
    (folder / "classes.txt").write_text(listed, encoding="utf-8")
    for item in items:
        if item.draft is not None and item.draft.boxes is not None:
            target = labels / PurePosixPath(item.name).with_suffix(".txt")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(lines(item.draft, rules, item.size), encoding="utf-8")


def lines(label: Label, rules: Rules, size: Size, *, scores: bool = False) -> str:
    """Return the lines of one image.

    Args:
        label: Its boxes.
        rules: Classes.
        size: (height, width) in pixels of the image.
        scores: Whether a box that has a score gets it as a sixth value.
    """
    height, width = size
    written = []
    for box in label.boxes or ():
        x_min, y_min, x_max, y_max = box.corners
        values = [
            (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height,
            (x_max - x_min) / width, (y_max - y_min) / height,
        ]  # fmt: skip
        if scores and box.score is not None:
            values.append(box.score)
        cells = " ".join(f"{value:.6f}" for value in values)
        written.append(f"{rules.class_names.index(box.class_name)} {cells}\n")
    return "".join(written)
