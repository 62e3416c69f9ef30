"""What a run writes down and shows: its folder and the tracker, in the process that writes.

Of a cycle every file is written first and the state last, then the tracker is told: whatever
becomes of the tracker, the folder is the record.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from al_core import CycleRecord, IndexArray, Pool, Prediction
from experiments.annotation.oracle import AskedPeople
from experiments.drawing.duplicates import distinct, with_duplicates
from experiments.drawing.panel import Panel
from experiments.engine.provenance import provenance
from experiments.learning.learner import TaskLearner
from experiments.runs.folder import Row, RunFolder
from experiments.runs.tracker import Tracker
from experiments.settings.config import strategy_label
from experiments.settings.wording import counted
from experiments.units.unit import images_of

logger = logging.getLogger(__name__)

GALLERY_IMAGES = 8
"""Thumbnails of the most and of the least wanted images of a cycle."""
MAX_COMPARED = 8 * GALLERY_IMAGES
"""Images at either end of a ranking that are looked at for so many that differ."""


class Announced:
    """A learner that says what it begins: training and scoring may take long.

    Args:
        learner: Does it.
        pool: Knows the cycle.
    """

    def __init__(self, learner: TaskLearner, pool: Pool) -> None:
        self._learner, self._pool = learner, pool
        self._scored = -1
        self.evaluate = learner.evaluate

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """As in `Learner`."""
        num_images = images_of(self._learner.queried, labeled)[0].size
        logger.info(
            "cycle %d: training on %s for %s", self._pool.cycle, counted(num_images, "image"),
            counted(self._learner.training.num_epochs(num_images), "epoch"),
        )  # fmt: skip
        return self._learner.fit(labeled, seed=seed)

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """As in `Learner`."""
        if self._scored != self._pool.cycle:  # a strategy may ask often
            logger.info("cycle %d: scoring unlabeled images", self._pool.cycle)
            self._scored = self._pool.cycle
        return self._learner.infer(indices, extract)


class Recording:
    """The record of one run while it runs.

    Args:
        folder: Holds it.
        tracker: Shows it.
        values: The resolved configuration.
        swept: What a sweep varies beside strategy and seed.
        learner: Has the task, what is queried, and the weights that are kept.
        people: Are asked for what a cycle queried; None where the data set's own labels answer.
    """

    def __init__(
        self,
        folder: RunFolder,
        tracker: Tracker,
        values: Mapping[str, Any],
        *,
        swept: str,
        learner: TaskLearner,
        people: AskedPeople | None,
    ) -> None:
        self.folder, self.tracker, self.values, self.swept = folder, tracker, values, swept
        self.learner, self.people = learner, people
        self.task, self.queried = learner.task, learner.queried

    def open(self) -> None:
        """Write what is known before the first cycle, and start the tracker."""
        folder, values, cycles = self.folder, self.values, self.values["cycles"]
        state = folder.state
        folder.write_config(values)
        if state.cycle:
            logger.info("%s: going on with cycle %d of %d", folder.path, state.cycle, cycles)
        else:
            logger.info("%s: %s", folder.path, counted(cycles, "cycle"))
            device_name = self.learner.engine.device_name
            folder.write_provenance(provenance(values, device_name=device_name))
        quarantine = [
            (part, samples.names[index], reason)
            for part, samples in (("train", self.task.train), ("test", self.task.test))
            for index, reason in samples.unreadable.items()
        ]
        if quarantine:
            folder.write_quarantine(quarantine)
            logger.warning(
                "%s left out, unreadable; see %s",
                counted(len(quarantine), "image"), folder.path / "quarantine.csv",
            )  # fmt: skip
        if state.wandb_id is None:
            state.wandb_id = uuid.uuid4().hex[:8]
            folder.save_state()
        name = f"{strategy_label(values)}-seed{values['seed']}"
        self.tracker.start(
            run_folder=folder.path,
            name=f"{name}-{self.swept}" if self.swept else name,
            group=values["name"],
            config=values,
            tags=[values["task"]["name"], values["data"]["name"], strategy_label(values)],
            run_id=state.wandb_id,
        )

    def record(self, record: CycleRecord, row: Row, pool: Pool, *, finished: bool) -> None:
        """Write a cycle's files, the state last, then show the cycle to people."""
        folder, task, learner = self.folder, self.task, self.learner
        folder.write_query(record, task.train.names, self.queried)
        folder.write_gallery(record.cycle, self._panels(record))
        if self.people is not None and not finished:
            self.people.ask(record, learner)
        checkpoint = folder.write_checkpoint(
            record.cycle,
            {
                "model": learner.model.state_dict(),
                "config": self.values,
                "class_names": list(task.class_names),
                "data_facts": task.data_facts(),
                "posterior_seed": learner.posterior_seed,
                "cycle": record.cycle,
            },
        )
        folder.commit(row, pool=pool.state_dict(), checkpoint=checkpoint, finished=finished)
        tau = row["loss_ranking_tau"]
        logger.info(
            "cycle %d: %d labeled, %s %.2f%s, %.1f s (fit %.1f, evaluate %.1f, score %.1f)",
            record.cycle, record.num_labeled, task.metric, row[task.metric],
            "" if tau is None else f", tau {tau:.2f}", sum(record.seconds.values()),
            record.seconds["fit"], record.seconds["evaluate"], record.seconds["score"],
        )  # fmt: skip
        self.tracker.log_cycle(record, row, run_folder=folder.path)

    def close(self, *, failed: bool) -> None:
        """Tell the tracker how the run ended."""
        self.tracker.finish(self._summary(), failed=failed)

    def _panels(self, record: CycleRecord) -> dict[str, list[tuple[str, float | None, Panel]]]:
        """Draw the most and the least wanted candidates, and their scores.

        Of near-duplicates only the first is drawn; its caption gives the number of the others.
        """
        query, ranking = record.query, record.query.ranking
        order = query.indices if ranking is None else ranking.indices
        images, first = images_of(self.queried, order)
        scores = [None] * len(images) if ranking is None else ranking.scores[first].tolist()
        from_the_end = range(len(images) - 1, -1, -1)
        kinds = {"most": self._distinct(images, range(len(images)))}
        if ranking is not None:
            compared = sum(1 + duplicates for _, duplicates in kinds["most"])
            left = from_the_end[: max(0, len(images) - compared)]
            kinds["least"] = self._distinct(images, left)
        found = {}
        for kind, places in kinds.items():
            chosen = images[[place for place, _ in places]]
            panels = self.queried.marked(self.learner.draw(chosen), chosen, query.indices)
            found[kind] = [
                (
                    self.task.train.names[images[place]],
                    scores[place],
                    replace(panel, caption=with_duplicates(panel.caption, duplicates)),
                )
                for (place, duplicates), panel in zip(places, panels, strict=True)
            ]
        return found

    def _distinct(self, images: IndexArray, places: Sequence[int]) -> list[tuple[int, int]]:
        """Return the first places whose images differ, each with its number of near-duplicates."""
        pictures = (
            (place, self.task.pool_images(images[place : place + 1])[0].permute(1, 2, 0).numpy())
            for place in places[:MAX_COMPARED]
        )
        return distinct(pictures, GALLERY_IMAGES)

    def _summary(self) -> dict[str, float]:
        """Return the last metric and the area under the budget curve, in units of the metric."""
        records, metric = self.folder.state.records, self.task.metric
        if not records:
            return {}
        values = np.array([row[metric] for row in records], dtype=np.float64)
        labeled = np.array([row["num_labeled"] for row in records], dtype=np.float64)
        spread = labeled[-1] - labeled[0]
        area = np.trapezoid(values, labeled) / spread if spread else values[-1]
        return {f"final_{metric}": float(values[-1]), "area_under_budget_curve": float(area)}
