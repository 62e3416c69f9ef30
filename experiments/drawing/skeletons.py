"""Figures on an image: joints as dots, and the lines of the skeleton between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from experiments.data.palette import OKABE_ITO, Color
from experiments.drawing.text import DARK, Image

SIDE_COLORS: dict[str, Color] = {"left": OKABE_ITO[3], "right": OKABE_ITO[1], "": OKABE_ITO[2]}
"""The colors of joints of the left and of the right side of a body, and of its middle."""
ERROR_COLOR: Color = (255, 40, 40)
SHIFT = 4
"""Bits of a pixel's fraction in the whole numbers that OpenCV draws lines from."""


class Joint(NamedTuple):
    """A joint to be drawn.

    Attributes:
        x: As a fraction of the image's width.
        y: As a fraction of its height.
        color: RGB.
        hollow: Whether it is a ring, which stands for a joint that something covers.
    """

    x: float
    y: float
    color: Color
    hollow: bool = False


class Drawn(NamedTuple):
    """A figure to be drawn.

    Attributes:
        joints: By position; None for a missing one.
        bones: Pairs of joints that a line connects.
        dashed: Whether its lines are, which stands for annotated; solid is predicted.
    """

    joints: tuple[Joint | None, ...]
    bones: tuple[tuple[int, int], ...]
    dashed: bool = False


class Gap(NamedTuple):
    """The way from a wrong joint to where it is annotated, as fractions of the sides."""

    start: tuple[float, float]
    end: tuple[float, float]


def draw_figures(image: Image, figures: Sequence[Drawn], gaps: Sequence[Gap], *, line: int) -> None:
    """Draw figures on an image in place, each over those before it, and the gaps on top.

    Args:
        image: uint8 (h, w, 3), RGB, contiguous.
        figures: The figures.
        gaps: The errors.
        line: Thickness of the lines, pixels.
    """
    for figure in figures:
        for first, second in figure.bones:
            start, end = figure.joints[first], figure.joints[second]
            if start is None or end is None:
                continue
            color = start.color if start.color == end.color else SIDE_COLORS[""]
            _line(image, (start.x, start.y), (end.x, end.y), color, line, dashed=figure.dashed)
        for joint in figure.joints:
            if joint is not None:
                _dot(image, joint, line + 1, hollow=joint.hollow or figure.dashed)
    for gap in gaps:
        _line(image, gap.start, gap.end, ERROR_COLOR, line)


def _line(
    image: Image,
    start: tuple[float, float],
    end: tuple[float, float],
    color: Color,
    line: int,
    *,
    dashed: bool = False,
) -> None:
    """Draw a line with a darker one below it, which sets it off from any ground."""
    size = np.array([image.shape[1], image.shape[0]])
    first, last = np.array(start) * size, np.array(end) * size
    length = float(np.linalg.norm(last - first))
    parts = [(0.0, 1.0)]
    if dashed and length > 0:
        dash = 3.0 * line + 2
        parts = [
            (at / length, min(at + dash, length) / length)
            for at in np.arange(0, length, 2.5 * dash).tolist()  # round ends take a part of the gap
        ]
    for ink, thickness in ((DARK, line + 2), (color, line)):
        for begin, stop in parts:
            ends = [
                tuple(np.rint((point - 0.5) * 2**SHIFT).astype(int).tolist())
                for point in (first + begin * (last - first), first + stop * (last - first))
            ]
            cv2.line(image, ends[0], ends[1], ink, thickness, cv2.LINE_AA, SHIFT)


def _dot(image: Image, joint: Joint, radius: int, *, hollow: bool) -> None:
    center = [round((at * side - 0.5) * 2**SHIFT) for at, side in
              ((joint.x, image.shape[1]), (joint.y, image.shape[0]))]  # fmt: skip
    size = (radius + 1) << SHIFT
    cv2.circle(image, center, size, DARK, 3 if hollow else -1, cv2.LINE_AA, SHIFT)
    inner = size if hollow else radius << SHIFT
    cv2.circle(image, center, inner, joint.color, 1 if hollow else -1, cv2.LINE_AA, SHIFT)
