"""The record of requests and answers, without any training."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.annotation.ledger import Kept, Ledger
from experiments.data.labels import UnusableFile


def accepted(folder: Path) -> list[str]:
    """Return the names of the files of accepted answers."""
    return sorted(path.name for path in (folder / "annotations" / "accepted").iterdir())


def test_accepted_answers_are_never_overwritten(tmp_path: Path) -> None:
    """A new file gets the highest number plus one, also where an earlier file was deleted."""
    ledger = Ledger(tmp_path)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        ledger.accept({name: Kept(class_name="cat")}, {})
    (tmp_path / "annotations" / "accepted" / "000000.json").unlink()
    ledger.accept({"d.jpg": Kept(class_name="dog")}, {})
    assert accepted(tmp_path) == ["000001.json", "000002.json", "000003.json"]
    assert sorted(Ledger.read(tmp_path, cycle=0).answers) == ["b.jpg", "c.jpg", "d.jpg"]


def test_a_copy_among_the_accepted_answers_is_refused(tmp_path: Path) -> None:
    """A file under another name would count in an order that nobody chose."""
    ledger = Ledger(tmp_path)
    ledger.accept({"a.jpg": Kept(class_name="cat")}, {})
    copy = tmp_path / "annotations" / "accepted" / "000000 (copy).json"
    copy.write_text("{}", encoding="utf-8")
    with pytest.raises(UnusableFile, match=r"000000 \(copy\).json is no file of accepted answers"):
        Ledger.read(tmp_path, cycle=0)
