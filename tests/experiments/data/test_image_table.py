"""Tables of images and labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data.image_table import image_table

ROWS = [
    ("b/2.png", "dog", "train"),
    ("a/1.png", "cat", "train"),
    ("3.png", "cat", "train"),
    ("a/4.png", "dog", "test"),
    ("5.png", "cat", "test"),
]


def write_images(folder: Path, rows: Sequence[Sequence[str]] = ROWS) -> None:
    """Write a plain image for each row, whose gray level is the number in its name."""
    for path, *_ in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        level = 20 * int(Path(path).stem)
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(folder / path)


def write_table(
    file: Path,
    rows: Sequence[Sequence[str]] = ROWS,
    columns: Sequence[str] = ("path", "label", "split"),
) -> Path:
    """Write the rows as CSV or Parquet, by the ending."""
    frame = pd.DataFrame(rows, columns=list(columns))
    if file.suffix == ".csv":
        frame.to_csv(file, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(file)
    return file


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_rows_become_a_pool_and_a_test_set(tmp_path: Path, ending: str) -> None:
    """Images are sorted by path, found beside the table, and have their labels."""
    write_images(tmp_path)
    data = image_table(write_table(tmp_path / f"labels.{ending}"), image_size=8)
    assert data.class_names == ("cat", "dog")
    assert list(data.train.names) == ["3.png", "a/1.png", "b/2.png"]
    assert data.train_targets.tolist() == [0, 0, 1]
    assert list(data.test.names) == ["5.png", "a/4.png"]
    assert data.test_targets.tolist() == [0, 1]
    assert data.train.images(np.arange(3))[:, 0, 0, 0].tolist() == [60, 20, 40]


def test_paths_may_be_below_another_folder_or_absolute(tmp_path: Path) -> None:
    """`root` is where relative paths begin; absolute ones are named from their common folder."""
    write_images(tmp_path / "images")
    table = write_table(tmp_path / "labels.csv")
    plain = image_table(table, root=tmp_path / "images", image_size=8)
    rows = [(str(tmp_path / "images" / path), *rest) for path, *rest in ROWS]
    absolute = image_table(write_table(tmp_path / "absolute.csv", rows), image_size=8)
    upward = [(f"../images/{path}", *rest) for path, *rest in ROWS]
    (tmp_path / "tables").mkdir()
    above = image_table(write_table(tmp_path / "tables" / "above.csv", upward), image_size=8)
    for data in (absolute, above):
        assert list(data.train.names) == list(plain.train.names)
        assert data.train_targets.tolist() == plain.train_targets.tolist()


def test_validation_rows_are_a_test_set_where_there_is_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows of val measure if none says test, and are ignored with a log line otherwise."""
    write_images(tmp_path)
    rows = [(path, label, "Val" if split == "test" else split) for path, label, split in ROWS]
    data = image_table(write_table(tmp_path / "labels.csv", rows), image_size=8)
    assert len(data.test) == 2
    rows[3] = (*ROWS[3][:2], "test")
    with caplog.at_level(logging.INFO):
        data = image_table(write_table(tmp_path / "labels.csv", rows), image_size=8)
    assert list(data.test.names) == ["a/4.png"]
    assert "ignored 1 image for validation" in caplog.text


def test_a_share_is_held_out_without_a_split(tmp_path: Path) -> None:
    """A table of paths and labels alone is divided, numbers and the word NA being labels."""
    rows = [(f"{i}.png", "NA" if i % 2 else "7") for i in range(12)]
    write_images(tmp_path, rows)
    table = write_table(tmp_path / "labels.csv", rows, ("path", "label"))
    data = image_table(table, image_size=8, test_fraction=0.5)
    assert data.class_names == ("7", "NA")
    assert len(data.train) + len(data.test) == 12
    assert min(len(data.train), len(data.test)) >= 2


def test_missing_images_are_left_out(tmp_path: Path) -> None:
    """A path without a file is unreadable with its reason; the others count."""
    write_images(tmp_path)
    (tmp_path / "3.png").unlink()
    data = image_table(write_table(tmp_path / "labels.csv"), image_size=8)
    assert data.train.unreadable == {0: "No such file or directory"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,class\na,b\n", "has the columns file, class; needed are path and label"),
        ("path;label\na;b\n", "has the columns path;label; needed are"),
        ("path,label\n", "has no rows"),
        ("", "cannot be read"),
        ("path,label\na.png,\nb.png,x\n", "1 row .* without a label, the first is row 1"),
        ("path,label\na.png,x\na.png,y\n", "lists a.png twice, in rows 1 and 2"),
        ("path,label\na.png,x\n./a.png,y\n", "lists a.png twice"),
        ("path,label\na.png,x\nb.png,x\n", "two classes are needed, .* are x"),
        ("path,label\na.png,x\nb.png,y\n", "has no test image: add a column split"),
        ("path,label,split\na.png,x,fit\n", "has fit; permitted are train, test and val"),
        (
            "path,label,split\na,x,train\nb,y,train\nc,z,test\n",
            "a class that the pool has not: z; the pool has x, y",
        ),
    ],
)
def test_a_table_that_is_of_no_use_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """One line says what is wrong, and in which row."""
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InvalidSetting, match=message) as caught:
        image_table(tmp_path / "labels.csv")
    assert "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A missing file, another ending, and bytes that are no text or no Parquet."""
    with pytest.raises(InvalidSetting, match=r"there is no file .*none.csv"):
        image_table(tmp_path / "none.csv")
    with pytest.raises(InvalidSetting, match=r"must end in .csv or .parquet or .pq"):
        image_table(tmp_path / "labels.xlsx")
    (tmp_path / "latin.csv").write_bytes("path,label\na,é\n".encode("latin-1"))
    with pytest.raises(InvalidSetting, match="is not in UTF-8"):
        image_table(tmp_path / "latin.csv")
    pytest.importorskip("pyarrow")
    (tmp_path / "no.parquet").write_bytes(b"hello")
    with pytest.raises(InvalidSetting, match="cannot be read"):
        image_table(tmp_path / "no.parquet")


def test_a_share_beside_a_test_set_is_refused(tmp_path: Path) -> None:
    """Two ways to say what the test set is are one too many."""
    write_images(tmp_path)
    with pytest.raises(InvalidSetting, match=r"labels.csv has 2 test images: leave it out"):
        image_table(write_table(tmp_path / "labels.csv"), test_fraction=0.2)
