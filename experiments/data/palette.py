"""Class colors that people with any color vision can tell apart.

Sources: the eight colors of Okabe & Ito, "Color Universal Design", 2008, without black, which is
lost on dark images; simulated deuteranopia by Machado et al., "A physiologically-based model for
simulation of color vision deficiency", IEEE TVCG 2009, table 1; CIELAB for the distances.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Color = tuple[int, int, int]

OKABE_ITO: tuple[Color, ...] = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (86, 180, 233),  # sky blue
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermillion
    (240, 228, 66),  # yellow
)
DEUTERANOPIA = np.array(  # of linear RGB, severity 1.0
    [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
)
_XYZ = np.array(  # linear sRGB to XYZ over the white point D65, IEC 61966-2-1
    [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
) / np.array([[0.9505], [1.0], [1.0890]])
_LIGHTNESS = (38.0, 92.0)
"""CIELAB lightness of the further colors: visible on black as well as on white."""
_STEP = 15  # between candidates in each channel, which is 5,832 of them


def distinct_palette(num_classes: int) -> tuple[Color, ...]:
    """Return a color a class, RGB, for sets that come without any.

    The first seven are Okabe and Ito's. Each further color is the candidate that is farthest from
    all before it, by the smaller of the distances seen with normal vision and with deuteranopia.
    Nobody can tell dozens of colors apart, so names and borders have to help beyond about twelve.
    """
    return _colors()[:num_classes]


@cache
def _colors() -> tuple[Color, ...]:
    """Return the first 255 colors, which is what a mask can hold."""
    levels = np.arange(0, 256, _STEP)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lightness = lab(grid)[:, 0]
    grid = grid[(lightness >= _LIGHTNESS[0]) & (lightness <= _LIGHTNESS[1])]
    seen = [(lab(grid), lab(OKABE_ITO)), (lab(deuteranopia(grid)), lab(deuteranopia(OKABE_ITO)))]
    nearest = np.full(len(grid), np.inf)
    for candidates, taken in seen:
        distances = np.linalg.norm(candidates[:, None] - taken, axis=2)
        nearest = np.minimum(nearest, distances.min(1))
    chosen = list(OKABE_ITO)
    while len(chosen) < 255:
        best = int(nearest.argmax())
        red, green, blue = grid[best].tolist()
        chosen.append((red, green, blue))
        for candidates, _ in seen:
            distances = np.linalg.norm(candidates - candidates[best], axis=1)
            nearest = np.minimum(nearest, distances)
    return tuple(chosen)


def deuteranopia(colors: ArrayLike) -> NDArray[np.float64]:
    """Return RGB colors (n, 3) in 0..255 as a person without green-sensitive cones sees them."""
    simulated = (_linear(colors) @ DEUTERANOPIA.T).clip(0, 1)
    seen: NDArray[np.float64] = 255 * np.where(
        simulated <= 0.0031308, 12.92 * simulated, 1.055 * simulated ** (1 / 2.4) - 0.055
    )
    return seen


def lab(colors: ArrayLike) -> NDArray[np.float64]:
    """Return RGB colors (n, 3) in 0..255 as CIELAB (n, 3): lightness in 0..100, a, b."""
    xyz = _linear(colors) @ _XYZ.T
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def _linear(colors: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(colors, np.float64) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
