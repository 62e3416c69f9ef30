from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from al_core import write_entropies_csv, write_ranking_csv, write_upload_csv
from al_core.entropies import (
    LARGEST_UPLOAD_VALUE,
    bare_name,
    name_clashes,
    read_ranking_csv,
    upload_values,
)
from al_core.errors import InvalidSetting, NonFiniteValue

NAMES = [
    "plain.jpg",
    "a,b.png",
    'say "x".png',
    "Zürich/été_😀.png",
    " space ",
    "line\nbreak",
    "semi;c",
]
FINITE = st.floats(allow_nan=False, allow_infinity=False)


class Images:
    """A data set of named images."""

    def get_image_path(self, index: int) -> str:
        """Name by position."""
        assert type(index) is int
        return NAMES[index]


def imported(text: str) -> float:
    """Read a value as SuperAnnotate's importer does: 8 characters, clipped, 5 decimals."""
    return round(min(max(float(text[:8]), 0.0), 1e6), 5)


def imported_file(path: Path) -> tuple[list[str], list[float]]:
    """Read a file as the importer does."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row[0] for row in rows], [imported(row[1]) for row in rows]


def test_bytes_are_those_of_the_published_writer(tmp_path: Path) -> None:
    """Header, CRLF, quoting of commas, quotes and breaks, UTF-8, full precision, order as given."""
    path = tmp_path / "entropies.csv"
    values = [0.1 + 0.2, 1.2345678e-05, -3.5, 1e22, 7, 0.1, -0.0]
    write_entropies_csv(Images(), [1, 2, 3, 0, 5, 4, 6], values, path)
    assert (
        path.read_bytes()
        == (
            "name,entropy_value\r\n"
            '"a,b.png",0.30000000000000004\r\n'
            '"say ""x"".png",1.2345678e-05\r\n'
            "Zürich/été_😀.png,-3.5\r\n"
            "plain.jpg,1e+22\r\n"
            '"line\nbreak",7\r\n'
            " space ,0.1\r\n"
            "semi;c,-0.0\r\n"
        ).encode()
    )


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (torch.tensor([0.5, 0.1]), ["0.5", "0.10000000149011612"]),
        (torch.tensor([0.5, 0.1], dtype=torch.float64, requires_grad=True), ["0.5", "0.1"]),
        (np.array([0.5, 0.1]), ["0.5", "0.1"]),
        (np.array([0.5, 0.1], dtype=np.float32), ["0.5", "0.1"]),
        ((v for v in (0.5, 0.1)), ["0.5", "0.1"]),
    ],
)
def test_values_of_any_kind_are_written_as_numbers(
    tmp_path: Path, values: Any, texts: list[str]
) -> None:
    """Tensors, arrays and generators give plain numbers, never `tensor(...)`."""
    path = tmp_path / "entropies.csv"
    write_entropies_csv(Images(), np.array([0, 6]), values, path)
    expected = f"name,entropy_value\r\nplain.jpg,{texts[0]}\r\nsemi;c,{texts[1]}\r\n"
    assert path.read_bytes().decode() == expected


@given(
    rows=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), FINITE), max_size=20),
)
def test_what_is_written_is_read_back(
    rows: list[tuple[str, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any name and any finite number come back exactly as they were, in their order."""
    path = tmp_path_factory.getbasetemp() / "round_trip.csv"
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    write_ranking_csv(path, names, values)
    names_read, values_read = read_ranking_csv(path)
    assert names_read == names
    assert values_read.tolist() == values


def test_each_call_writes_one_file_with_all_its_rows(tmp_path: Path) -> None:
    """Every cycle has its own file with every row; no earlier file is changed or added to."""
    names = [f"{i}.png" for i in range(500)]
    for cycle in range(3):
        write_ranking_csv(tmp_path / f"cycle_{cycle:02}.csv", names[cycle:], range(500 - cycle))
    for cycle in range(3):
        read, values = read_ranking_csv(tmp_path / f"cycle_{cycle:02}.csv")
        assert read == names[cycle:]
        assert values.tolist() == list(range(500 - cycle))
    write_ranking_csv(tmp_path / "cycle_00.csv", ["x"], [1.0])
    assert (tmp_path / "cycle_00.csv").read_bytes() == b"name,entropy_value\r\nx,1.0\r\n"
    assert len(list(tmp_path.iterdir())) == 3


class _Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("in the middle")


def test_a_failing_write_leaves_the_old_file(tmp_path: Path) -> None:
    """If a row cannot be written the previous file is there as it was, and nothing beside it."""
    path = tmp_path / "entropies.csv"
    write_ranking_csv(path, ["old.png"], [1.0])
    with pytest.raises(RuntimeError, match="in the middle"):
        write_ranking_csv(path, ["a.png", "b.png"], [1.0, _Unprintable()])
    assert path.read_bytes() == b"name,entropy_value\r\nold.png,1.0\r\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("count", [1, 3])
