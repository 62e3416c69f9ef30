"""Names that an annotation tool would lose are told when its file is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from experiments.data.labels import Item
from experiments.handoff.export import export, hand_out
from tests.experiments.handoff.items import KINDS, label, rules
from tests.experiments.handoff.reading import URL


def made(kind: str, *names: str) -> list[Item]:
    """Return images with drafts; there are no files of them."""
    return [
        Item(name, Path(name), (48, 64), draft=label(kind, k + 1, (48, 64)))
        for k, name in enumerate(names)
    ]


@pytest.mark.parametrize(("form", "kind"), [("voc", "detection"), ("masks", "segmentation")])
def test_images_of_one_stem_are_told_where_a_file_has_only_the_stem(
    tmp_path: Path, form: str, kind: str
) -> None:
    """`s1.jpg` and `s1.png` would share an annotation file."""
    items = made(kind, "s1.jpg", "s1.png", "s2.jpg")
    _, lost = export(items, rules(kind), form, tmp_path, image_url=URL)
    assert lost == [
        "'s1.jpg': the tool cannot tell it from s1.png",
        "'s1.png': the tool cannot tell it from s1.jpg",
    ]
    for other in ("cvat", "coco", "label_studio"):
        assert export(items, rules(kind), other, tmp_path, image_url=URL)[1] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("letter", ["\x01", "\n", "\x85", "\ufffe"])
def test_a_name_that_xml_cannot_hold_costs_its_image_only(
    tmp_path: Path, kind: str, letter: str
) -> None:
    """The rest of the file can be read, and the name is told."""
    name = f"a{letter}b.png"
    items = made(kind, name, "plain.png")
    (file,), lost = export(items, rules(kind), "cvat", tmp_path, image_url=URL)
    assert lost == [f"{name!r}: its name has a control character, such as a line break"]
    images = ElementTree.parse(file).getroot().findall("image")
    assert [image.get("name") for image in images] == ["plain.png"]
    if kind == "detection":
        _, lost = export(items, rules(kind), "voc", tmp_path, image_url=URL)
        listed = (tmp_path / "voc" / "ImageSets" / "Main" / "default.txt").read_text()
        assert (listed, len(lost)) == ("plain\n", 1)


def test_a_request_names_the_format_that_loses_a_name(tmp_path: Path) -> None:
    """The folder of a request has every image all the same."""
    items = [replace(item, path=tmp_path / "x") for item in made("detection", "s.jpg", "s.png")]
    lost = hand_out(
        items, rules("detection"), tmp_path / "out", formats=["coco", "voc"], images="none",
        image_url=URL,
    )  # fmt: skip
    assert lost[0] == "voc: 's.jpg': the tool cannot tell it from s.png"
    rows = (tmp_path / "out" / "images.csv").read_text().splitlines()
    assert rows == ["rank,name,score", "0,s.jpg,", "1,s.png,"]
