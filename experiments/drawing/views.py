"""Panels of the tasks: an image with a class, with boxes, a figure, or a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import HIDDEN, NO_CLASS, Box, Keypoint, Label, Mask
from experiments.data.palette import Color, distinct_palette
from experiments.data.pose import side_of
from experiments.drawing.boxes import Mark
from experiments.drawing.captions import (
    box_caption,
    class_caption,
    errors,
    figure_caption,
    mask_caption,
)
from experiments.drawing.masks import heat_map, tinted_classes
from experiments.drawing.panel import Classes, Key, Panel, Tile
from experiments.drawing.skeletons import ERROR_COLOR, SIDE_COLORS, Drawn, Gap, Joint
from experiments.drawing.text import Image

MIN_LEGEND_SHARE = 0.002
"""Share of the pixels from which the legend explains the color of a class."""
NO_CLASS_COLOR: Color = (112, 112, 112)


def class_view(
    image: Image, probabilities: Sequence[tuple[str, float]], *, truth: str | None = None
) -> Panel:
    """Show an image; its classes are in the caption.

    Args:
        image: uint8 (h, w, 3), RGB, as in all of these functions.
        probabilities: Classes with their probabilities, the most probable first.
        truth: The annotated class, if there is one.
    """
    return Panel((Tile("image", image),), class_caption(probabilities, truth))


def box_view(
    image: Image,
    predicted: Sequence[Box],
    class_names: Sequence[str],
    *,
    truth: Sequence[Box] | None = None,
) -> Panel:
    """Show an image with boxes in the colors of their classes, solid predicted, dashed annotated.

    Args:
        image: The image.
        predicted: In pixels of the image, the best first.
        class_names: All classes, which decide the colors.
        truth: The annotated objects; None where the image is not annotated.
    """
    colors = dict(zip(class_names, distinct_palette(len(class_names)), strict=True))
    found = errors(predicted, truth or ())
    height, width = image.shape[:2]

    def mark(box: Box, *words: str, dashed: bool = False) -> Mark:
        x_min, y_min, x_max, y_max = box.corners
        corners = (x_min / width, y_min / height, x_max / width, y_max / height)
        # One class needs no name at every box.
        shown = words if len(class_names) == 1 or not words else (box.class_name, *words)
        return Mark(
            corners, colors[box.class_name], " ".join(shown), dashed, box.class_name, box.score
        )

    annotated = [
        mark(box, *(["missed"] if missed else []), dashed=True)
        for box, missed in zip(truth or (), found.missed, strict=True)
    ]
    marks = [
        mark(box, f"{box.score or 0:.0%}", *(["false"] if wrong and truth is not None else []))
        for box, wrong in zip(predicted, found.false, strict=True)
    ]
    present = {box.class_name for box in (*predicted, *(truth or ()))}
    legend = [Key(name, color) for name, color in colors.items() if name in present]
    if legend:
        legend.append(Key("predicted", line="solid"))
        legend += [] if truth is None else [Key("annotated", line="dashed")]
    caption = box_caption(predicted, truth, class_names)
    return Panel((Tile("image", image, (*annotated, *marks)),), caption, tuple(legend))


def mask_view(
    image: Image,
    predicted: Mask,
    class_names: Sequence[str],
    colors: Sequence[Color],
    *,
    entropy: NDArray[np.float32] | None = None,
    truth: Mask | None = None,
) -> Panel:
    """Show an image, where the prediction is uncertain, the predicted and the annotated classes.

    Args:
        image: The image.
        predicted: Class numbers (h, w).
        class_names: All classes.
        colors: One a class.
        entropy: Of the prediction, in nats (h, w); None to show image and prediction alone.
        truth: Class numbers (h, w), 255 for none; None where the image is not annotated.
    """
    tinted = tinted_classes(class_names, colors)
    tiles = [
        Tile("image", image),
        Tile("prediction", image, classes=Classes(predicted, class_names, colors, tinted)),
    ]
    if entropy is not None:
        highest = float(np.log(len(class_names)))
        heat = heat_map(entropy, highest)
        tiles.insert(1, Tile("uncertainty", heat, scale=f"{highest:.2f} nats"))
    if truth is not None:
        classes = Classes(truth, class_names, colors, tinted)
        tiles.append(Tile("annotation", image, classes=classes))
    counts = np.bincount(predicted.ravel(), minlength=256)
    if truth is not None:
        counts = counts + np.bincount(truth.ravel(), minlength=256)
    legend = [
        Key(name, color)
        for k, (name, color) in enumerate(zip(class_names, colors, strict=True))
        if tinted[k] and counts[k] >= MIN_LEGEND_SHARE * predicted.size
    ]
    if counts[NO_CLASS]:
        legend.append(Key("no class", NO_CLASS_COLOR))
    caption = mask_caption(predicted, truth, class_names)
    return Panel(tuple(tiles), caption, tuple(legend))


def figure_view(
    image: Image,
    predicted: Sequence[Keypoint],
    class_names: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    *,
    truth: Sequence[Keypoint] | None = None,
    tolerance: float = 0.0,
) -> Panel:
    """Show an image with a figure, solid predicted, dashed annotated; lines lead to wrong joints.

    Args:
        image: The image.
        predicted: Joints in pixels of the image.
        class_names: All joints; their sides decide the colors.
        skeleton: Pairs of joints, by position, that are connected.
        truth: The annotated joints; None where the image is not annotated.
        tolerance: Distance in pixels up to which a predicted joint is right.
    """
    height, width = image.shape[:2]
    sides = {name: side_of(name) for name in class_names}

    def drawn(keypoints: Sequence[Keypoint], *, dashed: bool) -> Drawn:
        known = {
            each.name: Joint(
                each.x / width,
                each.y / height,
                SIDE_COLORS[sides[each.name]],
                hollow=each.visibility == HIDDEN,
            )
            for each in keypoints
        }
        joints = tuple(known.get(name) for name in class_names)
        return Drawn(joints, tuple(skeleton), dashed)

    figures = [drawn(predicted, dashed=False)]
    gaps: list[Gap] = []
    wrong: list[str] = []
    if truth is not None:
        figures.insert(0, drawn(truth, dashed=True))
        found = {each.name: each for each in predicted}
        for true in truth:
            own = found.get(true.name)
            if own is None:
                wrong.append(true.name)
            elif np.hypot(own.x - true.x, own.y - true.y) > tolerance:
                wrong.append(true.name)
                start, end = (own.x / width, own.y / height), (true.x / width, true.y / height)
                gaps.append(Gap(start, end))
    present = {sides[each.name] for each in (*predicted, *(truth or ()))}
    legend = [
        Key(side or "middle", color) for side, color in SIDE_COLORS.items() if side in present
    ]
    if legend:
        legend.append(Key("predicted", line="solid"))
        legend += [] if truth is None else [Key("annotated", line="dashed")]
        legend += [Key("too far", ERROR_COLOR, "solid")] if gaps else []
    caption = figure_caption(predicted, truth, wrong)
    tile = Tile("image", image, figures=tuple(figures), gaps=tuple(gaps))
    return Panel((tile,), caption, tuple(legend))


def label_view(
    image: Image,
    label: Label | None,
    class_names: Sequence[str],
    colors: Sequence[Color] | None = None,
    skeleton: Sequence[tuple[int, int]] = (),
) -> Panel:
    """Show an image with a model's draft of its annotation, if there is one.

    Args:
        image: The image.
        label: In pixels of the image.
        class_names: All classes.
        colors: One a class, of segmentation; None for distinct ones.
        skeleton: Pairs of joints, by position, of pose.
    """
    if label is None:
        return Panel((Tile("image", image),), "")
    if label.boxes is not None:
        return box_view(image, label.boxes, class_names)
    if label.keypoints is not None:
        return figure_view(image, label.keypoints, class_names, skeleton)
    if label.mask is not None:
        return mask_view(
            image, label.mask, class_names, colors or distinct_palette(len(class_names))
        )
    return class_view(image, [(label.class_name or "", label.score or 0.0)])
