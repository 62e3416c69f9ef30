"""Hostile annotation files: one problem with its place, in little time and memory, and no error."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiments.data.labels import Problem
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import files_in, read_file, upright_size
from tests.experiments.handoff.items import rules

NAME, HEIGHT, WIDTH = "plain.png", 48, 64
PIXELS = HEIGHT * WIDTH
MAX_SECONDS, MAX_BYTES = 5.0, 300 * 2**20
HUGE = 10**400


def coco(**annotation: Any) -> bytes:
    """Return a file of COCO with one annotation."""
    image = {"id": 1, "file_name": NAME, "height": HEIGHT, "width": WIDTH}
    image |= annotation.pop("image", {})
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], **annotation}
    categories = [{"id": 1, "name": "red cell"}]
    content = {"images": [image], "categories": categories, "annotations": [one]}
    return json.dumps(content).encode()


def runs(counts: Any, *size: int) -> bytes:
    """Return a file of COCO with run lengths."""
    segmentation = {"size": list(size or (HEIGHT, WIDTH)), "counts": counts}
    stated = {"height": size[0], "width": size[1]} if size else {}
    return coco(segmentation=segmentation, image=stated)


def studio(kind: str, value: dict[str, Any] | None, **result: Any) -> bytes:
    """Return an export of Label Studio with one result."""
    one = {"type": kind, "original_width": WIDTH, "original_height": HEIGHT,
           "value": 3 if value is None else {kind: ["red cell"], **value}, **result}  # fmt: skip
    return json.dumps([{"data": {"name": NAME}, "annotations": [{"result": [one]}]}]).encode()


def cvat(shape: str, size: str = f'width="{WIDTH}" height="{HEIGHT}"') -> bytes:
    """Return a file of CVAT with one shape."""
    return f'<annotations><image name="{NAME}" {size}>{shape}</image></annotations>'.encode()


def mask(rle: str, **box: Any) -> bytes:
    """Return a file of CVAT with a mask."""
    values = {"left": 0, "top": 0, "width": WIDTH, "height": HEIGHT, **box}
    attributes = " ".join(f'{key}="{value}"' for key, value in values.items())
    return cvat(f'<mask label="red cell" rle="{rle}" {attributes}/>')


def voc(corner: str) -> bytes:
    """Return a file of Pascal VOC with one box."""
    return (
        f"<annotation><object><name>red cell</name><bndbox><xmin>{corner}</xmin><ymin>3</ymin>"
        "<xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"
    ).encode()


SEGMENTATION = [
    # COCO: run lengths and polygons
    ("a.json", runs([2**62] * 3 + [2**62 + PIXELS]), "add up to the 3072 pixels"),
    ("a.json", runs([HUGE]), "add up to the 3072 pixels"),
    ("a.json", runs([-1, PIXELS + 1]), "add up"),
    ("a.json", runs([1.5, PIXELS - 1.5]), "segmentation must be polygons"),
    ("a.json", runs("0" * 10**6), "add up"),
    ("a.json", runs("o" * 10**6), "not in COCO's compressed form"),
    ("a.json", runs("\ud800"), "not complete JSON"),
    ("a.json", runs([3_600_000_000], 60_000, 60_000), "has 64x48 pixels"),
    ("a.json", coco(segmentation="x"), "segmentation must be polygons"),
    ("a.json", coco(segmentation=["x"]), "segmentation must be polygons"),
    ("a.json", coco(segmentation=[[1, 1, 9, 1, 9]]), "a polygon needs three corners"),
    ("a.json", coco(segmentation=[[1, 1, 9, 1, 9, 9], 3]), "segmentation must be polygons"),
    ("a.json", coco(segmentation=[[1, 1, 9, 1, 9, HUGE]]), "segmentation must be polygons"),
    ("a.json", coco(segmentation=[[1, 1, 9, 1, 9, 1e300]]), "beyond 10000000 pixels"),
    ("a.json", coco(segmentation=[[1, 1, 9, 1, 9, float("nan")]]), "segmentation must be"),
    ("a.json", coco(segmentation=[[1, 1] * 200_000]), "more than 100000 corners"),
    ("a.json", coco(segmentation=[[0, 0, 64, 0, 64, 48, 0, 48]] * 2000), "more than 1000 times"),
    ("a.json", coco(image={"width": HUGE}), "width and height must be whole numbers"),
    ("a.json", coco(image={"width": "9" * 5000}), "width and height must be whole numbers"),
    ("a.json", coco(image={"height": None}), "width and height must be whole numbers"),
    # Label Studio: brush strokes and polygons
    ("a.json", studio("brushlabels", {"rle": 10**9}), "rle must be a valid list"),
    ("a.json", studio("brushlabels", {"rle": ["a"]}), "rle[0] must be a valid integer"),
    ("a.json", studio("brushlabels", {"rle": [256]}), "rle[0] must be less than or equal to 255"),
    ("a.json", studio("brushlabels", {"rle": []}), "cut short"),
    ("a.json", studio("brushlabels", {"rle": [255] * 100_000}), "not of the image's size"),
    ("a.json", studio("brushlabels", {}), "rle is missing"),
    ("a.json", studio("brushlabels", {}, original_width=60_000, original_height=60_000), "rle"),
    (
        "a.json",
        studio("brushlabels", {"rle": [1]}, original_width=60_000, original_height=60_000),
        "has 64x48 pixels",
    ),
    ("a.json", studio("polygonlabels", {"points": "x"}), "points must be a valid list"),
    ("a.json", studio("polygonlabels", {"points": [[1, 2], [3]]}), "points[1][1] is missing"),
    ("a.json", studio("polygonlabels", {"points": [[1, 2], [3, 4]]}), "three corners"),
    ("a.json", studio("polygonlabels", {"points": [[1, 2], [3, HUGE]]}), "points[1][1] must be"),
    ("a.json", studio("polygonlabels", {"points": [[1, 2]] * 3}, original_width=0), "whole"),
    # CVAT: masks, polygons, boxes
    ("a.xml", mask("1" * 5000), "must be whole numbers"),
    ("a.xml", mask("x"), "must be whole numbers, it is 'x'"),
    ("a.xml", mask(",".join(["9223372036854775807"] * 4)), "add up"),
    ("a.xml", mask("9", width=-3, height=-3, left=3, top=3), "a pixel or more"),
    ("a.xml", mask("9", width="1e308"), "beyond its image"),
    ("a.xml", mask("9", width="2.5"), "whole number of pixels"),
    ("a.xml", mask("9", left="inf"), "must be a finite number"),
    ("a.xml", cvat('<polygon label="red cell" points="1,2;3"/>'), "three corners"),
    ("a.xml", cvat('<polygon label="red cell" points="1,2;3,4;5,1e400"/>'), "finite number"),
    ("a.xml", cvat('<polygon label="red cell" points="1,2;a,4"/>'), "must be a number"),
    ("a.xml", cvat('<polygon label="red cell" z_order="high" points="1,1;9,1;9,9"/>'), "z_order"),
    ("a.xml", cvat('<mask label="red cell"/>', 'width="1" height=""'), "whole numbers of pixels"),
    ("a.xml", cvat("<box/>", f'width="{"9" * 5000}" height="2"'), "whole numbers of pixels"),
    ("a.xml", cvat("<box/>"), "xtl must be a number, it is None"),
]  # fmt: skip
DETECTION = [
    ("a.json", coco(bbox="xxxx"), "bbox must be [x, y, width, height], it is 'xxxx'"),
    ("a.json", coco(bbox=[1, 1, HUGE, 1]), "bbox must be"),
    ("a.json", coco(bbox=[1, 1, 1e308, 1e308], image={}), ""),
    ("a.json", coco(image_id=[1]), "image_id"),
    ("a.json", coco(image={"file_name": ["x"]}), "file_name must be a valid string"),
    ("a.json", b'{"images": 3, "categories": 1, "annotations": null}', "not in COCO's format"),
    ("a.json", b'{"a":' * 10_000, "not complete JSON"),
    ("a.json", b"[" + b"1" * 5000 + b"]", "not complete JSON"),
    ("a.json", b"\xff\xfe[\x00]\x00", "not complete JSON"),
    ("a.json", b"[3, null, []]", "task 1: it must be an object"),
    ("a.json", studio("rectanglelabels", {"x": "1"}), "x must be a valid number"),
    ("a.json", studio("rectanglelabels", {"x": 1, "y": 1, "width": HUGE, "height": 1}), "width"),
    ("a.json", studio("rectanglelabels", {"rectanglelabels": "red cell"}), "x is missing"),
    ("a.json", studio("rectanglelabels", None), "value must be a valid dictionary"),
    (
        "a.json",
        json.dumps([{"data": {"image": "http://[bucket]/x"}, "annotations": [{}]}]).encode(),
        "'http://[bucket]/x' is no image of the pool",
    ),
    ("a.json", json.dumps([{"data": {"name": "x" * 10**6}, "annotations": [{}]}]).encode(), "no i"),
    ("a.xml", voc("9" * 5000), "no bndbox of four numbers"),
    ("a.xml", voc("nan"), "no bndbox of four numbers"),
    ("a.xml", voc("1e400"), "no bndbox of four numbers"),
    ("a.xml", voc("1") [:40], "not well-formed XML"),
    ("a.xml", "<?xml version='1.0' encoding='latin-9'?><a/>".encode("utf-16"), "XML"),
    ("a.xml", cvat('<box label="red cell" xtl="1" ytl="a" xbr="2" ybr="3"/>'), "ytl must be"),
    ("a.xml", cvat('<box label="red cell" xtl="1" ytl="-inf" xbr="2" ybr="3"/>'), "ytl must be"),
    ("a.xml", b"<a>" * 100_000, "not well-formed XML"),
    ("a.csv", "name,label\nü.png,x\n".encode("latin-1"), "not UTF-8 text"),
    ("a.csv", b"name,label\n" + b"x" * 200_000 + b",cannot_label\n", "no CSV: line 2"),
    ("a.csv", b'name,label\n"plain.png,cannot_label\n', "no CSV"),
    ("a.csv", b"", "must name the columns name, label"),
    ("a.csv", b"label\n" + b"x,y,z\n" * 3, "must name the columns name, label"),
]  # fmt: skip
CASES = [("segmentation", *case) for case in SEGMENTATION] + [
    ("detection", *case) for case in DETECTION
]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the image, and one for what comes back."""
    (tmp_path / "images").mkdir()
    (tmp_path / "back").mkdir()
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "images" / NAME)
    return tmp_path


