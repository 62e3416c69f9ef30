"""Segmentation sets at another size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.data.drn_list import drn_list
from experiments.data.resized import resized
from experiments.data.segmentation import digit_scenes
from tests.experiments.segmentation_trees import write_drn_list


def test_images_and_masks_are_resized_alike(tmp_path: Path) -> None:
    """Every side is rounded, masks keep their classes, and a broken image stays left out."""
    write_drn_list(tmp_path, sizes=((48, 64), (41, 50)))
    (tmp_path / "images/train/002.jpg").write_bytes(b"no image")
    whole = drn_list(tmp_path)
    half = resized(whole, 0.5)
    assert half.train.unreadable == whole.train.unreadable
    assert half.train.size(2) == (0, 0)
    assert half.train.size(0) == (24, 32)
    assert half.train.size(1) == (20, 25)
    for index in (0, 1):
        image, mask = half.train.picture(index), half.train_masks.mask(index)
        assert image.shape[:2] == mask.shape == half.train.size(index)
        assert set(np.unique(mask)) <= set(np.unique(whole.train_masks.mask(index)))
    assert half.test.size(0) == (24, 32)
    assert half.test_masks.mask(0).shape == (24, 32)
    assert len(half.test) == len(half.test_masks) == len(whole.test)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_classes_stay_where_they_are_seen(scale: float) -> None:
    """Every fourth pixel of a doubled mask, or the pixel beside, is that of the mask."""
    data = digit_scenes(num_scenes=3, num_test_scenes=1, scene_size=64)
    other = resized(data, scale)
    mask, scaled = data.train_masks.mask(0), other.train_masks.mask(0)
    small, large = (mask, scaled) if scale > 1 else (scaled, mask)
    offered = np.stack([large[i::2, j::2] for i in (0, 1) for j in (0, 1)])
    assert (offered == small).any(0).all()
