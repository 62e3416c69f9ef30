"""Hostile zip archives: one problem with its name, nothing outside of a folder, the rest counts."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.data import archives
from tests.experiments.handoff.items import items, rules
from tests.experiments.handoff.reading import read_all

GOOD = "name,label\nplain.png,red cell\n"
ROWS = "name,label\n-leading.png,red cell\n"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with images and a folder for annotations, beside nothing else afterwards."""
    items(tmp_path / "images", "classification")
    (tmp_path / "back").mkdir()
    yield tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {"images", "back"}


def read(place: Path) -> tuple[set[str], list[str]]:
    """Return the labeled images and the problems."""
    labels, problems = read_all(place / "back", place / "images", rules("classification"))
    return set(labels), problems


def inside() -> bytes:
    """Return an archive to be put into another."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("labels.csv", ROWS)
    return buffer.getvalue()


def link(name: str) -> zipfile.ZipInfo:
    """Return the entry of a symbolic link."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("../evil.csv", ROWS, "out of the archive"),
        ("/evil.csv", ROWS, "out of the archive"),
        ("a/../../evil.csv", ROWS, "out of the archive"),
        ("C:\\evil.csv", ROWS, "out of the archive"),
        ("..\\evil.csv", ROWS, "out of the archive"),
        ("inner.zip", inside(), "an archive in an archive"),
        ("inner.tar", b"", "an archive in an archive"),
        ("d/" * 40 + "a.csv", ROWS, "too long"),
        ("d" * 300 + ".csv", ROWS, "too long"),
        ("good.csv/a.csv", ROWS, "two files of this name"),
        ("link.csv", "/etc/passwd", "a link"),
    ],
)
def test_a_hostile_member_is_one_problem_and_the_rest_counts(
    place: Path, name: str, content: str | bytes, says: str
) -> None:
    """Paths, links and archives are refused by name, and nothing is written outside."""
    with zipfile.ZipFile(place / "back" / "a.zip", "w") as archive:
        archive.writestr("good.csv", GOOD)
        archive.writestr(link(name) if "link" in says else name, content)
    labels, problems = read(place)
    assert labels == {"plain.png"}
    assert len(problems) == 1
    assert problems[0].startswith("a.zip/")
    assert says in problems[0]


def test_a_member_without_a_name_is_one_problem(place: Path) -> None:
    """Nothing writes such archives; zipfile itself fails at the empty name."""
    with zipfile.ZipFile(place / "back" / "a.zip", "w") as archive:
        archive.writestr("good.csv", GOOD)
        archive.writestr("x.csv", ROWS)
        archive.filelist[-1].filename = ""  # in the directory, which is written at the end
    labels, (problem,) = read(place)
    assert labels == {"plain.png"}
    assert "its path leads out of the archive" in problem


def test_a_member_that_comes_twice_counts_once(place: Path) -> None:
    """The second file of a name is a problem: which one the tool meant is unknown."""
    with zipfile.ZipFile(place / "back" / "a.zip", "w") as archive:
        archive.writestr("good.csv", GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("good.csv", ROWS)
    labels, (problem,) = read(place)
    assert labels == {"plain.png"}
    assert "two files of this name" in problem


def _encrypted(data: bytearray) -> None:
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rfind(signature) + offset
        data[at] |= 1


def _other_method(data: bytearray) -> None:
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.rfind(signature) + offset
        data[at : at + 2] = struct.pack("<H", 97)


def _wrong_content(data: bytearray) -> None:
    at = data.rfind(b"-leading")
    data[at] ^= 1


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_encrypted, "it is encrypted"),
        (_other_method, "cannot be unpacked"),
        (_wrong_content, "cannot be unpacked: Bad CRC"),
    ],
)
def test_a_member_that_cannot_be_unpacked_is_one_problem(
    place: Path, damage: Callable[[bytearray], None], says: str
) -> None:
    """Encryption, an unknown method and a wrong checksum; half a file is not read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.csv", GOOD)
        archive.writestr("odd.csv", ROWS)
    data = bytearray(buffer.getvalue())
    damage(data)
    (place / "back" / "a.zip").write_bytes(data)
    labels, (problem,) = read(place)
    assert labels == {"plain.png"}
    assert problem.startswith("a.zip/odd.csv: ")
    assert says in problem


def test_a_bomb_is_not_unpacked(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows a thousandfold is refused by the size that the archive states."""
    monkeypatch.setattr(archives, "FREE_BYTES", 1000)
    with zipfile.ZipFile(place / "back" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.csv", GOOD)
        archive.writestr("bomb.csv", b"0" * 10_000_000)
    labels, (problem,) = read(place)
    assert labels == {"plain.png"}
    assert problem.startswith("a.zip/bomb.csv: it would be unpacked to 10000000 bytes")


def test_a_bomb_that_states_a_small_size_is_cut(place: Path) -> None:
    """No more is unpacked than was stated, and the file does not count."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", GOOD + "\n" * 10_000_000)
    data = bytearray(buffer.getvalue())
    at = data.rfind(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 100)
    (place / "back" / "a.zip").write_bytes(data)
    labels, problems = read(place)
    assert labels == set()
    assert len(problems) == 1


def test_an_archive_of_too_many_files_is_refused_as_a_whole(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its directory alone would fill the memory."""
    monkeypatch.setattr(archives, "MAX_MEMBERS", 10)
    with zipfile.ZipFile(place / "back" / "a.zip", "w") as archive:
        for number in range(11):
            archive.writestr(f"{number}.csv", "")
    labels, (problem,) = read(place)
    assert labels == set()
    assert "more than 10 files" in problem


def test_an_archive_of_a_later_version_is_one_problem(place: Path) -> None:
    """The version that it needs is in its directory, and may be any number."""
    data = bytearray(inside())
    data[data.rfind(b"PK\x01\x02") + 6] = 235
    (place / "back" / "a.zip").write_bytes(data)
    labels, (problem,) = read(place)
    assert labels == set()
    assert problem == "a.zip: it is no complete zip archive: zip file version 23.5"


@pytest.mark.parametrize("cut", [4, 60, -30])
def test_a_damaged_archive_is_one_problem(place: Path, cut: int) -> None:
    """Half an upload is named with its reason."""
    (place / "back" / "a.zip").write_bytes(inside()[:cut])
    labels, (problem,) = read(place)
    assert labels == set()
    assert problem.startswith("a.zip: it is no complete zip archive")
