"""Superpixels: partitions of images, kept by content."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from experiments.data.drn_list import drn_list
from experiments.data.pictures import MemoryPictures
from experiments.data.samples import MemorySamples
from experiments.units.superpixels import Superpixels
from tests.experiments.segmentation_trees import write_drn_list


def pictures(count: int = 3, seed: int = 0) -> MemoryPictures:
    """Images of two colors side by side, with noise."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 30, (count, 3, 40, 60), dtype=np.uint8)
    pixels[:, :, :, 30:] += 180
    return MemoryPictures(
        MemorySamples(torch.from_numpy(pixels), [f"{i}.png" for i in range(count)])
    )


def cut(tmp_path: Path, images: MemoryPictures, per_image: int = 12) -> Superpixels:
    """Cut into regions."""
    return Superpixels(images, per_image=per_image, compactness=20.0, cache=tmp_path / "cache")


def test_regions_cover_every_pixel_once_and_are_described_right(tmp_path: Path) -> None:
    """Numbers are 0 .. n - 1; sizes and boxes are those of the map; no region spans both halves."""
    made = cut(tmp_path, pictures())
    assert made.first[0] == 0
    for index in range(3):
        regions = made.map(index)
        count = made.first[index + 1] - made.first[index]
        assert regions.shape == (40, 60)
        assert np.array_equal(np.unique(regions), np.arange(count))
        for region in range(count):
            rows, columns = np.nonzero(regions == region)
            at = made.first[index] + region
            assert made.sizes[at] == len(rows)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert made.boxes[at].tolist() == box
            assert (columns < 31).all() or (columns >= 29).all()


def test_an_image_is_cut_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second set of the same pixels reads the maps; other settings, or pixels, make new ones."""
    first = cut(tmp_path, pictures())
    files = sorted((tmp_path / "cache").rglob("*.png"))
    assert len(files) == 3
    times = [file.stat().st_mtime_ns for file in files]
    again = cut(tmp_path, pictures())
    assert [file.stat().st_mtime_ns for file in files] == times
    assert np.array_equal(first.map(1), again.map(1))
    cut(tmp_path, pictures(), per_image=20)
    cut(tmp_path, pictures(1, seed=1))
    assert len(list((tmp_path / "cache").rglob("*.png"))) == 7


def test_a_damaged_or_lost_map_is_made_again(tmp_path: Path) -> None:
    """Half a file, another image and no file at all: the same regions."""
    made = cut(tmp_path, pictures())
    whole = [made.map(index) for index in range(3)]
    files = [tmp_path / "cache" / name for name in made._files]
    files[0].write_bytes(files[0].read_bytes()[:40])
    cv2.imwrite(str(files[1]), np.zeros((40, 60), np.uint8))
    files[2].unlink()
    for index in range(3):
        assert np.array_equal(made.map(index), whole[index])
    again = cut(tmp_path, pictures())
    assert np.array_equal(again.sizes, made.sizes)


def test_images_that_cannot_be_read_have_no_regions(tmp_path: Path) -> None:
    """The others are numbered without a gap."""
    write_drn_list(tmp_path)
    (tmp_path / "images/train/001.jpg").write_bytes(b"no image")
    made = Superpixels(
        drn_list(tmp_path).train, per_image=8, compactness=20.0, cache=tmp_path / "cache"
    )
    assert made.first[1] == made.first[2] > 0
    assert made.first[3] > made.first[2]


def test_identical_images_are_cut_at_once(tmp_path: Path) -> None:
    """Threads that write one map at the same moment do not take it from each other."""
    one = pictures(1).samples.pixels
    same = MemoryPictures(MemorySamples(one.repeat(8, 1, 1, 1), [f"{i}.png" for i in range(8)]))
    for number in range(10):
        made = cut(tmp_path / str(number), same)
        assert len({made.map(index).tobytes() for index in range(8)}) == 1
    assert not list(tmp_path.rglob("*.part"))
