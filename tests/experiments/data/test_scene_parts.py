import numpy as np
import pytest

from experiments.data.scene_parts import color_beside, digit_glyph, ground, image_samples


def test_grounds_keep_to_their_colors() -> None:
    """A ground differs from colors of the range by its blots at most, and has no hard edges."""
    for seed in range(5):
        drawn = ground(np.random.default_rng(seed), 64, (100, 120), spread=20)
        assert drawn.shape == (64, 64, 3)
        assert drawn.dtype == np.float32
        # Bicubic interpolation overshoots by a fraction of the difference of two blots.
        assert drawn.min() > 100 - 30
        assert drawn.max() < 120 + 30
        assert np.abs(np.diff(drawn, axis=0)).max() < 5


@pytest.mark.parametrize("level", [20, 128, 235])
def test_colors_stand_out(level: int) -> None:
    """A color keeps about the wanted distance from dark, gray and light grounds."""
    patch = np.full((8, 8, 3), level, np.float32)
    rng = np.random.default_rng(0)
    colors = [color_beside(rng, patch, channels=(0, 255), distances=(100, 120)) for _ in range(50)]
    distances = np.linalg.norm(np.stack(colors) - level, axis=1)
    assert distances.min() > 30
    assert 95 < distances.mean() < 140


def test_digits_have_the_height_that_is_asked_for() -> None:
    """The opacity of a digit ends at its ink, in the range of heights, and repeats by its seed."""
    for label in range(10):
        drawn = [
            digit_glyph(np.random.default_rng(5), label, 100, heights=(0.3, 0.4), held_out=held_out)
            for held_out in (False, False, True)
        ]
        assert np.array_equal(drawn[0], drawn[1])
        assert not np.array_equal(drawn[0], drawn[2])  # of other people's hands
        for alpha in drawn:
            assert 26 <= alpha.shape[0] <= 46
            assert (alpha[0] >= 0.5).any()
            assert (alpha[:, -1] >= 0.5).any()


def test_samples_carry_the_images() -> None:
    """The set in memory has the images' pixels, channels first, under unique names."""
    images = [np.full((4, 5, 3), value, np.uint8) for value in range(3)]
    images[1][2, 3] = (7, 8, 9)
    samples = image_samples(images, "scene")
    assert list(samples.names) == ["scene_00000.png", "scene_00001.png", "scene_00002.png"]
    found = samples.images(np.array([1]))[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found, images[1])
