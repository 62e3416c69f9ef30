"""Parsing files that other people's tools wrote."""

from __future__ import annotations

import pytest

from experiments.data.labels import UnusableFile
from experiments.data.untrusted import parse_xml

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
