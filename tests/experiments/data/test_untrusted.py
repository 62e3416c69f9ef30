"""Parsing files that other people's tools wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from experiments.data import untrusted
from experiments.data.labels import UnusableFile
from experiments.data.untrusted import Number, checked, parse_json, parse_xml, read_untrusted

ENTITY = '<?xml version="1.0" encoding="{0}"?><!DOCTYPE a [<!ENTITY b "bomb">]><a>&b;</a>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig"])
def test_entities_are_refused_in_every_encoding(encoding: str) -> None:
    """A document type is refused where the parser meets it, so no encoding hides it."""
    declared = encoding.removesuffix("-sig").removesuffix("-le").removesuffix("-be")
    with pytest.raises(UnusableFile, match="declares a document type, which is refused"):
        parse_xml(ENTITY.format(declared).encode(encoding))


def test_xml_is_parsed() -> None:
    """A comment or an attribute may have any text, and UTF-16 alone is no reason to refuse."""
    text = '<?xml version="1.0" encoding="utf-16"?><a b="&lt;!DOCTYPE"><!-- <!ENTITY --><c/></a>'
    root = parse_xml(text.encode("utf-16"))
    assert root.get("b") == "<!DOCTYPE"
    assert [child.tag for child in root] == ["c"]


@pytest.mark.parametrize("data", [b"", b"<a>", b"\xff\xfe\x00", b'<?xml encoding="x"?><a/>', b"PK"])
def test_what_is_no_xml_is_one_line(data: bytes) -> None:
    """Damaged or foreign bytes are refused with a reason."""
    with pytest.raises(UnusableFile, match="not well-formed XML") as refused:
        parse_xml(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("parse", [parse_json, parse_xml])
def test_many_small_parts_are_refused_before_they_take_memory(
    parse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of three bytes in a file takes a hundred in memory."""
    data = b"[[],[],[]]" if parse is parse_json else b"<a><b/><c d=''/></a>"
    assert parse(data) is not None
    monkeypatch.setattr(untrusted, "MAX_PARTS", 3)
    with pytest.raises(UnusableFile, match="it has more than 3 "):
        parse(data)


@pytest.mark.parametrize(
    "data", [b"", b"[", b"\xff", b'"\\ud800"', b"[" * 300 + b"]" * 300, b"1" * 5000]
)
def test_what_is_no_json_is_one_line(data: bytes) -> None:
    """Damaged text, lone surrogates, endless numbers and endless nesting."""
    with pytest.raises(UnusableFile, match="it is not complete JSON: "):
        parse_json(data)


def test_json_may_begin_with_a_byte_order_mark() -> None:
    """Windows programs write one."""
    assert parse_json(b'\xef\xbb\xbf{"a": [1.5, null]}') == {"a": [1.5, None]}


def test_the_place_of_a_wrong_type_is_named() -> None:
    """The first one, as a path into the document."""
    adapter = TypeAdapter(dict[str, list[Number]])
    assert checked(adapter, {"a": [1, 2.5]}) == {"a": [1.0, 2.5]}
    with pytest.raises(UnusableFile, match=r"^a\[1\] must be a valid number$"):
        checked(adapter, {"a": [1, "2", "3"]})
    with pytest.raises(UnusableFile, match=r"^it must be a valid dictionary$"):
        checked(adapter, [])


def test_only_small_regular_files_inside_the_folder_are_read(tmp_path: Path) -> None:
    """A link is followed inside of it; a folder and a larger file are refused."""
    (tmp_path / "in").mkdir()
    for file in (tmp_path / "in" / "a", tmp_path / "b"):
        file.write_bytes(b"data")
    (tmp_path / "in" / "same").symlink_to("a")
    (tmp_path / "in" / "out").symlink_to("../b")
    assert read_untrusted(tmp_path / "in" / "same", inside=tmp_path / "in") == b"data"
    assert read_untrusted(tmp_path / "in" / "out") == b"data"
    with pytest.raises(UnusableFile, match="leads out of the folder"):
        read_untrusted(tmp_path / "in" / "out", inside=tmp_path / "in")
    with pytest.raises(UnusableFile, match="no regular file"):
        read_untrusted(tmp_path / "in")
    with pytest.raises(UnusableFile, match="larger than 0 MiB"):
        read_untrusted(tmp_path / "b", max_bytes=3)
    with pytest.raises(FileNotFoundError):
        read_untrusted(tmp_path / "nowhere")
