"""experiments.data.near_duplicates: the same picture twice is found, similar emptiness is not."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from experiments.data.near_duplicates import alike, distinct, look


def scene(seed: int, *, side: int = 96) -> np.ndarray:
    """Return a smooth picture that no other seed has."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)


def test_the_same_picture_in_other_pixels_is_alike() -> None:
    """A picture resized, brightened a little, compressed or with noise is a near-duplicate."""
    image = scene(0)
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    noise = np.random.default_rng(1).normal(0, 6, image.shape)
    for other in (
        cv2.resize(image, (60, 40), interpolation=cv2.INTER_AREA),
        cv2.convertScaleAbs(image, alpha=1.0, beta=4),
        cv2.imdecode(data, cv2.IMREAD_COLOR),
        np.clip(image + noise, 0, 255).astype(np.uint8),
    ):
        assert alike(look(image), look(other))


def test_other_pictures_are_not_alike() -> None:
    """Pictures of different scenes, colors, or sides are told apart."""
    looks = [look(scene(seed)) for seed in range(40)]
    assert not any(alike(a, b) for k, a in enumerate(looks) for b in looks[:k])
    image = scene(0)
    assert not alike(look(image), look(image[:, ::-1]))
    assert not alike(look(image), look(255 - image))


def test_dark_images_with_different_objects_are_not_alike() -> None:
    """Little light in different places, as under a microscope, is not the same picture."""
    dark = np.full((2, 64, 64, 3), 5, np.uint8)
    dark[0, 10:20, 10:20] = 60
    dark[1, 40:50, 44:54] = 60
    assert not alike(look(dark[0]), look(dark[1]))
    assert alike(look(np.zeros((8, 8, 3), np.uint8)), look(np.zeros((20, 30, 3), np.uint8)))


def test_duplicates_are_folded_into_the_first() -> None:
    """The first of each look is kept in order and counts the others; no item is taken in vain."""
    taken = []

    def items() -> Iterator[tuple[str, np.ndarray]]:
        for name in ("a1", "b1", "a2", "a3", "c1", "b2", "d1"):
            taken.append(name)
            yield name, scene(ord(name[0]))

    assert distinct(items(), 3) == [("a1", 2), ("b1", 0), ("c1", 0)]
    assert taken[-1] == "c1"
    assert distinct(items(), 9) == [("a1", 2), ("b1", 1), ("c1", 0), ("d1", 0)]
    assert distinct(items(), 0) == []
