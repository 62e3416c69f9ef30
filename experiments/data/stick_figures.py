"""Embedded scenes for pose: articulated figures with a handwritten digit as head.

Each scene shows one figure of fourteen joints and depends only on seed and index. There are four
kinds of scenes (`KINDS`), all equally clear: figures are as large, contrast with their ground as
much, and are as often partly covered by a digit in one kind as in another. Four scenes in five of
the pool show an upright figure, light on dark; the others are of rare kinds, and a test set has as
many of each. So the choice of scenes to annotate matters, and all of them can be learned. A figure
is seen from the front, so the side of a joint follows from the shape alone, and a mirrored scene is
a scene of the same kind. This data set is ours, not published.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from experiments.data.labels import HIDDEN, VISIBLE
from experiments.data.scene_parts import (
    Image,
    SceneKind,
    check_size,
    color_beside,
    digit_glyph,
    drawn_kind,
    ground,
    with_noise,
)

JOINT_NAMES = (
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
    "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
    "neck", "head_top",
)  # fmt: skip
"""The joints of LSP (Johnson & Everingham, BMVC 2010), in its order."""
SKELETON = (
    (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (2, 8), (3, 9),
    (6, 7), (7, 8), (8, 12), (9, 12), (9, 10), (10, 11), (12, 13),
)  # fmt: skip
NECK, HEAD_TOP = 12, 13

DIGIT_HEIGHTS = (0.25, 0.4)
"""Height of a digit, as a fraction of the image's side."""
LENGTHS = {"torso": 0.32, "arm": 0.17, "forearm": 0.16, "thigh": 0.23, "shin": 0.23, "head": 0.17}
"""Lengths of the parts of a body, as fractions of its height."""
HALF_SHOULDERS, HALF_HIPS = 0.12, 0.08
"""Half the width of shoulders and hips, likewise."""
DEGREES = {
    "body": 15, "torso": 6, "arm": 40, "forearm": 45, "thigh": 15, "shin": 15, "head": 8,
}  # fmt: skip
"""Largest turn of each part against the one it hangs on, and of the body against its kind's."""
COVERED_SHARE = 0.2
"""Share of the scenes in which a digit covers a part of the figure or of the ground."""
HEIGHTS = (0.72, 0.92)
"""Height of a stretched figure, as a fraction of the image's side."""
MARGIN = 0.03
"""Room between a figure and the border, likewise."""


@dataclass(frozen=True)
class Kind(SceneKind):
    """A kind of scenes of figures.

    Attributes:
        turn: Degrees by which the body is turned from upright, to either side.
    """

    turn: int


KINDS = (
    Kind("upright", 0.80, (0, 90), (120, 255), turn=0),
    Kind("dark on light", 0.08, (165, 255), (0, 135), turn=0),
    Kind("lying", 0.06, (0, 90), (120, 255), turn=90),
    Kind("upside down", 0.06, (0, 90), (120, 255), turn=180),
)


@dataclass(frozen=True, eq=False)
class FigureScene:
    """An image and its ground truth.

    Attributes:
        image: uint8 (size, size, 3), RGB.
        points: float32 (14, 2), x and y in pixels; the image spans 0 to `size`.
        visibility: uint8 (14,): visible, or hidden behind a digit.
        kind: One of `KINDS`.
    """

    image: Image
    points: NDArray[np.float32]
    visibility: NDArray[np.uint8]
    kind: Kind


def figure_scenes(
    num: int, *, size: int, seed: int = 0, held_out: bool = False
) -> list[FigureScene]:
    """Compose the first `num` scenes of a seed; arguments as `experiments.data.scenes.scenes`.

    Raises:
        ValueError: The size is too small.
        InvalidSetting: The embedded digits are not installed.
    """
    return [figure_scene(index, size=size, seed=seed, held_out=held_out) for index in range(num)]


def figure_scene(index: int, *, size: int, seed: int = 0, held_out: bool = False) -> FigureScene:
    """Compose one scene; arguments as `figure_scenes`."""
    check_size(size)
    rng = np.random.default_rng((seed, int(held_out), index, len(JOINT_NAMES)))
    kind = drawn_kind(rng, KINDS, index, held_out=held_out)
    image = ground(rng, size, kind.ground)
    points, height = _posed(rng, size, kind.turn)
    color = color_beside(rng, image, channels=kind.ink)
    _draw(rng, image, points, height, color, held_out=held_out)
    visibility = np.full(len(points), VISIBLE, np.uint8)
    if rng.random() < COVERED_SHARE:
        covered = _paste(rng, image, _digit(rng, size, held_out=held_out), kind)
        at = points.astype(np.int64)
        visibility[covered[at[:, 1], at[:, 0]]] = HIDDEN
    return FigureScene(with_noise(rng, image), points, visibility, kind)