def test_names_and_values_must_be_as_many(tmp_path: Path, count: int) -> None:
    """A value missing or left over raises with both numbers, and no file appears."""
    path = tmp_path / "entropies.csv"
    with pytest.raises(InvalidSetting, match=f"2 names cannot go with {count} values"):
        write_entropies_csv(Images(), [0, 1], [0.5] * count, path)
    with pytest.raises(InvalidSetting, match=f"2 names cannot go with {count} values"):
        write_upload_csv(path, ["a", "b"], [0.5] * count)
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "first line must be name,entropy_value"),
        ("a.png,0.5\n", "first line must be name,entropy_value"),
        ("name,entropy_value\na.png,0.5\nb.png\n", "line 3: not a name and a number"),
        ("name,entropy_value\na.png,much\n", "line 2: not a name and a number"),
        ("name,entropy_value\na.png,1,2\n", "line 2: not a name and a number"),
    ],
)
def test_a_file_that_is_no_ranking_is_refused(tmp_path: Path, content: str, text: str) -> None:
    """Another header or a row that is not a name and a number raises and names file and line."""
    path = tmp_path / "other.csv"
    path.write_text(content)
    with pytest.raises(InvalidSetting, match=rf"other\.csv.*{text}"):
        read_ranking_csv(path)


def test_the_importer_would_spoil_raw_values() -> None:
    """The reason for the upload file: raw scores lose their order in the annotation tool."""
    assert imported("1.2345678e-05") > 1  # the exponent is cut off
    assert imported("-2.5") == imported("-0.5") == 0
    assert imported("1234567890.5") == imported("1234567899.5")
    assert imported("0.123456") == imported("0.1234561")


@given(scores=st.lists(st.one_of(FINITE, st.sampled_from([0.0, -0.0, 1e-5, 1.0])), max_size=50))
@example(scores=[5e-324, 0.0, -5e-324, 1.7976931348623157e308, -1.7976931348623157e308])
@example(scores=[0.1, np.nextafter(0.1, 1), np.nextafter(0.1, 0), 1.2345678e-05, 0.5])
def test_the_importer_cannot_change_the_order_of_an_upload(
    scores: list[float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """For any finite scores, what the tool reads has their order and exactly their ties."""
    path = tmp_path_factory.getbasetemp() / "upload.csv"
    write_upload_csv(path, [f"folder/{i}.png" for i in range(len(scores))], scores)
    names, read = imported_file(path)
    assert names == [f"{i}.png" for i in range(len(scores))]
    raw, seen = np.asarray(scores), np.asarray(read)
    np.testing.assert_array_equal(seen[:, None] > seen, raw[:, None] > raw)
    np.testing.assert_array_equal(seen[:, None] == seen, raw[:, None] == raw)


def test_upload_values_are_whole_numbers_of_six_digits_at_most() -> None:
    """A million different scores fill 0 to 999,999 exactly, without a warning."""
    values = upload_values(np.random.default_rng(0).permutation(1_000_000) / 7)
    assert values.dtype == np.int64
    assert (values.min(), values.max()) == (0, LARGEST_UPLOAD_VALUE)
    assert np.unique(values).size == 1_000_000
    assert all(imported(str(value)) == value for value in (0, 1, 99_999, 999_998, 999_999))


def test_beyond_a_million_the_most_wanted_keep_their_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The least wanted of more than a million different scores are tied, and a warning says so."""
    n = 1_000_005
    scores = np.arange(n) * 0.5 - 1000
    with caplog.at_level(logging.WARNING):
        values = upload_values(scores)
    assert (values[:6] == 0).all()  # six share the 0 that one would have had
    assert values[6] == 1
    assert (np.diff(values[5:]) == 1).all()
    assert values[-1] == LARGEST_UPLOAD_VALUE
    assert "1000005 different scores" in caplog.text
    assert "lowest 6 are uploaded as equal" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_not_uploaded(tmp_path: Path, bad: float) -> None:
    """NaN or infinity raises NonFiniteValue with its row, and no file appears."""
    path = tmp_path / "upload.csv"
    with pytest.raises(NonFiniteValue, match=f"row 1 is {bad}"):
        write_upload_csv(path, ["a", "b"], [0.5, bad])
    assert not path.exists()


@pytest.mark.parametrize(
    ("name", "bare"),
    [
        ("a.png", "a.png"),
        ("train/cats/a.png", "a.png"),
        ("C:\\images\\a.png", "a.png"),
        ("mixed\\slashes/a.png", "a.png"),
        ("/a.b/c", "c"),
    ],
)
def test_bare_names_have_no_folders(name: str, bare: str) -> None:
    """Only the file name is left: a name with a slash matches nothing in the tool."""
    assert bare_name(name) == bare


def test_clashes_of_bare_names_are_returned_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Images that share a bare name are reported, and all rows are written nonetheless."""
    names = ["x/1.png", "y/1.png", "y/2.png", "3.png", "z\\3.png"]
    with caplog.at_level(logging.WARNING):
        clashes = write_upload_csv(tmp_path / "upload.csv", names, [5, 4, 3, 2, 1])
    assert clashes == {"1.png": ["x/1.png", "y/1.png"], "3.png": ["3.png", "z\\3.png"]}
    assert clashes == name_clashes(names)
    assert "2 file names stand for several images" in caplog.text
    assert imported_file(tmp_path / "upload.csv") == (
        ["1.png", "1.png", "2.png", "3.png", "3.png"],
        [4, 3, 2, 1, 0],
    )


def test_without_clashes_nothing_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Unique bare names give an empty report and no warning."""
    assert write_upload_csv(tmp_path / "upload.csv", ["x/1.png", "y/2.png"], [0.1, 0.2]) == {}
    assert caplog.text == ""
