"""Write the record of a run to its folder and report it to the tracker.

The files of a cycle are written first and the state last. The tracker is called after that, so the
folder is a complete record even if the tracker fails.
"""

from __future__ import annotations

import logging
import uuid

import numpy as np

from al_core import CycleRecord, Pool
from experiments.annotation.oracle import PeopleOracle
from experiments.engine.provenance import provenance
from experiments.learning.learner import TaskLearner
from experiments.runs.folder import Row, RunFolder
from experiments.runs.tracker import Tracker
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted
from experiments.tasks.base import Panel
from experiments.units.unit import images_of

logger = logging.getLogger(__name__)

GALLERY_IMAGES = 8
"""The number of thumbnails of the most wanted images of a cycle, and of the least wanted ones."""


class Recorder:
    """The writer of one run's record.

    Args:
        folder: The run folder.
        tracker: Shows the run while it proceeds.
        config: The run's configuration.
        swept: The keys and values that a sweep varies in addition to strategy and seed.
        learner: Draws images of its task, and has the weights to save.
        people: The oracle that receives a request after each cycle; None for ground truth.
    """

    def __init__(
        self,
        folder: RunFolder,
        tracker: Tracker,
        config: RunConfig,
        *,
        swept: str,
        learner: TaskLearner,
        people: PeopleOracle | None,
    ) -> None:
        self.folder, self.tracker, self.config, self.swept = folder, tracker, config, swept
        self.learner, self.people = learner, people
        self.task, self.unit = learner.task, learner.unit

    def open(self) -> None:
        """Write configuration, provenance and unreadable images, and start the tracker."""
        folder, values, cycles = self.folder, self.config.values, self.config.cycles
        state = folder.state
        folder.write_config(values)
        if state.cycle:
            logger.info("%s: resuming with cycle %d of %d", folder.path, state.cycle, cycles)
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
                "%s cannot be read and will not be used; see %s",
                counted(len(quarantine), "image"), folder.path / "quarantine.csv",
            )  # fmt: skip
        if state.wandb_id is None:
            state.wandb_id = uuid.uuid4().hex[:8]
            folder.save_state()
        name = f"{self.config.strategy_label}-seed{self.config.seed}"
        self.tracker.start(
            run_folder=folder.path,
            name=f"{name}-{self.swept}" if self.swept else name,
            group=values["name"],
            config=values,
            tags=[values["task"]["name"], values["data"]["name"], self.config.strategy_label],
            run_id=state.wandb_id,
        )

    def record(self, record: CycleRecord, row: Row, pool: Pool, *, finished: bool) -> None:
        """Write a cycle's files, the state last, and report the cycle to log and tracker."""
        folder, task, learner = self.folder, self.task, self.learner
        folder.write_query(record, task.train.names, self.unit)
        folder.write_gallery(record.cycle, self._panels(record))
        if self.people is not None and not finished:
            self.people.ask(record, learner)
        checkpoint = folder.write_checkpoint(
            record.cycle,
            {
                "model": learner.model.state_dict(),
                "config": self.config.values,
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
        """End the run in the tracker, as failed or not."""
        self.tracker.finish(self._summary(), failed=failed)

    def _panels(self, record: CycleRecord) -> dict[str, list[tuple[str, float | None, Panel]]]:
        """Draw the most and the least wanted candidates; return (name, score, panel) by kind."""
        query, ranking = record.query, record.query.ranking
        order = query.indices if ranking is None else ranking.indices
        images, first = images_of(self.unit, order)
        scores = [None] * len(images) if ranking is None else ranking.scores[first].tolist()
        kinds = {"most": slice(GALLERY_IMAGES)}
        if ranking is not None:
            start = max(GALLERY_IMAGES, len(images) - GALLERY_IMAGES)
            kinds["least"] = slice(start, None)
        found = {}
        for kind, part in kinds.items():
            chosen = images[part]
            panels = self.unit.marked(self.learner.draw(chosen), chosen, query.indices)
            names = [self.task.train.names[image] for image in chosen]
            found[kind] = list(zip(names, scores[part], panels, strict=True))
        return {kind: items if kind == "most" else items[::-1] for kind, items in found.items()}

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
