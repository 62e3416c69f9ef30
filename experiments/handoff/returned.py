"""Annotations that came back: whatever lies in a folder, told apart by what it is.

CSV (`name,label`), folders named for classes, Pascal VOC, COCO, CVAT for images, Label Studio's
JSON, masks. A file that cannot be used, or a part of it, is a `Problem`; the rest counts.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from PIL import Image

from experiments.data.labels import Found, Label, Problem, Rules, UnusableFile
from experiments.data.untrusted import parse_json, parse_xml
from experiments.handoff import coco, cvat, label_studio, tables, voc
from experiments.handoff.masks import LABELMAP, read_labelmap, read_png
from experiments.handoff.names import ImageNames
from experiments.settings.wording import is_utf8

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
INSTANCES = "SegmentationObject"
"""CVAT and VOC keep there what tells objects of one class apart, which nothing here asks for."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back for one image.

    Attributes:
        name: Of the image in the pool.
        label: What is said of it.
        source: The file, below the folder of what came back.
    """

    name: str
    label: Label
    source: str


def files_in(folder: Path) -> dict[str, str]:
    """Return path -> fingerprint (size and time of change) of the files, the oldest first.

    Links to folders are followed, each folder is looked through once.
    """
    found: list[tuple[int, str, str]] = []
    visited: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        place = os.stat(parent)
        if (place.st_dev, place.st_ino) in visited:  # a link in a circle
            folders.clear()
            continue
        visited.add((place.st_dev, place.st_ino))
        folders[:] = sorted(one for one in folders if one[0] != "." and one != "__MACOSX")
        for file in files:
            path = Path(parent, file)
            if file.startswith("."):
                continue
            try:
                status = path.stat()
            except OSError:  # a link that leads nowhere: told when it is read
                status = path.lstat()
            name = path.relative_to(folder).as_posix()
            found.append((status.st_mtime_ns, name, f"{status.st_size}-{status.st_mtime_ns}"))
    return {name: fingerprint for _, name, fingerprint in sorted(found)}


def read_file(
    folder: Path,
    source: str,
    rules: Rules,
    names: ImageNames,
    size_of: Callable[[str], tuple[int, int]],
) -> Iterator[Answer | Problem]:
    """Read one file.

    Args:
        folder: Of what came back.
        source: The file, below it.
        rules: Names of the classes, and what counts as an answer.
        names: Of the pool.
        size_of: Returns (height, width) of an image of the pool, to check boxes and masks against.
            It raises UnusableFile where there is no such image now.
    """
    try:
        if not is_utf8(source):
            raise UnusableFile("its name is not UTF-8: rename it")
        for found, stem in _found(folder, source, rules):
            if isinstance(found, Problem):
                yield Problem(f"{source}, {found.where}", found.why)
                continue
            try:
                name = names.find(found.names, stem=stem)
                _check(found, name, size_of)
                yield Answer(name, found.label, source)
            except UnusableFile as error:
                where = "" if len(found.names) == 0 else f", {found.names[0]}"
                yield Problem(f"{source}{where}" if not stem else source, str(error))
    except UnusableFile as error:
        yield Problem(source, str(error))
    except OSError as error:
        yield Problem(source, error.strerror or str(error))


def _found(folder: Path, source: str, rules: Rules) -> Iterator[tuple[Found | Problem, bool]]:
    """Yield what a file says, and whether it names images by their stems."""
    path, inner = folder / source, PurePosixPath(source)
    suffix = inner.suffix.lower()
    if suffix in ARCHIVES:
        raise UnusableFile("it is an archive: unpack it here")
    if suffix == ".csv":
        yield from ((one, False) for one in tables.read_csv(path, rules))
    elif suffix == ".xml":
        yield from _in_xml(path, inner, rules)
    elif suffix == ".json":
        content = parse_json(path.read_bytes())
        if isinstance(content, list):
            yield from ((one, False) for one in label_studio.read(content, rules))
        elif isinstance(content, dict):
            yield from ((one, False) for one in coco.read(content, rules))
        else:
            raise UnusableFile("it is neither COCO's nor Label Studio's JSON")
    elif suffix in PICTURES and rules.kind == "classification":
        yield tables.read_class_folder(inner, path, rules), False
    elif suffix == ".png" and rules.kind == "segmentation" and INSTANCES not in inner.parts:
        yield _mask(folder, inner, rules), True


def _in_xml(
    path: Path, inner: PurePosixPath, rules: Rules
) -> Iterator[tuple[Found | Problem, bool]]:
    root = parse_xml(path.read_bytes())
    if root.tag == "annotations":
        yield from ((one, False) for one in cvat.read(root, rules))
    elif root.tag != "annotation":
        raise UnusableFile(f"its root is {root.tag!r}: neither of Pascal VOC nor of CVAT")
    elif rules.kind != "detection":
        raise UnusableFile(f"Pascal VOC's XML holds boxes, the task is {rules.kind}")
    elif (one := voc.read(root, inner, rules)) is not None:
        yield one, True


def _mask(folder: Path, inner: PurePosixPath, rules: Rules) -> Found:
    path = folder / inner
    if rules.refusal in inner.parts[:-1]:
        return Found((str(inner),), Label(refused=True))
    for parent in path.parents:
        if not parent.is_relative_to(folder):
            break
        if (parent / LABELMAP).is_file():
            rules = replace(rules, colors=read_labelmap(parent / LABELMAP))
            break
    return Found((str(inner),), Label(mask=read_png(path.read_bytes(), rules)))


def _check(found: Found, name: str, size_of: Callable[[str], tuple[int, int]]) -> None:
    """Refuse what is drawn on another image than the one it is for, or on another size of it."""
    label = found.label
    if label.mask is None and not label.boxes:
        return
    height, width = size_of(name)
    drawn_on = found.size if label.mask is None else label.mask.shape
    if drawn_on not in (None, (height, width)):
        raise UnusableFile(
            f"{name} has {width}x{height} pixels, what is drawn on it {drawn_on[1]}x{drawn_on[0]}"
        )
    for box in label.boxes or ():
        x_min, y_min, x_max, y_max = box.corners
        inside = min(x_max, width) - max(x_min, 0), min(y_max, height) - max(y_min, 0)
        if min(inside) < 1:
            raise UnusableFile(
                f"the box {', '.join(f'{edge:g}' for edge in box.corners)} of a {box.class_name} "
                f"is not in {name}, which has {width}x{height} pixels, or is smaller than a pixel"
            )


def upright_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of an image as a person sees it, from its header.

    Raises:
        UnusableFile: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnusableFile(f"the image {path.name} cannot be read: {error}") from None
    return (width, height) if turned else (height, width)


def is_class_folder(source: str, rules: Rules) -> bool:
    """Tell whether a file answers by the folder that it lies in."""
    return rules.kind == "classification" and PurePosixPath(source).suffix.lower() in PICTURES


def one_class_each(answers: Sequence[Answer]) -> tuple[list[Answer], list[Problem]]:
    """Take out images that lie in the folders of two classes: nobody knows which is meant."""
    by_name: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_name[answer.name].append(answer)
    kept, problems = [], []
    for name, given in by_name.items():
        if len({(one.label.class_name, one.label.refused) for one in given}) == 1:
            kept += given
            continue
        for one in given:
            other = next(each.source for each in given if each is not one)
            problems.append(Problem(one.source, f"{name} lies in {other} too: keep one of them"))
    return kept, problems
