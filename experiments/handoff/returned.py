"""Read returned annotations: the files in a folder, recognized by their content.

CSV (`name,label`), folders named for classes, Pascal VOC, COCO, CVAT for images, Label Studio's
JSON, JSON-MIN and CSV, YOLO's folders, masks, and zip archives of all these. A file that cannot be
used, or a part of it, is a `Problem`; the rest counts. A file is opened by `data.untrusted` only,
and a mask is decoded once its size is known to be its image's.
"""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from pathlib import Path, PurePosixPath

from experiments.data.archives import ARCHIVES, ZIP, unpacked
from experiments.data.labels import Found, Label, Problem, Relative, Rules, Size, UnusableFile
from experiments.data.untrusted import (
    MAX_BYTES,
    open_untrusted,
    opened_image,
    parse_json,
    parse_xml,
    read_untrusted,
)
from experiments.handoff import coco, cvat, label_studio, label_studio_min, tables, voc, yolo
from experiments.handoff.masks import LABELMAP, png_size, read_labelmap, read_png
from experiments.handoff.names import ImageNames
from experiments.settings.wording import is_utf8

PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
    ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
INSTANCES = "SegmentationObject"
"""Folder of CVAT and VOC with masks that tell objects of one class apart: not used here."""
TABLES = (".csv", ".json", ".txt", ".xml", ".yaml", ".yml", ".names")
"""Endings of the files that are read, beside images."""
MAX_MASK_BYTES, MAX_LABELMAP_BYTES = 64 * 2**20, 2**20
"""The first is a mask of 67 million pixels without any compression."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The annotation of one image.

    Attributes:
        name: Name of the image in the pool.
        label: Its label.
        source: The file, below the folder in which annotations come back; for one in an archive,
            the archive and its path in it.
    """

    name: str
    label: Label
    source: str


