"""The augmentation for pose: rotation, scale, mirror image and brightness of the whole image.

Source: Newell et al., ECCV 2016 (arXiv 1603.06937, section 3.2): rotation by up to 30 degrees and
scaling by 0.75 to 1.25. The mirror image, which swaps the left and right joints, is that of nearly
every published recipe; so is the change of each channel's brightness.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import MISSING
from experiments.data.photographs import BAR


def augment(
    image: NDArray[np.uint8],
    points: NDArray[np.float32],
    visibility: NDArray[np.uint8],
    *,
    mirrored: Sequence[int] | None,
    max_rotation: float,
    max_scale: float,
    color_jitter: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """Augment a training sample.

    Args:
        image: uint8 (s, s, 3), RGB.
        points: (j, 2), x and y as fractions of the side.
        visibility: (j,), as of `Figure`.
        mirrored: The counterpart of each joint in a mirror image, which half of the results are;
            None for no mirror images.
        max_rotation: Degrees to either side.
        max_scale: The image is magnified by a random factor in [1 / s, s].
        color_jitter: Largest relative change of the brightness of each channel.
        rng: Source of all random numbers.

    Returns:
        Image, points and visibility; joints that are outside now are missing.
    """
    side = image.shape[0]
    angle = np.deg2rad(rng.uniform(-max_rotation, max_rotation))
    scale = max_scale ** rng.uniform(-1, 1)
    flips = bool(rng.random() < 0.5) and mirrored is not None
    jitter = 1 + rng.uniform(-color_jitter, color_jitter, 3)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cosine, -sine], [sine, cosine]])
    if flips:
        linear = linear @ np.diag([-1.0, 1.0])
    if not np.array_equal(linear, np.eye(2)):
        # OpenCV counts from the middle of the first pixel, which is 0.5 here.
        middle = np.full(2, (side - 1) / 2)
        image = cv2.warpAffine(
            image,
            np.column_stack([linear, middle - linear @ middle]),
            (side, side),
            flags=cv2.INTER_LINEAR,
            borderValue=(BAR, BAR, BAR),
        ).astype(np.uint8, copy=False)
        points = ((points - 0.5) @ linear.T + 0.5).astype(np.float32)
    if flips:
        order = list(mirrored or ())
        points, visibility = points[order], visibility[order]
    outside = ((points < 0) | (points >= 1)).any(1)
    visibility = np.where(outside, np.uint8(MISSING), visibility)
    if color_jitter:
        image = np.clip(np.rint(image * jitter), 0, 255).astype(np.uint8)
    return image, points, visibility
