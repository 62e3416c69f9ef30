"""The augmentation of DRN, for one image and its mask together.

Source: fyu/drn @ d75db2e, the order and the numbers of its transforms: optional rotation and scale,
a random crop, a mirror image. Beyond its border the image is reflected, and the mask has no class.
Differs: reflections do not repeat the edge on any side (upstream repeats it below and to the
right); images shrink by area (upstream: Lanczos).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.segmentation import IGNORED, Mask

Pixels = NDArray[np.uint8]
REFLECTED = cv2.BORDER_REFLECT_101


def augment(
    image: Pixels,
    mask: Mask,
    *,
    crop_size: int,
    flip: bool,
    rng: np.random.Generator,
    max_scale: float = 1.0,
    max_rotation: int = 0,
) -> tuple[Pixels, Mask]:
    """Augment a training sample.

    Args:
        image: uint8 (h, w, 3), RGB.
        mask: uint8 (h, w), 255 for pixels without a class.
        crop_size: Side of the result in pixels.
        flip: Mirror half of the results.
        rng: Source of all random numbers.
        max_scale: s: sides are multiplied by a number in [1/s, s]; 1 for none.
        max_rotation: Largest rotation to either side, by whole degrees; 0 for none.

    Returns:
        Image (crop_size, crop_size, 3) and mask (crop_size, crop_size), of the same pixels.
    """
    if max_rotation:
        image, mask = rotate(image, mask, int(rng.integers(-max_rotation, max_rotation + 1)))
    if max_scale > 1:
        image, mask = scale(image, mask, float(rng.uniform(1 / max_scale, max_scale)))
    image, mask = pad(image, mask, crop_size)
    height, width = mask.shape
    x = int(rng.integers(0, width - crop_size + 1))
    y = int(rng.integers(0, height - crop_size + 1))
    window = (slice(y, y + crop_size), slice(x, x + crop_size))
    image, mask = image[window], mask[window]
    if flip and rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    return image, mask


def rotate(image: Pixels, mask: Mask, degrees: int) -> tuple[Pixels, Mask]:
    """Rotate counter-clockwise about the center, keeping the size."""
    height, width = mask.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    turned = cv2.warpAffine(
        image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=REFLECTED
    )
    classes = cv2.warpAffine(
        mask, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT,
        borderValue=(IGNORED,),
    )  # fmt: skip
    return turned.astype(np.uint8, copy=False), classes.astype(np.uint8, copy=False)


def scale(image: Pixels, mask: Mask, ratio: float) -> tuple[Pixels, Mask]:
    """Multiply both sides by `ratio`, rounding down."""
    height, width = mask.shape
    size = (max(1, int(ratio * height)), max(1, int(ratio * width)))
    return resize_image(image, size), resize_mask(mask, size)


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize an image to (height, width), by area when shrinking and cubically when enlarging."""
    how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    resized = cv2.resize(image, size[::-1], interpolation=how)
    return resized.astype(np.uint8, copy=False)


def resize_mask(mask: Mask, size: tuple[int, int]) -> Mask:
    """Resize a mask to (height, width); each pixel gets the class of the nearest one."""
    # NEAREST_EXACT chooses the nearest center; NEAREST is off by up to half a pixel.
    resized = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return resized.astype(np.uint8, copy=False)


def pad(image: Pixels, mask: Mask, size: int) -> tuple[Pixels, Mask]:
    """Extend shorter sides to `size`, by half of the difference, rounded down, at the left or top.

    The image is reflected as often as necessary; the mask is filled with 255.
    """
    height, width = mask.shape
    down, right = max(0, size - height), max(0, size - width)
    if not down and not right:
        return image, mask
    edges = (down // 2, down - down // 2, right // 2, right - right // 2)
    padded = cv2.copyMakeBorder(image, *edges, REFLECTED)
    classes = cv2.copyMakeBorder(mask, *edges, cv2.BORDER_CONSTANT, value=(IGNORED,))
    return padded.astype(np.uint8, copy=False), classes.astype(np.uint8, copy=False)