def problems(place: Path, kind: str, **how: Any) -> list[str]:
    """Return what is wrong with the files that came back; it is told in a line each, and soon."""
    tracemalloc.start()
    start = time.process_time()
    found = list(_read(place, kind, **how))
    seconds, memory = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seconds < MAX_SECONDS
    assert memory < MAX_BYTES
    assert all(line.isprintable() and len(line) < 700 for line in found)
    return found


def _read(place: Path, kind: str, **how: Any) -> Iterator[str]:
    def size_of(name: str) -> tuple[int, int]:
        return upright_size(place / "images" / name)

    for source in files_in(place / "back"):
        for one in read_file(
            place / "back", source, rules(kind, **how), ImageNames([NAME]), size_of
        ):
            if isinstance(one, Problem):
                yield str(one)


@pytest.mark.parametrize(
    ("kind", "file", "content", "says"),
    CASES,
    ids=[f"{k}-{case[3]}" for k, case in enumerate(CASES)],
)
def test_a_file_of_a_wrong_shape_is_one_problem(
    place: Path, kind: str, file: str, content: bytes, says: str
) -> None:
    """Whatever is wrong is named with its place, before memory is taken for it."""
    (place / "back" / file).write_bytes(content)
    found = problems(place, kind)
    assert bool(found) == bool(says)
    assert not says or says in found[0]
    assert all(line.startswith(file) for line in found)


