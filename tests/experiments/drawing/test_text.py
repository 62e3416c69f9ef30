"""experiments.drawing.text: measured, clipped, legible with either generation of OpenCV."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from experiments.drawing import text
from experiments.drawing.text import DARK, LIGHT, clipped, ink_on, text_width, write


@pytest.fixture(params=["with TrueType", "with stroke fonts"])
def fonts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OpenCV as it is, and without the fonts that came with OpenCV 5."""
    if request.param == "with stroke fonts":
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    text._font.cache_clear()
    yield
    text._font.cache_clear()


@pytest.mark.usefixtures("fonts")
@pytest.mark.parametrize("words", ["RBC 96%", "Tür", "東京"])
def test_text_is_where_it_was_measured(words: str) -> None:
    """Ink lies between the left end and the measured width, centered on the row, anti-aliased."""
    image = np.zeros((40, 200, 3), np.uint8)
    write(image, words, 20, 20, 14, LIGHT)
    rows, columns = np.nonzero(image.any(2))
    assert columns.min() >= 18
    assert columns.max() <= 20 + text_width(words, 14) + 2
    assert abs((rows.min() + rows.max()) / 2 - 20) <= 3
    assert len(np.unique(image[..., 0])) > 3


@pytest.mark.usefixtures("fonts")
def test_long_text_is_cut_short() -> None:
    """Text that does not fit ends in three dots, within its room; other text is unchanged."""
    assert clipped("RBC", 14, 200) == "RBC"
    short = clipped("a very long name of a class", 14, 80)
    assert short.endswith("...")
    assert text_width(short, 14) <= 80
    assert clipped("a very long name", 14, 3) == ""


def test_ink_has_contrast() -> None:
    """Text is dark on yellow and light on blue."""
    assert ink_on((240, 228, 66)) == DARK
    assert ink_on((0, 114, 178)) == LIGHT
