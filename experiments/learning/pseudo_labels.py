"""Semi-supervised training: what a network predicts for unlabeled images serves as their labels.

Sources: Zhang et al., "FlexMatch", NeurIPS 2021 (arXiv 2110.08263); Sohn et al., "FixMatch",
NeurIPS 2020. A prediction for a slightly changed image that is sure enough is the label of the same
image, changed strongly. How sure it must be differs by class and grows while the class is learned.

Differs: the papers evaluate a running average of the weights; here it is the network itself, as in
every other training of this project.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from al_core import IndexArray
from al_core.errors import InvalidSetting
from experiments.tasks.base import AugmentsStrongly, Task

RATIO = 7
"""Unlabeled images for each labeled one in a batch, mu in the papers."""
THRESHOLD = 0.95
"""Probability above which a class is learned, tau in the papers."""
WEIGHT = 1.0
"""Factor of the loss on unlabeled images, lambda in the papers."""


def check_semi_supervised(method: str | None, task: Task) -> None:
    """Refuse semi-supervised training of a task whose images cannot be changed strongly.

    Raises:
        InvalidSetting: `cycle.semi_supervised` is set for such a task.
    """
    if method is not None and not isinstance(task, AugmentsStrongly):
        raise InvalidSetting(
            f"cycle.semi_supervised={method} serves classification only: set it to null"
        )


class FlexMatch:
    """The pseudo-labels of one training.

    Args:
        unlabeled: Positions of the unlabeled images, at least one.
        num_classes: Classes.
        seed: Decides which of them a batch has.
    """

    def __init__(self, unlabeled: IndexArray, num_classes: int, *, seed: int) -> None:
        self.unlabeled = unlabeled
        self._num_classes = num_classes
        self._rng = np.random.default_rng(seed)
        self._left = np.zeros(0, np.int64)
        # The class that was last predicted with more than THRESHOLD; num_classes where none was.
        self._learned = torch.full((unlabeled.size,), num_classes)

    def draws(self) -> tuple[Any, Tensor]:
        """Return the state of the draws, which `restore` takes."""
        return self._rng.bit_generator.state, torch.from_numpy(self._left)

    def learned(self) -> Tensor:
        """Return the state of what has been learned, which `restore` takes."""
        return self._learned.cpu()

    def restore(self, draws: tuple[Any, Tensor], learned: Tensor) -> None:
        """Continue with the states of a training that was interrupted."""
        self._rng.bit_generator.state, left = draws
        self._left = left.numpy()
        self._learned = learned

    def draw(self, num_labeled: int) -> NDArray[np.int64]:
        """Return rows of `unlabeled` for a batch: all come once before any comes again.

        Args:
            num_labeled: Labeled images of the batch.
        """
        count = min(RATIO * num_labeled, self.unlabeled.size)
        if self._left.size < count:
            fresh = self._rng.permutation(self.unlabeled.size)
            early = np.isin(fresh, self._left)  # not twice in one batch
            self._left = np.concatenate([self._left, fresh[~early], fresh[early]])
        rows, self._left = self._left[:count], self._left[count:]
        return rows

    def thresholds(self) -> Tensor:
        """Return the probability (k,) above which a prediction counts as a label of its class.

        The best learned class has `THRESHOLD`; one that has not been learned at all has 0. While
        most images are not learned, all thresholds are low (equations 7, 8 and 11 of FlexMatch).
        """
        counts = F.one_hot(self._learned, self._num_classes + 1).sum(0)
        learned, unlearned = counts[:-1].float(), counts[-1].float()
        effect = learned / torch.maximum(learned.max(), unlearned).clamp_min(1)
        return THRESHOLD * effect / (2 - effect)

    def loss(self, rows: NDArray[np.int64], weak: Tensor, strong: Tensor) -> Tensor:
        """Return the loss of unlabeled images, times `WEIGHT`, and note what has been learned.

        Args:
            rows: (u,) as `draw` returned them.
            weak: Log-probabilities (u, k) of the slightly changed images; no gradient flows there.
            strong: Log-probabilities (u, k) of the strongly changed images.
        """
        self._learned = self._learned.to(weak.device)
        sure, classes = weak.detach().max(1)
        sure = sure.exp()
        used = sure > self.thresholds()[classes]
        positions = torch.from_numpy(rows).to(self._learned.device)
        self._learned[positions] = torch.where(sure > THRESHOLD, classes, self._learned[positions])
        return WEIGHT * (F.nll_loss(strong, classes, reduction="none") * used).mean()


class UnlabeledBatch(NamedTuple):
    """The unlabeled images of a step.

    Attributes:
        pseudo_labels: The pseudo-labels of the training.
        rows: (u,) as `FlexMatch.draw` returned them.
        images: (u, ...) as `Task.pool_images` returned them.
    """

    pseudo_labels: FlexMatch
    rows: NDArray[np.int64]
    images: Tensor

    def loss(self, log_probs: Tensor) -> Tensor:
        """Return the loss of log-probabilities (2 u, k) of what `augmented_twice` returned."""
        weak, strong = log_probs.chunk(2)
        return self.pseudo_labels.loss(self.rows, weak, strong)


def augmented_twice(
    task: Task, images: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return unlabeled images as labeled ones are augmented, and these changed strongly."""
    assert isinstance(task, AugmentsStrongly), "check_semi_supervised has refused it"
    weak, _ = task.augment(images, None, generator)
    return weak, task.augment_strongly(weak, generator)