def test_an_order_of_layers_may_be_a_fraction(place: Path) -> None:
    """Tools write `z_order="1.0"`."""
    shape = '<polygon label="red cell" z_order="1.0" points="1,1;9,1;9,9"/>'
    (place / "back" / "a.xml").write_bytes(cvat(shape))
    assert problems(place, "segmentation") == []


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def _large(path: Path) -> None:
    with open(path, "wb") as file:
        file.truncate(600 * 2**20)  # takes no room on the disk


@pytest.mark.parametrize("file", ["a.csv", "a.xml", "a.json", "plain.png", "labelmap.txt"])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_pipe, "no regular file"),
        (_link("/dev/zero"), "leads out of the folder"),
        (_link("/dev/urandom"), "leads out of the folder"),
        (_link("/etc/passwd"), "leads out of the folder"),
        (_large, "is larger than"),
    ],
)
def test_what_is_no_small_regular_file_is_never_read(
    place: Path, file: str, make: Callable[[Path], None], says: str
) -> None:
    """A pipe would wait for ever, a device never end, and a link may lead anywhere."""
    make(place / "back" / file)
    if file == "labelmap.txt":
        Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(place / "back" / NAME)
    found = problems(place, "segmentation")
    assert len(found) == 1
    assert says in found[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("cellé:1,2,3::".encode("latin-1"), "labelmap.txt beside it: it is not UTF-8 text"),
        (b"cell", "a line must be label:r,g,b:parts:actions, it is 'cell'"),
        (b"cell:1,2::", "a line must be"),
        (b"cell:" + b"9" * 5000 + b",2,3::", "a line must be"),
    ],
)
def test_a_damaged_labelmap_is_named(place: Path, content: bytes, says: str) -> None:
    """The masks beside it are the problem, with the reason."""
    (place / "back" / "labelmap.txt").write_bytes(content)
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(place / "back" / NAME)
    (line,) = problems(place, "segmentation")
    assert says in line


def test_a_mask_is_decoded_only_if_it_is_of_the_size_of_its_image(place: Path) -> None:
    """A small file of 144 million pixels costs nothing."""
    Image.fromarray(np.zeros((12_000, 12_000), np.uint8)).save(place / "back" / NAME)
    (line,) = problems(place, "segmentation")
    assert "plain.png has 64x48 pixels, what is drawn on it 12000x12000" in line


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\0" * 50])
def test_what_is_no_png_is_no_mask(place: Path, data: bytes) -> None:
    """Only the decoder of PNG ever sees it."""
    (place / "back" / NAME).write_bytes(data)
    (line,) = problems(place, "segmentation")
    assert line in (f"{NAME}: it is no image in PNG", f"{NAME}: it cannot be decoded: Truncated")


def test_a_pipe_among_the_images_is_one_problem(place: Path) -> None:
    """An image of the pool is opened with the same care."""
    (place / "images" / NAME).unlink()
    os.mkfifo(place / "images" / NAME)
    (place / "back" / "a.json").write_bytes(coco())
    (line,) = problems(place, "detection")
    assert "the image plain.png cannot be read: it is no regular file" in line