def _posed(rng: np.random.Generator, size: int, turn: int) -> tuple[NDArray[np.float32], float]:
    """Return the joints of a figure (14, 2) in pixels, and the height that it has stretched."""
    height = size * rng.uniform(*HEIGHTS)

    def turned(part: str) -> float:
        return float(np.deg2rad(rng.uniform(-DEGREES[part], DEGREES[part])))

    def step(start: NDArray[np.float64], angle: float, length: float) -> NDArray[np.float64]:
        """Go from a joint downwards, turned by an angle towards the image's right."""
        return start + length * height * np.array([np.sin(angle), np.cos(angle)])

    body = turned("body") + np.deg2rad(turn) * rng.choice((-1, 1))
    across = np.array([np.cos(body), -np.sin(body)])  # towards the figure's left
    pelvis = np.zeros(2)
    torso = body + turned("torso")
    neck = step(pelvis, torso + np.pi, LENGTHS["torso"])
    shoulders_across = np.array([np.cos(torso), -np.sin(torso)])
    width = rng.uniform(0.75, 1.1)  # of a body that is turned a little, or broad
    places: dict[str, NDArray[np.float64]] = {
        "neck": neck,
        "head_top": step(neck, torso + turned("head") + np.pi, LENGTHS["head"]),
    }
    for side, sign in (("right", -1), ("left", 1)):
        shoulder = neck + sign * width * HALF_SHOULDERS * height * shoulders_across
        shoulder = step(shoulder, torso, 0.03)
        upper = torso + sign * abs(turned("arm"))
        elbow = step(shoulder, upper, LENGTHS["arm"])
        wrist = step(elbow, upper + turned("forearm"), LENGTHS["forearm"])
        hip = pelvis + sign * width * HALF_HIPS * height * across
        thigh = body + sign * abs(turned("thigh")) * (1 if rng.random() < 0.8 else -0.3)
        knee = step(hip, thigh, LENGTHS["thigh"])
        ankle = step(knee, thigh + turned("shin"), LENGTHS["shin"])
        for part, at in zip(
            ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"),
            (shoulder, elbow, wrist, hip, knee, ankle),
            strict=True,
        ):
            places[f"{side}_{part}"] = at
    points = np.stack([places[name] for name in JOINT_NAMES])
    low, high = points.min(0), points.max(0)
    room = np.maximum(size - (high - low) - 2 * MARGIN * size, 0)
    offset = MARGIN * size + rng.uniform(0, 1, 2) * room - low
    return np.clip(points + offset, 0.5, size - 0.5).astype(np.float32), float(height)


def _draw(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    points: NDArray[np.float32],
    height: float,
    color: NDArray[np.float32],
    *,
    held_out: bool,
) -> None:
    """Draw limbs, trunk and head; nearer parts are drawn last."""
    thickness = max(1, round(height / 22))
    shift, fixed = 4, 16  # OpenCV's coordinates are whole numbers of sixteenths of a pixel
    # The middle of the first pixel is 0.5 here and 0 in OpenCV.
    at = np.rint((points - 0.5) * fixed).astype(np.int64)
    trunk = np.array([at[8], at[9], at[3], at[2]], np.int32)

    def shade() -> list[float]:
        shaded: list[float] = (color * rng.uniform(0.85, 1.0)).clip(0, 255).tolist()
        return shaded

    cv2.fillConvexPoly(image, trunk, shade(), cv2.LINE_AA, shift)
    for first, second in SKELETON:
        if {first, second} == {NECK, HEAD_TOP}:
            continue
        start, end = at[first].tolist(), at[second].tolist()
        cv2.line(image, start, end, shade(), thickness, cv2.LINE_AA, shift)
    head = points[HEAD_TOP] - points[NECK]
    length = float(np.linalg.norm(head))
    alpha = _digit(rng, image.shape[0], held_out=held_out)
    scale = 0.95 * length / alpha.shape[0]
    direction = head / max(length, 1e-6)
    # The glyph's axis upwards becomes the direction of the head.
    linear = scale * np.array([[-direction[1], -direction[0]], [direction[0], -direction[1]]])
    middle = np.array([alpha.shape[1] - 1, alpha.shape[0] - 1]) / 2
    target = (points[HEAD_TOP] + points[NECK]) / 2 - 0.5
    matrix = np.column_stack([linear, target - linear @ middle])
    side = (image.shape[1], image.shape[0])
    opacity = cv2.warpAffine(alpha, matrix, side, flags=cv2.INTER_LINEAR)
    image += opacity[:, :, None] * (np.array(shade(), np.float32) - image)


def _digit(rng: np.random.Generator, size: int, *, held_out: bool) -> NDArray[np.float32]:
    """Return the opacity of a random digit, float32 (h, w)."""
    label = int(rng.integers(10))
    return digit_glyph(rng, label, size, heights=DIGIT_HEIGHTS, held_out=held_out)


def _paste(
    rng: np.random.Generator,
    image: NDArray[np.float32],
    alpha: NDArray[np.float32],
    kind: Kind,
) -> NDArray[np.bool_]:
    """Paint a digit at a random place; return where it covers the image, bool (size, size)."""
    size = image.shape[0]
    h, w = alpha.shape
    y, x = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
    patch = image[y : y + h, x : x + w]
    color = color_beside(rng, patch, channels=kind.ink)
    patch += alpha[:, :, None] * (color - patch)
    covered = np.zeros((size, size), bool)
    covered[y : y + h, x : x + w] = alpha >= 0.5
    return covered
