"""The stop set: which images it has, what is compared, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from al_core import IndexArray, Pool, Prediction, cohen_kappa
from experiments.data.labels import Box, Label
from experiments.runs.stopping import FEWEST_IMAGES, NUM_PLACES, StopCheck
from experiments.settings.stop_settings import AGREEMENT, StopSettings
from experiments.units.unit import WholeImages
from tests.experiments.runs.fakes import Engine, Task

NUM = 60
Classes = Callable[[int], Any]
"""The classes that a network predicts, by image: a number, or an array of positions."""


@dataclass
class Learner:
    """A learner that predicts given classes.

    Attributes:
        classes: Of each image.
        asked: The images of every pass.
    """

    classes: Classes
    unreadable: Mapping[int, str] = field(default_factory=dict)
    asked: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine()
        self.task = Task(NUM, self.unreadable)
        self.unit = WholeImages(self.task)  # type: ignore[arg-type]

    def predictions(self, indices: IndexArray) -> Any:
        """Yield one-hot predictions, three images at once."""
        self.asked.append(indices.tolist())
        for start in range(0, indices.size, 3):
            part = indices[start : start + 3]
            classes = torch.tensor(np.array([self.classes(i) for i in part.tolist()]))
            one_hot = torch.nn.functional.one_hot(classes, 5).movedim(-1, 1)
            yield part, Prediction(one_hot.float().log())

    def drafts(self, indices: IndexArray) -> list[Label]:
        """Return boxes of these classes."""
        names = self.task.class_names
        return [
            Label(boxes=tuple(Box(names[k], (0, 0, 1, 1)) for k in self.classes(i)))
            for i in indices.tolist()
        ]


def check(
    path: Path,
    learner: Learner,
    *,
    labeled: IndexArray | None = None,
    kind: str = "classification",
    images: int | None = None,
) -> StopCheck:
    """Return the check of a run in its second cycle."""
    config: Any = SimpleNamespace(stop=StopSettings(images=images), seed=0, kind=kind)
    pool = Pool(NUM)
    pool.label(np.arange(3) if labeled is None else labeled)
    return StopCheck(path, config, learner, pool, [])  # type: ignore[arg-type]


def both(path: Path, before: Classes, after: Classes, **how: Any) -> float | None:
    """Return the agreement of the networks of two cycles."""
    assert check(path, Learner(before), **how).measure(0) == {}
    return check(path, Learner(after), **how).measure(1).get(AGREEMENT)


def test_agreement_is_that_of_the_images_that_are_not_labeled(tmp_path: Path) -> None:
    """Kappa of the predicted classes, without the images that the network was trained on."""
    labeled = np.arange(20)
    found = both(tmp_path, lambda i: i % 3, lambda i: (i % 3 + (i < 25)) % 4, labeled=labeled)
    left = np.arange(20, NUM)
    assert found == cohen_kappa(left % 3, (left % 3 + (left < 25)) % 4)


def test_a_segmented_image_is_compared_on_a_grid(tmp_path: Path) -> None:
    """`NUM_PLACES` evenly spaced positions of each image count, here every second one."""
    places = np.arange(2 * NUM_PLACES).reshape(2, NUM_PLACES)

    def changed(step: int) -> Classes:
        return lambda i: (places + (places % 2 == step)) % 4

    unchanged: Classes = lambda i: places % 4  # noqa: E731
    found = both(tmp_path / "even", unchanged, changed(1), kind="segmentation")
    assert found == 1.0
    found = both(tmp_path / "odd", unchanged, changed(0), kind="segmentation")
    assert found is not None
    assert found < 0.2


def test_boxes_are_compared_by_the_classes_that_are_there(tmp_path: Path) -> None:
    """Each class of each image is there or not, however many boxes it has."""
    assert both(tmp_path / "a", lambda i: [0], lambda i: [0, 0], kind="detection") == 1.0
    found = both(tmp_path / "b", lambda i: [0], lambda i: [1] if i < 30 else [0], kind="detection")
    left = np.arange(3, NUM)
    before = np.stack([np.ones(NUM, int), np.zeros(NUM, int)], 1)[left]
    after = np.stack([np.arange(NUM) >= 30, np.arange(NUM) < 30], 1)[left].astype(int)
    assert found == cohen_kappa(before.ravel(), after.ravel())


def test_the_stop_set_stays_the_same_over_cycles_and_strategies(tmp_path: Path) -> None:
    """The first cycle draws readable images by the seed; the others predict the same ones."""
    learners = [Learner(lambda i: 0, dict.fromkeys(range(10), "broken")) for _ in range(3)]
    for path, learner, cycle in zip("aab", learners, (0, 1, 0), strict=True):
        check(tmp_path / path, learner, images=25).measure(cycle)
    first, again, other = (learner.asked[0] for learner in learners)
    assert first == again == other == sorted(first)
    assert len(first) == 25
    assert min(first) >= 10


def test_images_that_cannot_be_read_any_more_are_left_out(tmp_path: Path) -> None:
    """An image of the stop set that is gone is neither predicted nor compared."""
    check(tmp_path, Learner(lambda i: i % 2)).measure(0)
    gone = dict.fromkeys(range(30, 33), "gone")
    learner = Learner(lambda i: (i + (i in gone)) % 2, gone)
    assert check(tmp_path, learner).measure(1) == {AGREEMENT: 1.0}
    assert not set(gone) & set(learner.asked[0])


def test_too_few_unlabeled_images_give_no_agreement(tmp_path: Path) -> None:
    """With fewer than FEWEST_IMAGES left, one image would decide."""
    few = np.arange(NUM - FEWEST_IMAGES + 1)
    assert both(tmp_path / "a", lambda i: 0, lambda i: 0, labeled=few) is None
    assert both(tmp_path / "b", lambda i: 0, lambda i: 0, labeled=few[:-1]) == 1.0


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken", b"\x93NUMPY"])
def test_without_the_cycle_before_there_is_no_agreement(
    tmp_path: Path, content: bytes | None
) -> None:
    """A missing or damaged file costs one comparison, and no run."""
    check(tmp_path, Learner(lambda i: 0)).measure(0)
    file = tmp_path / "stop_set" / "cycle_00.npz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    assert check(tmp_path, Learner(lambda i: 0)).measure(1) == {}
    assert check(tmp_path, Learner(lambda i: 0)).measure(2) == {AGREEMENT: 1.0}


def test_without_a_stop_set_nothing_is_predicted(tmp_path: Path) -> None:
    """`stop.images=0` costs nothing and writes nothing."""
    learner = Learner(lambda i: 0)
    assert check(tmp_path, learner, images=0).measure(0) == {}
    assert learner.asked == []
    assert list(tmp_path.iterdir()) == []