def files_in(folder: Path) -> dict[str, str]:
    """Return path -> fingerprint (size and time of change) of the files, the oldest first.

    Links to folders are followed; each folder is visited once.
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
            except OSError:  # a link that leads nowhere is reported when it is read
                status = path.lstat()
            name = path.relative_to(folder).as_posix()
            found.append((status.st_mtime_ns, name, f"{status.st_size}-{status.st_mtime_ns}"))
    return {name: fingerprint for _, name, fingerprint in sorted(found)}


def read_file(
    folder: Path,
    source: str,
    rules: Rules,
    names: ImageNames,
    size_of: Callable[[str], Size],
) -> Iterator[Answer | Problem]:
    """Read one file. Whatever is wrong with it is a problem, never an error.

    Args:
        folder: Folder in which annotations come back.
        source: The file, below it.
        rules: Classes and task.
        names: Names of the pool's images.
        size_of: Returns (height, width) of an image of the pool, to check boxes and masks against;
            raises UnusableFile where the image cannot be read.
    """
    try:
        if not is_utf8(source):
            raise UnusableFile("its name is not UTF-8: rename it")
        if PurePosixPath(source).suffix.lower() == ZIP:
            yield from _in_archive(folder, source, rules, names, size_of)
            return
        for found, stem in _found(folder, source, rules):
            if isinstance(found, Problem):
                yield Problem(f"{source}, {found.where}", found.why)
                continue
            try:
                name = names.find(found.names, stem=stem)
                yield Answer(name, _label_for(found, name, size_of), source)
            except UnusableFile as error:
                where = "" if stem or not found.names else f", {found.names[0]}"
                yield Problem(f"{source}{where}", str(error))
    except UnusableFile as error:
        yield Problem(source, str(error))
    except OSError as error:
        yield Problem(source, error.strerror or str(error))


def _in_archive(
    folder: Path,
    source: str,
    rules: Rules,
    names: ImageNames,
    size_of: Callable[[str], Size],
) -> Iterator[Answer | Problem]:
    """Unpack an archive into a folder that is removed, and read the files in it.

    All are unpacked before the first is read, since some need another one beside them.
    """
    with tempfile.TemporaryDirectory(prefix="learning-loss-") as place:
        unfit: list[Problem] = []
        inner: list[PurePosixPath] = []
        for one in unpacked(
            folder / source, Path(place), inside=folder, size_limit=partial(_wanted_bytes, rules)
        ):
            if isinstance(one, Problem):
                unfit.append(one)
            else:
                inner.append(one)
        for problem in unfit:
            yield replace(problem, where=f"{source}/{problem.where}")
        for path in inner:
            for found in read_file(Path(place), str(path), rules, names, size_of):
                if isinstance(found, Problem):
                    yield replace(found, where=f"{source}/{found.where}")
                else:
                    yield replace(found, source=f"{source}/{found.source}")


def _wanted_bytes(rules: Rules, path: PurePosixPath) -> int | None:
    """Return the most bytes that are read of a file in an archive; see `archives.unpacked`."""
    suffix = path.suffix.lower()
    if rules.kind == "segmentation" and suffix == ".png":
        return MAX_MASK_BYTES
    if suffix in PICTURES:  # the folder of an image is its label
        return 0 if rules.kind == "classification" else None
    return MAX_BYTES if suffix in TABLES else None


def _found(folder: Path, source: str, rules: Rules) -> Iterator[tuple[Found | Problem, bool]]:
    """Yield the labels of a file, and whether it names images by their stems."""
    path, inner = folder / source, PurePosixPath(source)
    suffix = inner.suffix.lower()
    if suffix in ARCHIVES:
        raise UnusableFile("it is an archive other than zip: unpack it here")
    if suffix in PICTURES and rules.kind == "classification":
        yield tables.read_class_folder(inner, path, rules), False
    elif suffix == ".png" and rules.kind == "segmentation" and INSTANCES not in inner.parts:
        yield _mask(folder, inner, rules), True
    elif suffix == ".txt" and rules.kind != "classification":
        is_label = yolo.is_annotation(path, folder)
        if is_label and (drawn := yolo.read(path, folder, rules)) is not None:
            yield drawn, True
    elif suffix == ".csv":
        data = read_untrusted(path, inside=folder)
        rows = label_studio_min.rows_in(data)
        read = tables.read_csv(data, rules) if rows is None else label_studio_min.read(rows, rules)
        yield from ((one, False) for one in read)
    elif suffix == ".xml":
        yield from _in_xml(read_untrusted(path, inside=folder), inner, rules)
    elif suffix == ".json":
        content = parse_json(read_untrusted(path, inside=folder))
        if isinstance(content, list) and label_studio_min.is_minimal(content):
            yield from ((one, False) for one in label_studio_min.read(content, rules))
        elif isinstance(content, list):
            yield from ((one, False) for one in label_studio.read(content, rules))
        elif isinstance(content, dict):
            yield from ((one, False) for one in coco.read(content, rules))
        else:
            raise UnusableFile("it is neither COCO's nor Label Studio's JSON")


def _in_xml(
    data: bytes, inner: PurePosixPath, rules: Rules
) -> Iterator[tuple[Found | Problem, bool]]:
    root = parse_xml(data)
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
        if os.path.lexists(parent / LABELMAP):
            rules = replace(rules, colors=_colors(parent / LABELMAP, folder))
            break
    data = read_untrusted(path, inside=folder, max_bytes=MAX_MASK_BYTES)
    return Found((str(inner),), lambda: Label(mask=read_png(data, rules)), png_size(data))


def _colors(file: Path, folder: Path) -> dict[tuple[int, int, int], str]:
    try:
        return read_labelmap(read_untrusted(file, inside=folder, max_bytes=MAX_LABELMAP_BYTES))
    except UnusableFile as error:
        raise UnusableFile(f"{LABELMAP} beside it: {error}") from None


def _label_for(found: Found, name: str, size_of: Callable[[str], Size]) -> Label:
    """Return the label if it was drawn on an image of the size of this one.

    Raises:
        UnusableFile: It was drawn on another size, is damaged, or a box is not inside the image.
    """
    drawn = found.label
    if isinstance(drawn, Label) and not drawn.boxes:
        return drawn
    height, width = size_of(name)
    if isinstance(drawn, Relative):
        drawn = drawn.on((height, width))
    if found.size is not None and found.size != (height, width):
        raise UnusableFile(
            f"{name} has {width}x{height} pixels, what is drawn on it "
            f"{found.size[1]}x{found.size[0]}"
        )
    label = drawn if isinstance(drawn, Label) else drawn()
    for box in label.boxes or ():
        x_min, y_min, x_max, y_max = box.corners
        inside = min(x_max, width) - max(x_min, 0), min(y_max, height) - max(y_min, 0)
        if not min(inside) >= 1 or not all(map(isfinite, box.corners)):
            raise UnusableFile(
                f"the box {', '.join(f'{edge:g}' for edge in box.corners)} of a {box.class_name} "
                f"is not in {name}, which has {width}x{height} pixels, or is smaller than a pixel"
            )
    return label


def upright_size(path: Path) -> Size:
    """Return (height, width) of an image as a person sees it, from its header.

    Raises:
        UnusableFile: It cannot be read.
    """
    try:
        with open_untrusted(path) as file, opened_image(file) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (UnusableFile, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnusableFile(f"the image {path.name} cannot be read: {reason}") from None
    return (width, height) if turned else (height, width)


def is_class_folder(source: str, rules: Rules) -> bool:
    """Tell whether a file answers by the folder that it lies in."""
    return rules.kind == "classification" and PurePosixPath(source).suffix.lower() in PICTURES


def one_class_each(answers: Sequence[Answer]) -> tuple[list[Answer], list[Problem]]:
    """Separate images that lie in the folders of two classes: which one is meant is unknown."""
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
