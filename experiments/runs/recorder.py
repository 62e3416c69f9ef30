"""Write the record of a run to its folder and report it to the tracker.

The files of a cycle are written first and the state last. The tracker is called after that, so the
folder is a complete record even if the tracker fails.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from al_core import CycleRecord, Pool
from experiments.engine.provenance import provenance
from experiments.learning.observer import EpochEnd
from experiments.runs.assembly import Parts
from experiments.runs.folder import CHECKPOINTS, RunFolder, row_of
from experiments.runs.gallery import confused_panels, wanted_panels
from experiments.runs.identity import IS_GONE
from experiments.runs.tracker import Shown, Tracker
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)


@contextmanager
def recording(
    folder: RunFolder | None,
    tracker: Tracker | None,
    config: RunConfig,
    parts: Parts,
    *,
    swept: str,
) -> Iterator[Recorder | None]:
    """Open a recorder where there are a folder and a tracker, and close it at the end."""
    if folder is None or tracker is None:
        yield None
        return
    recorder = Recorder(folder, tracker, config, swept=swept, parts=parts)
    recorder.open()
    failed = True
    try:
        yield recorder
        failed = False
    finally:
        recorder.close(failed=failed)


class Recorder:
    """The writer of one run's record.

    Args:
        folder: The run folder.
        tracker: Shows the run while it proceeds.
        config: The run's configuration.
        swept: The keys and values that a sweep varies beside strategy and seed.
        parts: The parts of the run: its learner's weights are kept, its task draws images, and
            people, if they are the oracle, receive a request after each cycle.
    """

    def __init__(
        self,
        folder: RunFolder,
        tracker: Tracker,
        config: RunConfig,
        *,
        swept: str,
        parts: Parts,
    ) -> None:
        self.folder, self.tracker, self.config, self.swept = folder, tracker, config, swept
        self.learner, self.people, self.observer = parts.learner, parts.people, parts.observer
        self.task, self.unit = parts.task, parts.unit

    def open(self) -> None:
        """Write configuration, provenance and unreadable images, and start the tracker."""
        folder, values, cycles = self.folder, self.config.values, self.config.cycles
        state = folder.state
        if state.cycle:
            logger.info("%s: resuming with cycle %d of %d", folder.path, state.cycle, cycles)
        else:
            logger.info("%s: %s", folder.path, counted(cycles, "cycle"))
            device_name = self.learner.engine.device_name
            folder.write_provenance(provenance(values, device_name=device_name))
        state.class_names = list(self.task.class_names)
        self._list_unreadable()
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
        self.observer.on_epoch = self._log_epoch

    def _list_unreadable(self) -> None:
        """Write `quarantine.csv`: images that are there but cannot be read."""
        quarantine = [
            (part, samples.names[index], reason)
            for part, samples in (("train", self.task.train), ("test", self.task.test))
            for index, reason in samples.unreadable.items()
            if reason != IS_GONE
        ]
        self.folder.write_quarantine(quarantine)
        if quarantine:
            logger.warning(
                "%s cannot be read and will not be used; see %s",
                counted(len(quarantine), "image"), self.folder.path / "quarantine.csv",
            )  # fmt: skip

    def record(self, record: CycleRecord, pool: Pool) -> None:
        """Write a cycle's files, the state last, then show the cycle to people."""
        folder, task, learner = self.folder, self.task, self.learner
        is_last = record.cycle + 1 == self.config.cycles or record.stopped
        finished = is_last or not record.query.indices.size
        row = row_of(
            record,
            query_memory_mb=self.observer.query_memory_mb,
            peak_memory_mb=self.observer.peak_memory_mb,
        )
        folder.write_query(record, task.train.names, self.unit)
        panels = wanted_panels(record, self.learner)
        folder.write_gallery(record.cycle, panels)
        if learner.evaluation is not None:
            pictures = confused_panels(learner.evaluation, learner)
            folder.write_evaluation(record.cycle, learner.evaluation, pictures)
        if self.people is not None and not finished:
            self.people.ask(record.cycle + 1, record.query, learner)
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
            record.cycle, record.num_labeled, self.config.metric, row[self.config.metric],
            "" if tau is None else f", tau {tau:.2f}", sum(record.seconds.values()),
            record.seconds["fit"], record.seconds["evaluate"], record.seconds["score"],
        )  # fmt: skip
        since = pool.labeled_since()
        labeled = np.flatnonzero((since >= 0) & (since <= record.cycle)).tolist()
        shown = Shown(
            panels=panels,
            evaluation=learner.evaluation,
            labeled=[self.unit.name(index) for index in labeled],
            checkpoint=folder.path / CHECKPOINTS / checkpoint if finished else None,
        )
        self.tracker.log_cycle(record, row, run_folder=folder.path, shown=shown)

    def _log_epoch(self, cycle: int, end: EpochEnd) -> None:
        steps = (row.get("optimizer_steps") or 0 for row in self.folder.state.records[:cycle])
        self.tracker.log_epoch(cycle, end, steps_before=int(sum(steps)))

    def close(self, *, failed: bool) -> None:
        """End the run in the tracker, as failed or not."""
        self.tracker.finish(self._summary(), failed=failed)

    def _summary(self) -> dict[str, float]:
        """Return the last metric and the area under the budget curve, in units of the metric."""
        records, metric = self.folder.state.records, self.config.metric
        if not records:
            return {}
        values = np.array([row[metric] for row in records], dtype=np.float64)
        labeled = np.array([row["num_labeled"] for row in records], dtype=np.float64)
        spread = labeled[-1] - labeled[0]
        area = np.trapezoid(values, labeled) / spread if spread else values[-1]
        return {f"final_{metric}": float(values[-1]), "area_under_budget_curve": float(area)}
