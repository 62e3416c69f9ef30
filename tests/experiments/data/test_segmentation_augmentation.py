from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.data.segmentation_augmentation import augment, pad, rotate, scale

COLORS = 1 + np.random.default_rng(5).permutation(250)[:12]
"""Gray values of the classes: the image shows its own mask."""


def shown(size: tuple[int, int] = (60, 80), *, seed: int = 0) -> tuple[Any, Any]:
    """An image in which a pixel's value says its class, and the mask."""
    rng = np.random.default_rng(seed)
    height, width = size
    coarse = rng.integers(0, 12, (-(-height // 10), -(-width // 10)), dtype=np.uint8)
    mask = np.kron(coarse, np.ones((10, 10), np.uint8))[:height, :width]
    image = np.repeat(COLORS[mask].astype(np.uint8)[:, :, None], 3, axis=2)
    return image, mask


def agreement(image: Any, mask: Any) -> float:
    """Share of the labeled pixels whose color is that of their class."""
    labeled = mask != 255
    return float((image[:, :, 0][labeled] == COLORS[mask[labeled]]).mean())


def test_a_crop_is_a_window_of_image_and_mask_alike() -> None:
    """Without scale and rotation every result is a window, mirrored or not, and all come up."""
    image, mask = shown((24, 30))
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        crop, classes = augment(image, mask, crop_size=22, flip=True, rng=rng)
        assert agreement(crop, classes) == 1.0
        for y in range(3):
            for x in range(9):
                window = mask[y : y + 22, x : x + 22]
                for mirrored in (False, True):
                    if np.array_equal(classes, window[:, ::-1] if mirrored else window):
                        seen.add((y, x, mirrored))
    assert len(seen) == 3 * 9 * 2


def test_a_small_image_is_reflected_and_has_no_class_beyond() -> None:
    """Half of the padding, rounded down, is left and above; padded pixels have no label."""
    image, mask = shown((10, 7))
    padded, classes = pad(image, mask, 16)
    assert padded.shape == (16, 16, 3)
    assert np.array_equal(padded[3:13, 4:11], image)
    assert np.array_equal(classes[3:13, 4:11], mask)
    assert (classes == 255).sum() == 16 * 16 - 70
    assert np.array_equal(padded[2, 4:11], image[1])  # mirrored, the edge not repeated
    assert np.array_equal(padded[3:13, 3], image[:, 1])


def test_an_image_far_too_small_is_reflected_as_often_as_it_takes() -> None:
    """A crop larger than the image is filled by reflection and labeled only on the image."""
    image, mask = shown((3, 4))
    crop, classes = augment(image, mask, crop_size=50, flip=False, rng=np.random.default_rng(0))
    assert crop.shape == (50, 50, 3)
    assert (classes != 255).sum() == 12
    assert set(np.unique(crop)) <= set(np.unique(image))


@pytest.mark.parametrize("ratio", [0.5, 0.73, 1.4, 2.0])
def test_scale_keeps_image_and_mask_in_step(ratio: float) -> None:
    """Sides are multiplied and rounded down; inside of blocks, color and class still agree."""
    image, mask = shown()
    resized, classes = scale(image, mask, ratio)
    assert resized.shape == (int(ratio * 60), int(ratio * 80), 3)
    assert classes.shape == resized.shape[:2]
    assert set(np.unique(classes)) <= set(np.unique(mask))  # no mixture of classes
    assert agreement(resized, classes) > 0.4


def test_nearest_classes_are_those_of_the_nearest_center() -> None:
    """Halving or doubling an image does not shift the mask against it."""
    image, mask = shown()
    half_image, half = scale(image, mask, 0.5)
    assert agreement(half_image, half) == 1.0  # blocks of 10 are whole blocks of 5
    _, double = scale(image, mask, 2.0)
    assert np.array_equal(double, np.kron(mask, np.ones((2, 2), np.uint8)))


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_right_angles_turn_exactly(degrees: int) -> None:
    """A quarter of a turn of a square is numpy's; angles count counter-clockwise."""
    image, mask = shown((40, 40))
    turned, classes = rotate(image, mask, degrees)
    assert np.array_equal(turned, np.rot90(image, degrees // 90))
    assert np.array_equal(classes, np.rot90(mask, degrees // 90))


def test_rotation_leaves_corners_without_class_but_not_black() -> None:
    """A rotation fills the corners with the reflected image and class 255."""
    image, mask = shown()
    turned, classes = rotate(image, mask, 30)
    assert (classes == 255).any()
    assert turned.min() > 0
    assert agreement(turned, classes) > 0.6


def test_nothing_random_is_left_when_the_size_fits() -> None:
    """A crop of the size of the image without flip is the image."""
    image, mask = shown((32, 32))
    crop, classes = augment(image, mask, crop_size=32, flip=False, rng=np.random.default_rng(3))
    assert np.array_equal(crop, image)
    assert np.array_equal(classes, mask)


def test_augmentation_follows_its_generator() -> None:
    """With every option on, the same seed gives the same sample and another seed another one."""
    image, mask = shown()

    def sample(seed: int) -> tuple[Any, Any]:
        return augment(
            image, mask, crop_size=32, flip=True, max_scale=2.0, max_rotation=10,
            rng=np.random.default_rng(seed),
        )  # fmt: skip

    assert all(np.array_equal(a, b) for a, b in zip(sample(1), sample(1), strict=True))
    assert not np.array_equal(sample(1)[0], sample(2)[0])
    # Pixels on borders are mixtures; of a mask that is out of step, one in twelve would agree.
    assert all(agreement(*sample(seed)) > 0.25 for seed in range(20))
