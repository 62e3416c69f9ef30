"""CSV files that a spreadsheet program opens and writes."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from experiments.data.labels import Found, Item, Rules
from experiments.handoff.export import hand_out
from experiments.handoff.names import ImageNames
from experiments.handoff.tables import FORMULA, read_csv

RULES = Rules("classification", ("cat", "dog"))
NAMES = ("=cmd|' /C calc'!A1.jpg", "+1.jpg", "-leading.jpg", "@x.jpg", "'=kept.jpg", "plain.jpg")


def test_no_name_is_a_formula_and_every_name_comes_back(tmp_path: Path) -> None:
    """Names that a spreadsheet would evaluate are written as text, and match when they return."""
    items = [Item(name, tmp_path / name, (4, 4), 1.0) for name in NAMES]
    hand_out(items, RULES, tmp_path, formats=(), images="none", image_url="{name}")
    for file in ("labels.csv", "images.csv"):
        rows = list(csv.DictReader(io.StringIO((tmp_path / file).read_text())))
        assert len(rows) == len(NAMES)
        assert not any(row["name"].startswith(FORMULA) for row in rows)
    filled = (tmp_path / "labels.csv").read_text().replace(",\n", ",cat\n")
    names = ImageNames(NAMES)
    found = [one for one in read_csv(filled.encode(), RULES) if isinstance(one, Found)]
    assert [names.find(one.names) for one in found] == list(NAMES)


@pytest.mark.parametrize("name", ["=a.jpg", "'=a.jpg"])
def test_both_forms_of_a_name_are_read(name: str) -> None:
    """A program may drop the apostrophe that makes a text of a cell."""
    (found,) = read_csv(f"name,label\n{name},dog\n".encode(), RULES)
    assert isinstance(found, Found)
    assert ImageNames(["=a.jpg"]).find(found.names) == "=a.jpg"


def test_only_an_apostrophe_is_dropped() -> None:
    """The rest of a longer name is no name of its own."""
    (found,) = read_csv(b"name,label\na-1.jpg,dog\n", RULES)
    assert isinstance(found, Found)
    assert found.names == ("a-1.jpg",)
