"""The stop set of a run: its predictions after every training, and when they are stable.

The stop set is a fixed random sample of the images of the pool, which needs no labels. After every
training the network predicts it, and `stop_set/cycle_00.npz` keeps the predicted classes; their
agreement with those of the cycle before (Cohen's kappa) joins `cycles.csv`. Images that have been
labeled meanwhile are left out, since a network that was trained on them repeats their labels.

A classified image has one predicted class. Of a segmented image the classes of `NUM_PLACES` pixels
on a regular grid are compared, and of an image with boxes whether each class is detected in it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from al_core import IndexArray, Pool, cohen_kappa, stream
from al_core.files import atomic_write_binary
from experiments.learning.learner import TaskLearner
from experiments.reporting.stop_set import prediction_file, read_predictions
from experiments.settings.run_config import RunConfig
from experiments.settings.stop_settings import AGREEMENT
from experiments.units.unit import image_of

NUM_IMAGES, NUM_IMAGES_OF_MANY = 1000, 100
"""Images of the stop set: where each has one prediction, and where each has many."""
NUM_PLACES = 256
"""Pixels of a segmented image that are compared."""
FEWEST_IMAGES = 20
"""Agreement over fewer images, of which the others were labeled, says nothing."""


class StopCheck:
    """The stop rule of a run; the first process predicts, and all of them learn the result.

    Args:
        path: The run folder.
        config: The run's configuration.
        learner: The run's learner.
        pool: The run's pool, for what is labeled.
        records: The rows of `cycles.csv` so far.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        learner: TaskLearner,
        pool: Pool,
        records: Sequence[Mapping[str, Any]],
    ) -> None:
        self._path, self._settings, self._seed = path, config.stop, config.seed
        self._learner, self._pool, self._kind = learner, pool, config.kind
        self._records = list(records)

    def measure(self, cycle: int) -> Mapping[str, float]:
        """Predict the stop set, keep the result, and compare it with that of the cycle before.

        Returns:
            The kappa by the name of its column; nothing in a run without a stop set or where there
            is nothing to compare with.
        """
        if self._settings.images == 0:
            return {}
        engine = self._learner.engine
        kappa: float = engine.gather(self._kappa(cycle) if engine.is_main else math.nan)[0]
        measured = {} if math.isnan(kappa) else {AGREEMENT: kappa}
        self._records = [*self._records[:cycle], measured]
        return measured

    def is_reached(self) -> bool:
        """Return True if the run ends with the cycle that was measured last."""
        return self._settings.is_reached(self._records)

    def _kappa(self, cycle: int) -> float:
        before = read_predictions(self._path, cycle - 1) if cycle else None
        images = self._stop_set() if before is None else self._readable(before[0])
        classes = self._predicted(images)
        with atomic_write_binary(prediction_file(self._path, cycle)) as file:
            np.savez_compressed(file, images=images, classes=classes)
        if before is None or before[1].shape[1:] != classes.shape[1:]:
            return math.nan
        labeled = image_of(self._learner.unit, self._pool.labeled)
        rows = np.flatnonzero(~np.isin(images, labeled))
        if rows.size < FEWEST_IMAGES:
            return math.nan
        former = before[1][np.searchsorted(before[0], images[rows])]
        return cohen_kappa(former.ravel(), classes[rows].ravel())

    def _stop_set(self) -> IndexArray:
        """Draw the stop set, ascending; the same for every strategy."""
        usual = NUM_IMAGES if self._kind == "classification" else NUM_IMAGES_OF_MANY
        size = usual if self._settings.images is None else self._settings.images
        images = self._readable(np.arange(len(self._learner.task.train)))
        rng = stream(self._seed, 0, "stop set")
        return np.sort(rng.choice(images, min(size, images.size), replace=False))

    def _readable(self, images: IndexArray) -> IndexArray:
        unreadable = np.fromiter(self._learner.task.train.unreadable, np.int64)
        return np.setdiff1d(images, unreadable)

    def _predicted(self, images: IndexArray) -> NDArray[np.int16]:
        """Return the classes (n, places) that the network predicts."""
        learner = self._learner
        if self._kind == "detection":
            number = {name: k for k, name in enumerate(learner.task.class_names)}
            found = np.zeros((images.size, len(number)), np.int16)
            for row, label in enumerate(learner.drafts(images)):
                found[row, [number[box.class_name] for box in label.boxes or ()]] = 1
            return found
        rows = []
        with torch.inference_mode():
            for _, prediction in learner.predictions(images):
                log_probs = prediction.log_probs
                if log_probs.ndim == 2:
                    log_probs, num_places = log_probs.unsqueeze(2), 1
                else:  # of images of any size as many; in a small one some places count twice
                    log_probs, num_places = log_probs.flatten(2), NUM_PLACES
                places = torch.arange(num_places) * log_probs.shape[2] // num_places
                rows.append(log_probs[:, :, places].argmax(1).to(torch.int16).cpu().numpy())
        return np.concatenate(rows)
