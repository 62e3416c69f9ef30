"""SSD's augmentation: boxes follow the pixels."""

import cv2
import numpy as np
import pytest

from experiments.data import detection_augmentation
from experiments.data.detection_augmentation import PIXEL_MEAN, augment


def marked(width: int = 90, height: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A dark image with one bright rectangle, and its box."""
    image = np.full((height, width, 3), 20, np.uint8)
    image[20:44, 30:70] = 250
    return image, np.array([[30, 20, 70, 44]], np.float32)


def test_boxes_follow_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is expanded, cropped and mirrored, the box is where its pixels are."""
    monkeypatch.setattr(
        detection_augmentation._Distortion, "__call__", lambda self, image: image.astype(np.float32)
    )
    image, boxes = marked()
    size, extents = 128, set()
    for seed in range(80):
        pixels, moved, labels = augment(
            image, boxes, np.array([3]), size=size, flip=True, rng=np.random.default_rng(seed)
        )
        assert labels.tolist() == [3]
        assert moved.min() >= 0
        assert moved.max() <= 1
        # Halfway between the mark (250) and the mean color (115 on average) or the ground (20).
        rows, columns = np.nonzero(pixels.mean(2) > 185)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        # A pixel of the image may be several of the result.
        assert np.abs(moved[0] * size - seen).max() < 1.5 + 0.25 * size / 18
        extents.add(tuple((seen[2:] - seen[:2]).tolist()))
    assert len(extents) > 20


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    "window",
    [(0, 0, 90, 60), (-40, -25, 200, 150), (12, 7, 50, 40), (-30, 10, 70, 44), (35, -10, 85, 66)],
)
def test_pixels_are_those_of_the_published_steps(
    window: tuple[int, int, int, int], mirrored: bool
) -> None:
    """One warp gives the result of distortion, canvas, crop, mirror image and resize in turn."""
    rng = np.random.default_rng(2)
    image = cv2.resize(rng.uniform(0, 255, (5, 7, 3)), (90, 60), interpolation=cv2.INTER_LINEAR)
    image = image.astype(np.uint8)

    def distortion(pixels: np.ndarray) -> np.ndarray:
        return (1.25 * pixels.astype(np.float32) - 30)[..., [2, 0, 1]]

    left, top, width, height = window
    canvas = np.full((300, 400, 3), PIXEL_MEAN, np.float32)
    canvas[100:160, 100:190] = distortion(image)
    shown = canvas[100 + top : 100 + top + height, 100 + left : 100 + left + width]
    shown = shown[:, ::-1] if mirrored else shown
    expected = cv2.resize(np.ascontiguousarray(shown), (64, 64), interpolation=cv2.INTER_LINEAR)
    pixels = detection_augmentation._render(
        image, detection_augmentation._Window(*window), size=64, mirrored=mirrored,
        distortion=distortion,  # type: ignore[arg-type]
    )  # fmt: skip
    # The warp works in 32nds of a pixel, rounds, and at the edge of a crop looks beyond it.
    assert np.abs(pixels - expected).max() < 6


def test_distortion_of_a_color() -> None:
    """Brightness, contrast, saturation, hue and channel order all occur, within their bounds."""
    color = np.array([[[200, 120, 40]]], np.uint8)
    found = np.array([detection_augmentation._Distortion(np.random.default_rng(k))(color)[0, 0]
                      for k in range(400)])  # fmt: skip
    assert np.isfinite(found).all()
    assert found.max() <= (200 + 32) * 1.5 + 1e-3
    assert found.max() > 300  # not clipped
    unchanged = np.abs(found - color[0, 0]).max(1) < 0.01
    assert 5 < unchanged.sum() < 60  # of 400; one in 32 is expected
    reordered = (found.argmax(1) != 0) | (found.argmin(1) != 2)
    assert 100 < reordered.sum() < 240  # 5 of 6 orders half of the time
    hsv = cv2.cvtColor(np.sort(found)[None, :, ::-1].astype(np.float32), cv2.COLOR_RGB2HSV)[0]
    assert 12 < hsv[:, 0].min() < 13.5  # 30 degrees less at most 18; orders are undone above
    assert hsv[:, 0].max() < 48.5


def test_augmentation_depends_on_its_generator_alone() -> None:
    """The same generator state gives the same sample, to the last bit."""
    image, boxes = marked()
    results = [
        augment(image, boxes, np.array([0]), size=64, flip=True, rng=np.random.default_rng(5))
        for _ in range(2)
    ]
    assert np.array_equal(results[0][0], results[1][0])
    assert np.array_equal(results[0][1], results[1][1])


def test_ways_of_augmentation_all_occur() -> None:
    """Expansion, crops, whole images and mirror images occur, and no mirror image if unwanted."""
    image, _ = marked()
    boxes = np.array([[0, 0, 45, 60]], np.float32)  # the left half
    areas, left, mirrored = [], 0, 0
    for seed in range(200):
        _, moved, _ = augment(
            image, boxes, np.array([0]), size=32, flip=False, rng=np.random.default_rng(seed)
        )
        areas.append(float((moved[0, 2:] - moved[0, :2]).prod()))
        whole = [
            augment(image, boxes, np.array([0]), size=32, flip=flip,
                    rng=np.random.default_rng(seed))[1][0] for flip in (False, True)
        ]  # fmt: skip
        left += np.allclose(moved[0], [0, 0, 0.5, 1])
        mirrored += np.allclose(whole[1], [1 - whole[0][2], whole[0][1], 1 - whole[0][0],
                                           whole[0][3]], atol=1e-6)  # fmt: skip
    assert min(areas) < 0.5 / 4
    assert max(areas) > 0.8
    assert left > 5
    assert 60 < mirrored < 140


def test_least_overlap_and_objects_without_center() -> None:
    """Objects cut off by a crop stay if their center is visible; at least one stays."""
    image, _ = marked()
    boxes = np.array([[5, 5, 15, 15], [70, 40, 85, 55], [40, 25, 50, 35]], np.float32)
    numbers = set()
    for seed in range(100):
        _, moved, labels = augment(
            image, boxes, np.arange(3), size=32, flip=False, rng=np.random.default_rng(seed)
        )
        assert len(moved) == len(labels) >= 1
        assert (moved[:, 2:] > moved[:, :2]).all()
        numbers.add(len(labels))
    assert numbers == {1, 2, 3}


def test_images_without_objects_are_augmented_too() -> None:
    """An image without objects is distorted and expanded, not refused."""
    image, _ = marked()
    none = np.zeros((0, 4), np.float32)
    for seed in range(10):
        pixels, boxes, labels = augment(
            image, none, np.zeros(0, np.int64), size=32, flip=True, rng=np.random.default_rng(seed)
        )
        assert np.isfinite(pixels).all()
        assert boxes.shape == (0, 4)
        assert labels.shape == (0,)
