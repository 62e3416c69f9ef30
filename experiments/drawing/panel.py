"""Panels describe samples with what is known and predicted of them.

They are drawn by `experiments.drawing.rendering`, small for an overview or large for a closer look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import Mask
from experiments.data.palette import Color
from experiments.drawing.boxes import Mark
from experiments.drawing.skeletons import Drawn, Gap
from experiments.drawing.text import LIGHT, Image


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a color, or a kind of line where `line` is "solid" or "dashed"."""

    name: str
    color: Color = LIGHT
    line: str = ""


@dataclass(frozen=True, eq=False)
class Classes:
    """Classes of pixels that tint a tile.

    Attributes:
        mask: Class numbers, 255 for none.
        names: One a class.
        colors: One a class.
        tinted: Whether each class is tinted.
    """

    mask: Mask
    names: Sequence[str]
    colors: Sequence[Color]
    tinted: Sequence[bool]


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of a panel.

    Attributes:
        name: What it shows; written above it where a panel has several tiles.
        picture: uint8 (h, w, 3), RGB.
        marks: Boxes drawn on it.
        figures: Figures drawn on it.
        gaps: Errors of figures drawn on it.
        classes: Classes drawn over it.
        scale: Label of the upper end of the colors, for a map of a quantity that begins at 0.
    """

    name: str
    picture: Image
    marks: tuple[Mark, ...] = ()
    figures: tuple[Drawn, ...] = ()
    gaps: tuple[Gap, ...] = ()
    classes: Classes | None = None
    scale: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """A sample drawn for people.

    Attributes:
        tiles: At least one; all of the same size.
        caption: One line about it.
        legend: The colors and lines that need to be explained.
        outlined: int32 (h, w), numbers of regions that are outlined in every tile, -1 elsewhere;
            None for no regions.
    """

    tiles: tuple[Tile, ...]
    caption: str
    legend: tuple[Key, ...] = ()
    outlined: NDArray[np.int32] | None = None
