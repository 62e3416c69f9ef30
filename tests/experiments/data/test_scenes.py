import numpy as np
import pytest

from experiments.data.scenes import KINDS, Scene, scene, scenes

SIZE = 96


@pytest.fixture(scope="module")
def composed() -> list[Scene]:
    """Sixty scenes of seed 0."""
    return scenes(60, size=SIZE)


@pytest.fixture(scope="module")
def many() -> list[Scene]:
    """Sixty held-out scenes of each kind."""
    return scenes(60 * len(KINDS), size=SIZE, held_out=True)


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


def test_boxes_hold_the_areas_of_their_digits(composed: list[Scene]) -> None:
    """Every pixel of a class lies in a box of it, and a digit that is alone fills its box."""
    alone = 0
    for one in composed:
        for label in set(one.labels.tolist()):
            inside = np.zeros((SIZE, SIZE), bool)
            for x_min, y_min, x_max, y_max in one.boxes[one.labels == label].astype(int):
                inside[y_min:y_max, x_min:x_max] = True
            assert inside[one.mask == label + 1].all()
        for label, box in zip(one.labels, one.boxes.tolist(), strict=True):
            rows, columns = np.nonzero(one.mask == label + 1)
            if (one.labels == label).sum() == 1 and not _overlaps(box, one.boxes):
                tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert box == tight
                alone += 1
    assert alone > 50


def _overlaps(box: list[float], boxes: np.ndarray) -> bool:
    """Return whether a box shares an area with another one."""
    width = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    height = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    return int(((width > 0) & (height > 0)).sum()) > 1


def test_every_kind_is_equally_clear(many: list[Scene]) -> None:
    """Kinds have as many digits, which stand out from their ground as much and stay uncovered."""
    numbers, contrasts = [], []
    for kind in KINDS:
        some = [one for one in many if one.kind is kind]
        numbers.append(np.mean([len(one.labels) for one in some]))
        contrasts.append(np.mean([_contrast(one) for one in some]))
        for one in some:
            for label in set(one.labels.tolist()):
                area = np.diff(one.boxes[one.labels == label].reshape(-1, 2, 2), axis=1).prod(2)
                assert (one.mask == label + 1).sum() > 0.15 * area.sum()
    assert max(numbers) < 1.15 * min(numbers)
    assert max(contrasts) < 1.15 * min(contrasts)


def _contrast(one: Scene) -> float:
    """Return the distance from the ground's mean color that a digit's pixels reach."""
    ground = one.image[one.mask == 0].mean(0)
    distances = np.linalg.norm(one.image[one.mask > 0] - ground, axis=1)
    return float(np.quantile(distances, 0.9))


def test_the_pool_is_skewed() -> None:
    """Four scenes in five are of the common kind, where the first digits prevail."""
    pool = scenes(400, size=32)
    common = [one for one in pool if one.kind is KINDS[0]]
    assert 0.74 < len(common) / len(pool) < 0.86
    assert {one.kind for one in pool} == set(KINDS)
    counts = _counts(pool)
    assert counts.min() > 0
    assert counts[0] > 10 * counts[9]
    rare = _counts([one for one in pool if one.kind is not KINDS[0]])
    assert rare.max() < 4 * rare.min()


def test_the_test_set_is_balanced(many: list[Scene]) -> None:
    """Held-out scenes are of all kinds and digits alike."""
    assert [sum(one.kind is kind for one in many) for kind in KINDS] == [60] * len(KINDS)
    counts = _counts(many)
    assert counts.max() < 2 * counts.min()


def _counts(some: list[Scene]) -> np.ndarray:
    """Count each digit."""
    return np.bincount(np.concatenate([one.labels for one in some]), minlength=10)


def test_too_small() -> None:
    """Scenes too small to hold a digit are refused."""
    with pytest.raises(ValueError, match="at least 32"):
        scene(0, size=16)
