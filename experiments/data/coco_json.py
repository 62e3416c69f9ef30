"""The JSON of COCO (Lin et al., ECCV 2014), for data sets and for annotations that come back.

A faulty entry is named and left out, and the rest counts. Boxes in the file are (x, y, width,
height) in pixels from 0, and become corners here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from experiments.data.labels import Problem, UnusableFile, shown, stated_size
from experiments.data.untrusted import Number, checked

Id = Annotated[int | str, Field(union_mode="left_to_right")]
"""A whole number, also as text, or any other text."""


@dataclass(frozen=True)
class _File:
    categories: list[Any]
    images: list[Any]
    annotations: list[Any]


@dataclass(frozen=True)
class _Category:
    id: Id
    name: str


@dataclass(frozen=True)
class _Image:
    id: Id
    file_name: str
    height: Any = None
    width: Any = None


@dataclass(frozen=True)
class _Annotation:
    image_id: Id
    category_id: Id
    id: Any = None
    bbox: Any = None
    segmentation: Any = None
    iscrowd: bool | None = None


_FILE = TypeAdapter(_File)
_CATEGORY = TypeAdapter(_Category)
_IMAGE = TypeAdapter(_Image)
_ANNOTATION = TypeAdapter(_Annotation)
_BOX = TypeAdapter(tuple[Number, Number, Number, Number])


@dataclass(frozen=True)
class CocoAnnotation:
    """One object of an image.

    Attributes:
        where: Names it in messages: "annotation 7".
        class_name: Name of its category.
        is_crowd: Whether it stands for a crowd of objects.
        bbox: Its box as the file has it, unchecked; see `corners`.
        segmentation: Its outline as the file has it, unchecked.
    """

    where: str
    class_name: str
    is_crowd: bool
    bbox: Any
    segmentation: Any

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """x_min, y_min, x_max, y_max in pixels.

        Raises:
            UnusableFile: There is no box of four numbers; the text names the annotation.
        """
        try:
            x, y, width, height = checked(_BOX, self.bbox)
        except UnusableFile:
            raise UnusableFile(
                f"{self.where}: bbox must be [x, y, width, height], it is {shown(self.bbox)}"
            ) from None
        return x, y, x + width, y + height


@dataclass
class CocoImage:
    """An image with its objects.

    Attributes:
        name: Its `file_name`.
        size: (height, width) in pixels, if the file states one.
        annotations: Its objects.
        faults: Parts of it that were left out, with their reasons, one line each.
    """

    name: str
    size: tuple[int, int] | None
    annotations: list[CocoAnnotation] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CocoFile:
    """A whole file.

    Attributes:
        class_names: By id of the category, ascending.
        images: In the order of the file.
        problems: Entries that were left out and belong to no image.
    """

    class_names: Mapping[int | str, str]
    images: list[CocoImage]
    problems: list[Problem]


def read_coco(content: object) -> CocoFile:
    """Read a parsed file.

    Raises:
        UnusableFile: It is not in COCO's format.
    """
    try:
        file = checked(_FILE, content)
    except UnusableFile as error:
        raise UnusableFile(f"it is not in COCO's format ({error})") from None
    problems: list[Problem] = []
    class_names = _categories(file.categories, problems)
    images = _images(file.images, problems)
    orphans = []
    for position, entry in enumerate(file.annotations):
        where = f"annotation {_named(entry, position)}"
        try:
            one = checked(_ANNOTATION, entry)
        except UnusableFile as error:
            image = images.get(_image_id(entry))
            if image is None:
                problems.append(Problem(where, str(error)))
            else:
                image.faults.append(f"{where}: {error}")
            continue
        image = images.get(one.image_id)
        if image is None:
            orphans.append(f"{where}, of image {one.image_id}")
        elif one.category_id not in class_names:
            image.faults.append(f"{where}: there is no category {shown(one.category_id)}")
        else:
            class_name = class_names[one.category_id]
            image.annotations.append(
                CocoAnnotation(where, class_name, bool(one.iscrowd), one.bbox, one.segmentation)
            )
    if orphans:
        problems.append(
            Problem(
                "annotations",
                f"{len(orphans)} of images that the file does not list, the first is {orphans[0]}",
            )
        )
    return CocoFile(class_names, list(images.values()), problems)


def _categories(entries: Iterable[Any], problems: list[Problem]) -> dict[int | str, str]:
    found: dict[int | str, str] = {}
    for position, entry in enumerate(entries):
        where = f"category {_named(entry, position)}"
        try:
            one = checked(_CATEGORY, entry)
        except UnusableFile as error:
            problems.append(Problem(where, str(error)))
            continue
        if found.setdefault(one.id, one.name) != one.name:
            problems.append(Problem(where, f"its id is that of {found[one.id]!r} too"))
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _images(entries: Iterable[Any], problems: list[Problem]) -> dict[int | str, CocoImage]:
    found: dict[int | str, CocoImage] = {}
    for position, entry in enumerate(entries):
        where = f"image {_named(entry, position)}"
        try:
            one = checked(_IMAGE, entry)
        except UnusableFile as error:
            problems.append(Problem(where, str(error)))
            continue
        if one.id in found:
            text = f"images {found[one.id].name} and {one.file_name} have the same id {one.id}"
            found[one.id].faults.append(text)
            problems.append(Problem(where, text))
        else:
            found[one.id] = CocoImage(one.file_name, stated_size(one.height, one.width))
    times = Counter(image.name for image in found.values())
    for image in found.values():
        if times[image.name] > 1:
            image.faults.append(f"the file lists it {times[image.name]} times")
    return found


def _named(entry: object, position: int) -> str:
    """Return the id of an entry, or its place in the file where it has none."""
    id_ = entry.get("id") if isinstance(entry, dict) else None
    return shown(id_) if isinstance(id_, (int, str)) else f"at position {position}"


def _image_id(entry: object) -> Any:
    """Return the image that an otherwise faulty annotation belongs to."""
    id_ = entry.get("image_id") if isinstance(entry, dict) else None
    return id_ if isinstance(id_, (int, str)) else None
