"""Photographs as squares, and the cache that keeps them."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from al_core.errors import InvalidSetting
from experiments.data import photographs
from experiments.data.classification import image_folder
from experiments.data.decoding import UnreadableImage, read_rgb, resize_square
from experiments.data.photographs import BAR, RESIZES, SquareReader, fit_square, whole_image


def gradient(height: int, width: int) -> np.ndarray:
    """Return an image whose red grows to the right and whose green grows downward."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0] = np.linspace(0, 255, width).astype(np.uint8)
    image[:, :, 1] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return image


def write_photograph(path: Path, seed: int = 0, size: tuple[int, int] = (60, 90)) -> Path:
    """Write a photograph of random pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# ---- resizing


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (30, 20), (64, 64), (1, 900)])
def test_crop_is_the_center_square(size: tuple[int, int]) -> None:
    """The resizing of earlier versions is what it was."""
    image = gradient(*size)
    assert np.array_equal(fit_square(image, 32, "crop"), resize_square(image, 32))


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (30, 20), (64, 64), (1, 900)])
def test_letterbox_shows_the_whole_image_between_bars(size: tuple[int, int]) -> None:
    """All four corners of the image are there, its aspect is kept, and the rest is gray."""
    square = fit_square(gradient(*size), 64, "letterbox")
    assert square.shape == (64, 64, 3)
    height, width = (max(1, round(64 * side / max(size))) for side in size)
    top, left = (64 - height) // 2, (64 - width) // 2
    inner = square[top : top + height, left : left + width].astype(int)
    outside = np.ones((64, 64), bool)
    outside[top : top + height, left : left + width] = False
    assert (square[outside] == BAR).all()
    if min(size) > 1:
        assert inner[0, 0].max() < 12
        assert inner[-1, -1, :2].min() > 243


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (30, 20), (64, 64)])
def test_stretch_shows_the_whole_image(size: tuple[int, int]) -> None:
    """All four corners are at the corners of the square."""
    square = fit_square(gradient(*size), 64, "stretch").astype(int)
    assert square.shape == (64, 64, 3)
    assert square[0, 0].max() < 12
    assert square[-1, -1, :2].min() > 243
    assert abs(square[32, 32, :2] - 128).max() < 12


def test_other_ways_are_refused(tmp_path: Path) -> None:
    """The line names the three ways; a cache that is a file is refused, too."""
    with pytest.raises(
        InvalidSetting, match=r"data.resize must be one of crop, letterbox, stretch"
    ):
        SquareReader(32, "fit")
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match=r"data.cache: .*file is no folder"):
        SquareReader(32, "crop", tmp_path / "file")


def test_a_set_is_resized_as_it_says(tmp_path: Path) -> None:
    """The setting reaches pool and test set, in memory or not, and the set states it."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            write_photograph(tmp_path / part / name / "x.png", seed=len(part + name))
    for resize in RESIZES:
        for gigabytes in (0.0, 1.0):
            data = image_folder(tmp_path, image_size=24, resize=resize, max_memory_gb=gigabytes)
            assert data.resize == resize
            for samples in (data.train, data.test):
                assert samples.paths is not None
                expected = fit_square(read_rgb(samples.paths[1]), 24, resize)
                found = samples.images(np.array([1]))[0].permute(1, 2, 0).numpy()
                assert np.array_equal(found, expected)


