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
from experiments.data.untrusted import Number, Whole, checked

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
    keypoints: Any = None
    skeleton: Any = None


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
    keypoints: Any = None
    area: Any = None


_FILE = TypeAdapter(_File)
_CATEGORY = TypeAdapter(_Category)
_IMAGE = TypeAdapter(_Image)
_ANNOTATION = TypeAdapter(_Annotation)
_BOX = TypeAdapter(tuple[Number, Number, Number, Number])
_NUMBERS = TypeAdapter(list[Number])
_NUMBER = TypeAdapter(Number)
_NAMES = TypeAdapter(list[str])
_BONES = TypeAdapter(list[tuple[Whole, Whole]])

Joints = tuple[tuple[str, ...], tuple[tuple[int, int], ...]]
"""Names of the keypoints of a category, and pairs of them, by position, that are connected."""


@dataclass(frozen=True)
class CocoAnnotation:
    """One object of an image.

    Attributes:
        where: Names it in messages: "annotation 7".
        class_name: Name of its category.
        is_crowd: Whether it stands for a crowd of objects.
        bbox: Its box as the file has it, unchecked; see `corners`.
        segmentation: Its outline as the file has it, unchecked.
        keypoints: Its joints as the file has them, unchecked; see `points`.
        area: Its area in square pixels, if the file states one.
        joint_names: Names of the joints of its category.
    """

    where: str
    class_name: str
    is_crowd: bool
    bbox: Any
    segmentation: Any
    keypoints: Any = None
    area: float | None = None
    joint_names: tuple[str, ...] = ()

    def points(self) -> list[tuple[float, float, int]]:
        """Return x and y in pixels and the visibility of each joint: 0, 1 or 2.

        Raises:
            UnusableFile: There are not three numbers a joint; the text names the annotation.
        """
        try:
            values = checked(_NUMBERS, self.keypoints)
            rows = list(zip(values[::3], values[1::3], values[2::3], strict=True))
            if len(rows) != len(self.joint_names) or any(row[2] not in (0, 1, 2) for row in rows):
                raise ValueError
        except (UnusableFile, ValueError):
            raise UnusableFile(
                f"{self.where}: keypoints must be x, y and 0, 1 or 2 for each of "
                f"{len(self.joint_names)} joints, they are {shown(self.keypoints)}"
            ) from None
        return [(x, y, int(visibility)) for x, y, visibility in rows]

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
        joints: By name of the category, of those that have keypoints.
        images: In the order of the file.
        problems: Entries that were left out and belong to no image.
    """

    class_names: Mapping[int | str, str]
    images: list[CocoImage]
    problems: list[Problem]
    joints: Mapping[str, Joints] = field(default_factory=dict)


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
    joints: dict[str, Joints] = {}
    class_names = _categories(file.categories, problems, joints)
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
                CocoAnnotation(
                    where,
                    class_name,
                    bool(one.iscrowd),
                    one.bbox,
                    one.segmentation,
                    one.keypoints,
                    _positive(one.area),
                    joints[class_name][0] if class_name in joints else (),
                )
            )
    if orphans:
        problems.append(
            Problem(
                "annotations",
                f"{len(orphans)} of images that the file does not list, the first is {orphans[0]}",
            )
        )
    return CocoFile(class_names, list(images.values()), problems, joints)


def _categories(
    entries: Iterable[Any], problems: list[Problem], joints: dict[str, Joints]
) -> dict[int | str, str]:
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
        elif one.keypoints:
            try:
                joints[one.name] = _joints(one)
            except UnusableFile as error:
                problems.append(Problem(where, str(error)))
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _joints(category: _Category) -> Joints:
    """Return the keypoints of a category; bones that name no joint are left out.

    Raises:
        UnusableFile: The names are not distinct texts.
    """
    try:
        found: list[str] = checked(_NAMES, category.keypoints)
    except UnusableFile:
        found = []
    names = tuple(found)
    if not names or len(set(names)) != len(names):
        raise UnusableFile(
            f"keypoints must be distinct names, they are {shown(category.keypoints)}"
        )
    try:
        bones = checked(_BONES, category.skeleton or [])
    except UnusableFile:
        bones = []
    # They count from 1.
    inside = [(a - 1, b - 1) for a, b in bones if {a - 1, b - 1} <= set(range(len(names)))]
    return names, tuple(inside)


def _positive(value: object) -> float | None:
    """Return a number above 0, None for anything else."""
    try:
        found = checked(_NUMBER, value)
    except UnusableFile:
        return None
    return found if found > 0 else None


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
