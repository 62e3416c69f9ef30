"""Labels that look wrong: `relabel.csv`, written after every training of a classifier.

A label is judged by the prediction of a network that was not trained on it:

- on frozen features, where a training takes about a second, by cross-validation of the head over
  all labeled images;
- otherwise by the network of the cycle before, which has selected the image and not seen its label.
  The first batch is not judged then.

A network that agrees with fewer than half of the labels has learned too little to judge them, and
is not asked. `al_core.label_issues` finds the suspicious ones. Nothing is changed: people decide.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from al_core import IndexArray, Pool, stream_seed
from al_core.files import atomic_write, atomic_write_binary
from al_core.label_issues import label_issues
from experiments.learning.learner import TaskLearner
from experiments.learning.out_of_sample import cross_validated, predicted
from experiments.reporting.suspects import COLUMNS, RELABEL
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)

KEPT = "out_of_sample.npz"
"""Predictions for images that were labeled after them; of networks that are trained as a whole."""
LEAST_AGREEMENT = 0.5
"""Share of labels that a network must predict to judge the others."""


class LabelCheck:
    """The check of a run's labels; every process takes part in it, and the first one writes.

    It does nothing unless `oracle.check_labels` asks for it.

    Args:
        path: The run folder.
        config: The run's configuration.
        learner: The run's learner.
    """

    def __init__(self, path: Path, config: RunConfig, learner: TaskLearner) -> None:
        self._path, self._learner, self._recipe = path, learner, config.recipe
        self._seed = config.seed
        self._is_asked = config.checks_labels
        self._crosses = self._is_asked and config.backbone().frozen
        is_kept = learner.engine.is_main and self.needs_network
        self._probs: dict[int, NDArray[np.float64]] = _read(path / KEPT) if is_kept else {}

    @property
    def needs_network(self) -> bool:
        """True if networks of earlier cycles judge the labels."""
        return self._is_asked and not self._crosses

    def take_network(self, checkpoint: Mapping[str, Any] | None, pool: Pool) -> None:
        """Let the network of the last cycle, which has not seen the newest labels, judge them."""
        assert checkpoint is not None, "a cycle was committed without its checkpoint"
        try:
            self._learner.load_state_dict(
                checkpoint["model"], posterior_seed=checkpoint["posterior_seed"]
            )
        except ValueError:  # the weights are of the network before this start changed it
            logger.info("the network has changed: the newest labels are not checked")
            return
        self.before_training(pool)

    def before_training(self, pool: Pool) -> None:
        """Predict the images that are labeled since the learner's network was trained."""
        labeled = pool.labeled[pool.labeled_since() == pool.cycle]
        new = np.array([i for i in labeled.tolist() if i not in self._probs], np.int64)
        if not (self.needs_network and self._learner.engine.is_main and pool.cycle and new.size):
            return
        probs = predicted(self._learner, new)
        if not self._may_judge(probs, new):
            return
        self._probs.update(zip(new.tolist(), probs, strict=True))
        with atomic_write_binary(self._path / KEPT) as file:
            np.savez(
                file,
                index=np.array(list(self._probs), np.int64),
                probs=np.array(list(self._probs.values()), np.float32),
            )

    def after_training(self, cycle: int, trained: IndexArray) -> None:
        """List the suspicious labels among those that a cycle was trained on."""
        if not self._is_asked:
            return
        if self._crosses:
            if self._learner.engine.is_main:
                logger.info("cycle %d: checking %s", cycle, counted(trained.size, "label"))
            seed = stream_seed(self._seed, cycle, "check of labels")
            probs = cross_validated(self._learner, self._recipe, trained, seed=seed)
        else:
            trained = np.array([i for i in trained.tolist() if i in self._probs], np.int64)
            probs = np.array([self._probs[i] for i in trained.tolist()]) if trained.size else None
        if probs is None or not self._learner.engine.is_main:
            return
        if self._crosses and not self._may_judge(probs, trained):
            return
        task, names = self._learner.task, self._learner.task.class_names
        labels = task.targets.read(trained).numpy()
        found = label_issues(probs, labels)
        with atomic_write(self._path / RELABEL) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for rank, (row, suggested) in enumerate(zip(found.rows, found.suggested, strict=True)):
                writer.writerow((
                    rank, task.train.names[trained[row]], names[labels[row]], names[suggested],
                    f"{probs[row, labels[row]]:.4f}", f"{probs[row, suggested]:.4f}",
                ))  # fmt: skip
        if found.rows.size:
            logger.info(
                "cycle %d: the network doubts %d of %s, listed in %s",
                cycle, found.rows.size, counted(trained.size, "label"), self._path / RELABEL,
            )  # fmt: skip

    def _may_judge(self, probs: NDArray[np.float64], images: IndexArray) -> bool:
        labels = self._learner.task.targets.read(images).numpy()
        agreement = float((probs.argmax(1) == labels).mean())
        if agreement < LEAST_AGREEMENT:
            logger.info(
                "labels of %s are not checked: the network predicts only %.0f %% of them",
                counted(images.size, "image"), 100 * agreement,
            )  # fmt: skip
        return agreement >= LEAST_AGREEMENT


def _read(file: Path) -> dict[int, NDArray[np.float64]]:
    """Return kept predictions by position; nothing where the file is missing or damaged."""
    try:
        with open(file, "rb") as opened, np.load(opened) as kept:
            rows = kept["probs"].astype(np.float64)
            return dict(zip(kept["index"].tolist(), rows, strict=True))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        logger.warning("%s cannot be read (%s) and is made anew", file, type(error).__name__)
        return {}
