"""The augmentation for pose moves joints with what they are annotated on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.data.labels import HIDDEN, MISSING, VISIBLE
from experiments.data.pose_augmentation import augment

SIDE = 64
POINTS = np.array([[20.5, 14.5], [45.5, 30.5], [30.5, 50.5]], np.float32) / SIDE
SEEN = np.array([VISIBLE, HIDDEN, VISIBLE], np.uint8)
PLAIN: dict[str, Any] = {
    "mirrored": None, "max_rotation": 0.0, "max_scale": 1.0, "color_jitter": 0.0
}  # fmt: skip


def dotted() -> np.ndarray:
    """Return a black image with a dot of its own color at each joint."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    for channel, (x, y) in enumerate(POINTS * SIDE):
        image[int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2, channel] = 255
    return image


def centers(image: np.ndarray) -> np.ndarray:
    """Return the center of mass of each channel, as fractions of the side."""
    found = []
    for channel in range(3):
        weight = (image[:, :, channel] - image.min(2)).astype(float)  # 0 in the gray around
        y, x = np.mgrid[:SIDE, :SIDE] + 0.5
        found.append([(weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()])
    return np.array(found) / SIDE


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mirrored", [None, (1, 0, 2)])
def test_joints_stay_on_their_dots(seed: int, mirrored: tuple[int, ...] | None) -> None:
    """Under rotation, scale and mirror image a joint is where its dot is, up to the swap."""
    changes = {**PLAIN, "mirrored": mirrored, "max_rotation": 30.0, "max_scale": 1.2}
    rng = np.random.default_rng(seed)
    image, points, seen = augment(dotted(), POINTS, SEEN, **changes, rng=rng)
    inside = seen != MISSING
    # A mirrored image turns the order of the three dots around, and its joints change names.
    turn = np.linalg.det(np.diff(centers(image), axis=0)) * np.linalg.det(np.diff(POINTS, axis=0))
    order = [1, 0, 2] if turn < 0 else [0, 1, 2]
    assert turn > 0 or mirrored is not None
    expected = centers(image)[order]
    np.testing.assert_allclose(points[inside], expected[inside], atol=0.4 / SIDE)
    assert seen[inside].tolist() == SEEN[order][inside].tolist()


def test_half_of_the_results_are_mirror_images() -> None:
    """Half of them swap the joints of a pair, which sit at mirrored places."""
    flips = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        _, points, seen = augment(
            dotted(), POINTS, SEEN, **{**PLAIN, "mirrored": (1, 0, 2)}, rng=rng
        )
        flipped = POINTS[[1, 0, 2]] * (-1, 1) + (1, 0)
        if np.allclose(points, flipped, atol=1e-6):
            flips += 1
            assert seen.tolist() == SEEN[[1, 0, 2]].tolist()
        else:
            assert np.array_equal(points, POINTS)
    assert 18 <= flips <= 42


def test_a_joint_that_leaves_the_image_is_missing() -> None:
    """Magnified, a joint near the border is outside, and counts no more."""
    near = np.array([[0.01, 0.5], [0.5, 0.5], [0.99, 0.99]], np.float32)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        _, points, seen = augment(dotted(), near, SEEN, **{**PLAIN, "max_scale": 1.5}, rng=rng)
        outside = ((points < 0) | (points >= 1)).any(1)
        assert np.array_equal(seen == MISSING, outside)
        assert seen[1] == HIDDEN


def test_without_changes_the_sample_is_itself() -> None:
    """Nothing is resampled where nothing is to be changed, and the given arrays are kept."""
    image, points, seen = augment(dotted(), POINTS, SEEN, **PLAIN, rng=np.random.default_rng(0))
    assert np.array_equal(image, dotted())
    assert np.array_equal(points, POINTS)
    assert np.array_equal(seen, SEEN)


def test_brightness_changes_by_channel() -> None:
    """Channels are multiplied by factors within the limit, each by its own."""
    gray = np.full((SIDE, SIDE, 3), 100, np.uint8)
    rng = np.random.default_rng(1)
    image, _, _ = augment(gray, POINTS, SEEN, **{**PLAIN, "color_jitter": 0.3}, rng=rng)
    levels = image.reshape(-1, 3)
    assert (levels == levels[0]).all()
    assert len(set(levels[0].tolist())) == 3
    assert levels.min() >= 70
    assert levels.max() <= 130