def test_people_see_whole_images(tmp_path: Path) -> None:
    """A thumbnail is made of the photograph, not of the square that the network is given."""
    for part in ("train", "test"):
        for name in ("a", "b"):
            write_photograph(tmp_path / part / name / "x.png", seed=len(part + name))
    data = image_folder(tmp_path, image_size=24)
    assert whole_image(data.train, 1).shape == (60, 90, 3)
    write_photograph(tmp_path / "train" / "a" / "x.png", size=(700, 2000))
    assert whole_image(data.train, 0).shape == (448, 1280, 3)
    (tmp_path / "train" / "b" / "x.png").unlink()
    square = data.train.images(np.array([1]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(whole_image(data.train, 1), square)


# ---- cache


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list that grows by every photograph that is decoded."""
    decoded: list[Path] = []

    def read(path: Path) -> np.ndarray:
        decoded.append(path)
        return read_rgb(path)

    monkeypatch.setattr(photographs, "read_rgb", read)
    return decoded


def test_the_cache_changes_nothing_but_the_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are the same with it, and are decoded once for all readers of the same size."""
    path = write_photograph(tmp_path / "x.jpg")
    decoded = count_decoded(monkeypatch)
    for resize in RESIZES:
        expected = SquareReader(24, resize)(path)
        decoded.clear()
        for _ in range(3):
            assert np.array_equal(SquareReader(24, resize, tmp_path / "cache")(path), expected)
        assert len(decoded) == 1
    decoded.clear()
    SquareReader(25, "crop", tmp_path / "cache")(path)
    assert len(decoded) == 1


def test_a_changed_photograph_is_read_again(tmp_path: Path) -> None:
    """A file that is written anew under its name is not confused with what it was."""
    reader = SquareReader(24, "stretch", tmp_path / "cache")
    path = write_photograph(tmp_path / "x.bmp", seed=0)
    first = reader(path)
    before = path.stat()
    write_photograph(path, seed=1)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # even with its old time
    assert path.stat().st_size == before.st_size
    second = reader(path)
    assert not np.array_equal(first, second)
    assert np.array_equal(second, SquareReader(24, "stretch")(path))


@pytest.mark.parametrize("damage", [b"", b"\0" * (3 * 24 * 24 + 4), b"short"])
def test_a_damaged_entry_is_replaced(tmp_path: Path, damage: bytes) -> None:
    """A file damaged by a power failure is detected by its checksum and written again."""
    reader = SquareReader(24, "crop", tmp_path / "cache")
    path = write_photograph(tmp_path / "x.png")
    expected = reader(path)
    (entry,) = (each for each in (tmp_path / "cache").rglob("*") if each.is_file())
    entry.write_bytes(damage)
    assert np.array_equal(reader(path), expected)
    assert entry.read_bytes()[:-4] == expected.tobytes()


def test_a_full_disk_ends_the_cache_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Images are still read, one line says why no more are kept, and no part of a file stays."""
    reader = SquareReader(24, "crop", tmp_path / "cache")
    paths = [write_photograph(tmp_path / f"{i}.png", seed=i) for i in range(3)]

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING):
        for path in paths:
            assert np.array_equal(reader(path), SquareReader(24)(path))
    assert caplog.text.count("No space left on device") == 1
    assert not [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]


def test_many_readers_share_a_folder(tmp_path: Path) -> None:
    """Readers that write the same entries at once leave whole ones."""
    paths = [write_photograph(tmp_path / f"{i}.png", seed=i) for i in range(8)]
    expected = [SquareReader(24)(path) for path in paths]
    gate = threading.Barrier(4)

    def read_all(_: int) -> bool:
        reader = SquareReader(24, "crop", tmp_path / "cache")
        gate.wait()
        return all(
            np.array_equal(reader(path), image) for path, image in zip(paths, expected, strict=True)
        )

    with ThreadPoolExecutor(4) as executor:
        assert all(executor.map(read_all, range(4)))
    entries = [each for each in (tmp_path / "cache").rglob("*") if each.is_file()]
    assert len(entries) == 8
    assert {each.stat().st_size for each in entries} == {3 * 24 * 24 + 4}


def test_a_broken_photograph_stays_broken(tmp_path: Path) -> None:
    """An image that cannot be decoded is never cached, and a missing file has no entry."""
    reader = SquareReader(24, "crop", tmp_path / "cache")
    (tmp_path / "x.jpg").write_bytes(b"no image")
    for _ in range(2):
        with pytest.raises(UnreadableImage, match="not an image"):
            reader(tmp_path / "x.jpg")
    with pytest.raises(UnreadableImage, match="No such file"):
        reader(tmp_path / "gone.jpg")
    assert not (tmp_path / "cache").exists()


def test_a_set_from_the_cache_is_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second start decodes nothing, whether images are kept in memory or not."""
    for part in ("train", "test"):
        for i in range(6):
            write_photograph(tmp_path / part / "ab"[i % 2] / f"{i}.png", seed=i)
    plain = image_folder(tmp_path, image_size=20)
    decoded = count_decoded(monkeypatch)
    cache = str(tmp_path / "cache")
    for gigabytes in (0.0, 1.0, 0.0):
        data = image_folder(tmp_path, image_size=20, max_memory_gb=gigabytes, cache=cache)
        every = np.arange(6)
        assert torch.equal(data.train.images(every), plain.train.images(every))
        assert (data.mean, data.std) == (plain.mean, plain.std)
    assert len(decoded) == 12
