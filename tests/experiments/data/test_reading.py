"""Files on devices that fail now and then."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.data import reading
from experiments.data.decoding import UnreadableImage, decode_many, read_rgb


class FlakyDevice:
    """Fails the first reads of each file."""

    def __init__(self, failures: int, code: int = errno.EIO) -> None:
        self.failures, self.code = failures, code
        self.reads: dict[str, int] = {}

    def __call__(self, path: object) -> bytes:
        self.reads[str(path)] = self.reads.get(str(path), 0) + 1
        if self.reads[str(path)] <= self.failures:
            raise OSError(self.code, errno.errorcode[self.code], str(path))
        return Path(str(path)).read_bytes()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PAUSES", (0.0, 0.0))


def write(path: Path) -> Path:
    """Write a small image."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    return path


def test_a_passing_error_is_overcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two failures in a row cost an image nothing but time."""
    device = FlakyDevice(2)
    monkeypatch.setattr(reading, "_read", device)
    assert read_rgb(write(tmp_path / "x.png")).shape == (8, 8, 3)
    assert list(device.reads.values()) == [3]


def test_an_error_that_stays_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three attempts the image is left out, with the error of the device as the reason."""
    monkeypatch.setattr(reading, "_read", FlakyDevice(3))
    found = decode_many([write(tmp_path / "x.png")], 8)
    assert found.unreadable == {0: "cannot be read at present (EIO)"}


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT])
def test_a_lasting_error_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A file that is missing or forbidden is so a moment later."""
    device = FlakyDevice(1, code)
    monkeypatch.setattr(reading, "_read", device)
    with pytest.raises(UnreadableImage):
        read_rgb(write(tmp_path / "x.png"))
    assert list(device.reads.values()) == [1]
