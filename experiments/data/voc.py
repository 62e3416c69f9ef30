"""Pascal VOC (Everingham et al., IJCV 2010), and any set of images in its layout.

`Annotations/*.xml`, `JPEGImages/*`, and `ImageSets/Main/*.txt` with one image name a line. The
annotations themselves are read by `experiments.data.voc_xml`.
Differs: amdegroot/ssd.pytorch @ 5b0b77f takes one off all four corners, which makes boxes a pixel
smaller; the last pixel of an object belongs to it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from al_core.errors import InvalidSetting
from experiments.data.class_names import warn_doubtful_names
from experiments.data.detection import (
    ObjectDetection,
    Objects,
    check_disjoint,
    size_check,
    tidied,
    warn_unreadable,
)
from experiments.data.folders import find_images, lies_below
from experiments.data.labels import Box, UnusableFile, shown, stated_size
from experiments.data.pictures import FilePictures
from experiments.data.untrusted import parse_xml, read_untrusted
from experiments.data.voc_xml import objects_in
from experiments.settings.checks import check_flag, check_folder

CLASS_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip
"""The classes, in the order that published weights were trained with."""

ARCHIVES = {
    (2007, "trainval"): "VOCtrainval_06-Nov-2007.tar (439 MB)",
    (2007, "test"): "VOCtest_06-Nov-2007.tar (430 MB)",
    (2012, "trainval"): "VOCtrainval_11-May-2012.tar (1.9 GB)",
}


def voc(
    root: str | Path, *, download: bool = False, years: Sequence[int] = (2007, 2012)
) -> ObjectDetection:
    """Return Pascal VOC as SSD uses it: 16,551 images to train, 4,952 to test, 20 classes.

    Args:
        root: Folder that has (or gets) `VOCdevkit/VOC2007` and `VOCdevkit/VOC2012`, as torchvision
            lays them out.
        download: Fetch the archives (2.8 GB) where something is missing; torchvision checks their
            MD5 sums.
        years: Whose trainval parts are the pool, in this order; the test set is that of 2007.

    Raises:
        InvalidSetting: The images are missing, or could not be downloaded.
    """
    folder = check_folder("data.root", root)
    check_flag("data.download", download)
    if not list(years) or not set(years) <= {2007, 2012} or len(set(years)) != len(list(years)):
        raise InvalidSetting(f"data.years must be some of 2007 and 2012; it is {list(years)}")
    wanted = [(year, "trainval") for year in years] + [(2007, "test")]
    for year, split in wanted:
        if not _is_there(folder, year, split):
            _fetch(folder, year, split, wanted, download=download)
    pool = [_Split(folder / "VOCdevkit" / f"VOC{year}", "trainval", "VOC") for year in years]
    test = [_Split(folder / "VOCdevkit" / "VOC2007", "test", "VOC")]
    return _detection(pool, test, class_names=CLASS_NAMES, flip=True)


def voc_folder(
    root: str | Path,
    *,
    train_split: str = "trainval",
    test_split: str = "test",
    class_names: Sequence[str] | None = None,
    flip: bool = True,
) -> ObjectDetection:
    """Return images in the layout of Pascal VOC.

    Images may be of any common format and lie at any depth in `JPEGImages`; a name in a split is
    the file's path there, with or without its ending. An image that cannot be read, or whose
    annotation is missing, no XML or for another size of image, is left out and named in the run
    folder's `quarantine.csv`.

    Args:
        root: Folder with `Annotations`, `JPEGImages` and `ImageSets/Main`.
        train_split: The pool: a file of `ImageSets/Main`, without its ending.
        test_split: The test set, likewise.
        class_names: Null for all names in the annotations of the pool, sorted.
        flip: False if mirror images are not of the same class, as with text.

    Raises:
        InvalidSetting: The layout is another one, an image is in both splits, or nothing is left.
    """
    folder = check_folder("data.root", root)
    check_flag("data.flip", flip)
    for key, split in (("train_split", train_split), ("test_split", test_split)):
        if not isinstance(split, str):
            raise InvalidSetting(f"data.{key} must be the name of a split; it is {split!r}")
    if class_names is not None and (
        isinstance(class_names, str)
        or not all(isinstance(name, str) for name in class_names)
        or not len(set(class_names)) == len(class_names) > 0
    ):
        raise InvalidSetting(
            f"data.class_names must be a list of distinct names or null; it is {class_names!r}"
        )
    layout = "Annotations/*.xml, JPEGImages/* and ImageSets/Main/*.txt"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        if not (folder / part).is_dir():
            raise InvalidSetting(f"data.root: {folder} must hold {layout}; it has no {part}")
    train, test = _Split(folder, train_split, ""), _Split(folder, test_split, "")
    names = None if class_names is None else tuple(class_names)
    return _detection([train], [test], class_names=names, flip=flip)


def _is_there(folder: Path, year: int, split: str) -> bool:
    base = folder / "VOCdevkit" / f"VOC{year}"
    return (base / "ImageSets" / "Main" / f"{split}.txt").is_file() and all(
        (base / part).is_dir() for part in ("Annotations", "JPEGImages")
    )


def _fetch(
    folder: Path, year: int, split: str, wanted: list[tuple[int, str]], *, download: bool
) -> None:
    """Fetch and unpack one archive, or raise InvalidSetting with what to do instead."""
    missing = [ARCHIVES[part] for part in wanted if not _is_there(folder, *part)]
    advice = (
        f"unpack {', '.join(missing)} of http://host.robots.ox.ac.uk/pascal/VOC into {folder} so "
        f"that there are {folder}/VOCdevkit/VOC2007 and VOC2012, or set data.download=true to "
        "fetch them, or use data=digits backbone=light_ssd, which need no download"
    )
    if not download:
        raise InvalidSetting(f"Pascal VOC is not complete in {folder}: {advice}")
    from torchvision.datasets import VOCDetection  # 1.3 s to import, and only needed here

    try:
        VOCDetection(folder, year=str(year), image_set=split, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        found = " ".join(str(error).split())
        raise InvalidSetting(f"Pascal VOC could not be fetched ({found}): {advice}") from error


class _Split:
    """The images and annotations of a file in `ImageSets/Main`.

    Args:
        base: Folder of one VOC tree.
        split: Name of the file, without its ending.
        prefix: "VOC" where names start with the tree's own, else "".
    """

    def __init__(self, base: Path, split: str, prefix: str) -> None:
        lists = base / "ImageSets" / "Main"
        file = lists / f"{split}.txt"
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
            reason = "is not there" if not file.exists() else f"cannot be read ({error})"
            raise InvalidSetting(f"data: {file} {reason}; the splits are {there}") from None
        wanted = [line.strip() for line in lines if line.strip()]
        if not wanted:
            raise InvalidSetting(f"data: {file} names no image")
        if len(set(wanted)) != len(wanted):
            repeated = next(name for i, name in enumerate(wanted) if name in wanted[:i])
            raise InvalidSetting(f"data: {file} names {repeated} twice")
        images = base / "JPEGImages"
        if outside := [name for name in wanted if not lies_below(name)]:
            raise InvalidSetting(f"data: {file} names {shown(outside[0])}, which is not in {base}")
        known: dict[str, str] = {}
        for name in reversed(find_images(images).names):  # of equal stems the first one stays
            known[name] = known[str(Path(name).with_suffix(""))] = name
        found = [known.get(name, f"{name}.jpg") for name in wanted]
        self.names = [f"{base.name}/{name}" if prefix else name for name in found]
        self.paths = [images / name for name in found]
        self.annotations: list[list[Box]] = []
        self.sizes: list[tuple[int, int] | None] = []
        self.refused: dict[int, str] = {}
        for position, name in enumerate(found):
            size, objects = None, list[Box]()
            file = base / "Annotations" / Path(name).with_suffix(".xml")
            try:
                size, objects = _read_annotation(file)
            except UnusableFile as error:
                self.refused[position] = f"its annotation {file.name}: {error}"
            self.annotations.append(objects)
            self.sizes.append(size)


def _detection(
    pool: list[_Split],
    test: list[_Split],
    *,
    class_names: tuple[str, ...] | None,
    flip: bool,
) -> ObjectDetection:
    """Put the parts together."""
    check_disjoint(
        (str(path) for part in pool for path in part.paths),
        (str(path) for part in test for path in part.paths),
    )
    if class_names is None:
        counts = Counter(
            each.class_name for part in pool for image in part.annotations for each in image
        )
        class_names = tuple(sorted(counts))
        if not class_names:
            raise InvalidSetting("data: the annotations of the pool have no object")
        warn_doubtful_names(counts, advice="set data.class_names")
    train_pictures, train_objects = _part(pool, class_names, part="train")
    test_pictures, test_objects = _part(test, class_names, part="test")
    return ObjectDetection(
        train_pictures, train_objects, test_pictures, test_objects, class_names, flip
    )


def _part(
    splits: list[_Split], class_names: tuple[str, ...], *, part: str
) -> tuple[FilePictures, tuple[Objects, ...]]:
    refused: dict[int, str] = {}
    count = 0
    for split in splits:
        refused |= {count + position: reason for position, reason in split.refused.items()}
        count += len(split.paths)
    pictures = FilePictures(
        [path for split in splits for path in split.paths],
        [name for split in splits for name in split.names],
        refused=refused,
        check=size_check([size for split in splits for size in split.sizes]),
        progress=f"checking {part}",
    )
    warn_unreadable(pictures, part=part)
    annotations = [image for split in splits for image in split.annotations]
    return pictures, tidied(annotations, pictures, class_names, part=part)


def _read_annotation(file: Path) -> tuple[tuple[int, int] | None, list[Box]]:
    """Read one XML file: (height, width) of its image, if it says so, and the objects.

    Raises:
        UnusableFile: It is missing, no regular file, or no XML.
    """
    try:
        root = parse_xml(read_untrusted(file))
    except OSError as error:
        raise UnusableFile(error.strerror or str(error)) from None
    return stated_size(root.findtext("size/height"), root.findtext("size/width")), [
        _without_area(box) if _is_click(box) else box for box in objects_in(root)
    ]


def _is_click(box: Box) -> bool:
    """Tell whether the first pixel is the last one: a click, not a drawn box."""
    x_min, y_min, x_max, y_max = box.corners
    return x_max - x_min == 1 or y_max - y_min == 1


def _without_area(box: Box) -> Box:
    """Return a box that is dropped, and counted, with the other boxes without area."""
    x_min, y_min, _, _ = box.corners
    return box._replace(corners=(x_min, y_min, x_min, y_min))
