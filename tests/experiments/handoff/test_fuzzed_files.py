"""Files of every format with anything in the place of any part: problems or labels, no error."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments.data.labels import Label, Problem
from experiments.handoff import coco, cvat, label_studio, voc
from experiments.handoff.names import ImageNames
from experiments.handoff.returned import Answer, read_file
from tests.experiments.handoff.items import KINDS, NAMES, items, rules

SIZES = {name: ((48, 64), (31, 77))[k % 2] for k, name in enumerate(NAMES)}
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**62, 2**63 - 1, -(2**63), 10**400, 10**4200]),
    st.sampled_from([0.5, -0.0, 1e308, 1e-320]),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", "red cell", NAMES[0], "cannot_label", "\n", "\ud800", "9" * 5000]),
    st.sampled_from(["http://[x]/y", "../../etc/passwd", "nan", "-1", "0x10", "1_0", "\u0661"]),
    st.sampled_from(["1e400", "1.0", "inf"]),
    st.text(max_size=8),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
FUZZED = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every part of a document, the document itself first."""
    yield path
    if isinstance(value, (dict, list)):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from nodes(part, (*path, key))


def put(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return a copy of a document with another part."""
    if not path:
        return value
    document = copy.deepcopy(document)
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    return document


def read(folder: Path, file: str, data: bytes, kind: str) -> None:
    """Read a file; whatever comes out is a label that fits its image, or one line."""
    (folder / file).write_bytes(data)
    found = read_file(folder, file, rules(kind), ImageNames(NAMES), SIZES.__getitem__)
    for one in found:
        if isinstance(one, Problem):
            assert str(one).isprintable()
            continue
        assert isinstance(one, Answer)
        assert isinstance(one.label, Label)
        if one.label.mask is not None:
            assert one.label.mask.shape == SIZES[one.name]


def documents(kind: str, folder: Path) -> dict[str, Any]:
    """Return good documents in JSON, short ones."""
    made = items(folder, kind)[:2]
    tasks = label_studio.write(made, rules(kind), image_url="/data/local-files/?d={name}")
    for task in tasks:
        task["annotations"] = [{"result": task.pop("predictions")[0]["result"]}]
        for result in task["annotations"][0]["result"]:
            if "rle" in result["value"]:  # a part that is a thousand parts would be drawn always
                result["value"]["rle"] = result["value"]["rle"][:40]
    return {"coco": coco.write(made, rules(kind)), "label_studio": tasks}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["coco", "label_studio"])
def test_json_with_anything_in_the_place_of_a_part(tmp_path: Path, kind: str, form: str) -> None:
    """A number, a text, a list or an object, of any size, where something else belongs."""
    document = documents(kind, tmp_path / "images")[form]
    places = sorted(nodes(document), key=len)

    @FUZZED
    @given(st.sampled_from(places), VALUES, st.sampled_from(places), VALUES)
    def check(path: Any, value: Any, other: Any, more: Any) -> None:
        for changed in (put(document, path, value), put(document, other, more)):
            read(tmp_path, "a.json", json.dumps(changed).encode("utf-8", "surrogatepass"), kind)

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["cvat", "voc"])
def test_xml_with_any_text_in_the_place_of_a_value(tmp_path: Path, kind: str, form: str) -> None:
    """Attributes, texts and tags that are anything, missing or repeated."""
    made = items(tmp_path / "images", kind)[:3]
    if form == "cvat":
        data = cvat.write(made, rules(kind))
    else:
        voc.write(made, rules(kind), tmp_path / "voc")
        data = (tmp_path / "voc" / "Annotations" / "a b" / "with space.xml").read_bytes()
    count = sum(1 + len(node.attrib) for node in ElementTree.fromstring(data).iter())
    texts = st.one_of(TEXTS, st.floats().map(str), st.integers().map(str), st.none())

    @FUZZED
    @given(st.integers(0, count - 1), texts, st.sampled_from(["change", "rename", "repeat"]))
    def check(place: int, text: str | None, how: str) -> None:
        root = ElementTree.fromstring(data)
        for node in root.iter():
            keys: list[str | None] = [None, *node.attrib]
            if place >= len(keys):
                place -= len(keys)
                continue
            key = keys[place]
            if how == "repeat":
                node.extend([copy.deepcopy(node)])
            elif how == "rename":
                node.tag = "mask" if node.tag == "polygon" else "box"
            elif key is None:
                node.text = text
            elif text is None:
                del node.attrib[key]
            else:
                node.set(key, text)
            break
        written = ElementTree.tostring(root, encoding="unicode")
        read(tmp_path, "plain.xml", written.encode("utf-8", "surrogatepass"), kind)

    check()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", ["a.csv", "a.json", "a.xml", "plain.png", "labelmap.txt"])
def test_any_bytes(tmp_path: Path, kind: str, file: str) -> None:
    """Whatever the file is called."""
    heads = [b"", b"name,label\n", b"\x89PNG\r\n\x1a\n", b"<annotations>", b"[", b"\xff\xfe", b"\0"]

    @FUZZED
    @given(st.sampled_from(heads), st.binary(max_size=60))
    def check(head: bytes, data: bytes) -> None:
        read(tmp_path, file, head + data, kind)

    check()
