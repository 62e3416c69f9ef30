"""Hostile and broken files: a line each, and the rest is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.data.labels import Box
from experiments.handoff.export import export
from experiments.handoff.returned import files_in
from tests.experiments.handoff.items import KINDS, items, rules
from tests.experiments.handoff.reading import URL, read_all


def voc(body: str, filename: str = "x.png") -> str:
    """Return Pascal VOC's XML."""
    return f"<annotation><filename>{filename}</filename>{body}</annotation>"


OBJECT = (
    "<object><name>red cell</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>9</xmax>"
    "<ymax>9</ymax></bndbox></object>"
)


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("plain.xml", voc(OBJECT)[:-9], "not well-formed XML"),
        ("plain.xml", '<!DOCTYPE a [<!ENTITY b "c">]>' + voc(OBJECT), "refused"),
        ("plain.xml", voc(OBJECT.replace("red cell", "dragon")), "no class 'dragon'"),
        ("plain.xml", voc(OBJECT.replace("<xmin>2", "<xmin>two")), "no bndbox of four numbers"),
        ("plain.xml", voc(OBJECT.replace("<xmax>9", "<xmax>1")), "smaller than a pixel"),
        (
            "plain.xml",
            voc(OBJECT.replace("2</xmin>", "200</xmin>").replace("9</xmax>", "300</xmax>")),
            "is not in plain.png",
        ),
        (
            "plain.xml",
            voc("<size><width>128</width><height>96</height></size>" + OBJECT),
            "plain.png has 64x48 pixels, what is drawn on it 128x96",
        ),
        ("other.xml", voc(OBJECT, "/elsewhere/other.png"), "no image of the pool"),
        ("kml.xml", "<kml/>", "neither of Pascal VOC nor of CVAT"),
        ("half.json", '[{"data": {"name": "plain', "not complete JSON"),
        ("coco.json", '{"images": []}', "not in COCO's format"),
        ("number.json", "3", "neither COCO's nor Label Studio's"),
        ("odd.json", '[{"data": 3, "annotations": [{}]}]', "task 1"),
        ("deep.json", "[" * 100_000, "not complete JSON"),
        ("zip.zip", "PK", "no complete zip archive"),
        ("tar.tar", "x", "unpack it here"),
        ("a.csv", "name;class\nplain.png;x\n", "columns name, label"),
        ("a.csv", "name,label\nplain.png,red cell\n", "no class for a whole image"),
        ("a.csv", "name,label\n'../../etc/passwd',cannot_label\n", "no image of the pool"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path: Path, file: str, content: str, says: str) -> None:
    """An unusable file is named with its reason; the file beside it is read all the same."""
    images = tmp_path / "images"
    items(images, "detection")
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / file).write_text(content, encoding="utf-8")
    (folder / "-leading.xml").write_text(voc(OBJECT), encoding="utf-8")
    labels, problems = read_all(folder, images, rules("detection"))
    assert list(labels) == ["-leading.png"]
    assert labels["-leading.png"].boxes == (Box("red cell", (1.0, 2.0, 9.0, 9.0)),)
    assert len(problems) == 1
    assert problems[0].startswith(file)
    assert says in problems[0]
    assert "\n" not in problems[0]


def test_the_files_own_name_counts_before_what_stands_in_it(tmp_path: Path) -> None:
    """`<filename>` with a path, or of another image, as tools leave it, changes nothing."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, "detection")
    (folder / "Annotations" / "one").mkdir(parents=True)
    (folder / "Annotations" / "one" / "same.xml").write_text(voc(OBJECT, "/disk/me/plain.png"))
    (folder / "0001.xml").write_text(voc(OBJECT, "C:\\photos\\-leading.png"))
    labels, problems = read_all(folder, images, rules("detection"))
    assert problems == []
    assert set(labels) == {"one/same.png", "-leading.png"}


def test_a_csv_of_a_spreadsheet_is_read(tmp_path: Path) -> None:
    """Semicolons, a byte order mark, CRLF, quotes and rows that are not filled in yet."""
    images, folder = tmp_path / "images", tmp_path / "back"
    items(images, "classification")
    folder.mkdir()
    lines = ["name;label", "plain.png;red cell", '"quote\'s ""two"".png";"white ""w"""',
             "-leading.png;", "a b/with space.png;cannot_label"]  # fmt: skip
    (folder / "labels.csv").write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    labels, problems = read_all(folder, images, rules("classification"))
    assert problems == []
    assert labels["plain.png"].class_name == "red cell"
    assert labels['quote\'s "two".png'].class_name == 'white "w"'
    assert labels["a b/with space.png"].refused
    assert len(labels) == 3


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_never_do_more_than_be_refused(tmp_path: Path, seed: int) -> None:
    """Damaged copies of good files give a problem or what they say, and never an exception."""
    images, folder = tmp_path / "images", tmp_path / "back"
    rng = np.random.default_rng(seed)
    for kind in KINDS:
        made = items(images, kind)
        for form in ("cvat", "coco", "label_studio"):
            export(made, rules(kind), form, folder, image_url=URL)
        for path in sorted(folder.iterdir()):
            data = bytearray(path.read_bytes())
            for place in rng.integers(0, len(data), 8):
                data[place] = rng.integers(256)
            path.write_bytes(data[: rng.integers(1, len(data))] if seed == 2 else data)
        labels, problems = read_all(folder, images, rules(kind))
        assert labels or problems


def test_links_in_a_circle_are_looked_through_once(tmp_path: Path) -> None:
    """A link to a folder above ends; one that leads nowhere is told as any other file."""
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "again").symlink_to(tmp_path)
    (tmp_path / "a.csv").write_text("name,label\n", encoding="utf-8")
    (tmp_path / "b.csv").symlink_to("nowhere")
    assert sorted(files_in(tmp_path)) == ["a.csv", "b.csv"]
    _, problems = read_all(tmp_path, tmp_path, rules("detection"))
    assert problems == ["b.csv: No such file or directory"]
