import numpy as np
import pytest

from experiments.data.scenes import Scene, image_samples, scene, scenes

SIZE = 96


@pytest.fixture(scope="module")
def composed() -> list[Scene]:
    """Sixty scenes of seed 0."""
    return scenes(60, size=SIZE)


def test_shapes_and_ranges(composed: list[Scene]) -> None:
    """Images, boxes, labels and masks have the promised shapes, types and ranges."""
    for one in composed:
        assert one.image.shape == (SIZE, SIZE, 3)
        assert one.image.dtype == one.mask.dtype == np.uint8
        assert one.mask.shape == (SIZE, SIZE)
        assert one.boxes.dtype == np.float32
        assert one.labels.dtype == np.int64
        assert one.boxes.shape == (len(one.labels), 4)
        assert len(one.labels) >= 1
        assert (one.boxes[:, :2] >= 0).all()
        assert (one.boxes[:, 2:] <= SIZE).all()
        assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
        assert set(np.unique(one.mask)) - {0} <= set((one.labels + 1).tolist())


def test_same_seed_and_index_same_scene(composed: list[Scene]) -> None:
    """A scene depends on its seed and index alone; other seeds and held-out ones differ."""
    again = scene(17, size=SIZE)
    assert np.array_equal(again.image, composed[17].image)
    assert np.array_equal(again.boxes, composed[17].boxes)
    assert np.array_equal(again.mask, composed[17].mask)
    assert not np.array_equal(scene(17, size=SIZE, seed=1).image, again.image)
    assert not np.array_equal(scene(17, size=SIZE, held_out=True).image, again.image)


def test_boxes_hold_the_ink_of_their_digit(composed: list[Scene]) -> None:
    """Every seen pixel of a class lies in a box of it, and a lone digit fills its box exactly."""
    lone = 0
    for one in composed:
        for label in set(one.labels.tolist()):
            inside = np.zeros((SIZE, SIZE), bool)
            for x_min, y_min, x_max, y_max in one.boxes[one.labels == label].astype(int):
                inside[y_min:y_max, x_min:x_max] = True
            assert inside[one.mask == label + 1].all()
        if len(one.labels) == 1:
            rows, columns = np.nonzero(one.mask)
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert one.boxes[0].tolist() == tight
            lone += 1
    assert lone


def test_no_digit_is_covered_beyond_recognition(composed: list[Scene]) -> None:
    """At least half of the ink of each digit is seen, so every truth can be found."""
    for one in composed:
        for label in set(one.labels.tolist()):
            assert (one.mask == label + 1).sum() >= 8 * (one.labels == label).sum()


def test_hard_scenes_are_harder(composed: list[Scene]) -> None:
    """Hard scenes have more and smaller digits than easy ones; there are both."""
    hard = [one for one in composed if one.hard]
    easy = [one for one in composed if not one.hard]
    assert 0.15 < len(hard) / len(composed) < 0.5

    def height(some: list[Scene]) -> float:
        return float(np.mean(np.concatenate([s.boxes[:, 3] - s.boxes[:, 1] for s in some])))

    assert np.mean([len(s.labels) for s in hard]) > 1.8 * np.mean([len(s.labels) for s in easy])
    assert height(hard) < 0.8 * height(easy)


def test_classes_are_skewed() -> None:
    """The most frequent digit occurs several times as often as the rarest, and all occur."""
    counts = np.bincount(np.concatenate([s.labels for s in scenes(250, size=32)]), minlength=10)
    assert counts.min() > 0
    assert counts[0] > 3 * counts[9]


def test_samples_carry_the_images(composed: list[Scene]) -> None:
    """The set in memory has the scenes' pixels, channels first, under unique names."""
    samples = image_samples([one.image for one in composed[:5]], "scene")
    assert list(samples.names)[:2] == ["scene_00000.png", "scene_00001.png"]
    image = samples.images(np.array([3]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(image, composed[3].image)


def test_too_small() -> None:
    """Scenes too small to hold a digit are refused."""
    with pytest.raises(ValueError, match="at least 32"):
        scene(0, size=16)
