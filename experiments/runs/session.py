"""One run, from its configuration to its finished run folder, in each of its processes.

Every process runs the same cycles in step; the first one alone writes the run folder and talks to
the tracker.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from al_core import (
    Affordable,
    Oracle,
    Pool,
    QueryStrategy,
    Subsampled,
    draw_initial_set,
    run_cycles,
)
from al_core.errors import AwaitingAnnotation, InvalidSetting
from experiments.annotation.oracle import ask_people
from experiments.data.targets import GroundTruthOracle
from experiments.engine.engine import Engine
from experiments.learning.ensemble import EnsembleLearner
from experiments.learning.learner import TaskLearner
from experiments.runs.folder import RunFolder, RunState, row_of
from experiments.runs.log_file import EXPECTED, logged_to
from experiments.runs.query_cost import MeasuredStrategy
from experiments.runs.recorder import Announced, Recording
from experiments.runs.tracker import Tracker
from experiments.settings.config import (
    WHOLE,
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    build,
    check_top_level,
    plain,
    run_path,
    serving,
    settings,
)
from experiments.settings.rehearsal import rehearse
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.units.unit import Queried

logger = logging.getLogger(__name__)


def run(config: DictConfig, *, swept: str = "") -> float:
    """Run, resume, or find finished; return the primary metric of the last cycle.

    Args:
        config: As the command line composes it.
        swept: What a sweep varies beside strategy and seed, part of the run folder's path.

    Raises:
        ActiveLearningError: Whatever a user can set right; one line.
    """
    check_top_level(config)
    values = plain(config)
    engine = Engine(**_engine_settings(values["engine"]))
    return engine.launch(_run_in_process, config, values, swept)


def _engine_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    known = set(inspect.signature(Engine).parameters)
    unknown = sorted(set(values) - known)
    if unknown:
        raise InvalidSetting(
            f"unknown key engine.{unknown[0]}; there are {', '.join(sorted(known))}"
        )
    return dict(values)


def _run_in_process(
    engine: Engine, config: DictConfig, values: dict[str, Any], swept: str
) -> float:
    path = run_path(values, swept=swept)
    folder = RunFolder(path, values) if engine.is_main else None
    try:
        shared: RunState = engine.gather(folder.state if folder else RunState())[0]
        state = folder.state if folder else shared
        if state.finished:
            metric = values["task"]["metric"]
            last = state.records[-1]
            if engine.is_main:
                logger.info(
                    "%s is finished: %s, %s %.2f with %s; nothing to do",
                    path, counted(state.cycle, "cycle"), metric, last[metric] or 0.0,
                    counted(int(last["num_labeled"] or 0), "label"),
                )  # fmt: skip
            return float(last[metric] or 0.0)
        with logged_to(path / "log.txt" if engine.is_main else None):
            try:
                return _Run(engine, config, values, path, folder, state, swept=swept).go()
            except AwaitingAnnotation as waiting:
                logger.info("%s", waiting)
                raise
    except (*EXPECTED, OmegaConfBaseException):
        if folder is not None:
            folder.remove_if_unused()
        raise
    finally:
        if folder is not None:
            folder.close()


class _Run:
    """The parts of a run, put together from its configuration."""

    def __init__(
        self,
        engine: Engine,
        config: DictConfig,
        values: dict[str, Any],
        path: Path,
        folder: RunFolder | None,
        state: RunState,
        *,
        swept: str,
    ) -> None:
        self.engine, self.folder, self.state = engine, folder, state
        self.seed, self.cycles = int(values["seed"]), int(values["cycles"])
        self.cycle = settings(CycleSettings, config.cycle)
        head = settings(LossPredictionSettings, config.loss_prediction)
        optimizer = settings(OptimizerSettings, config.optimizer)
        # Cheap and easily set wrongly, so before any data is read.
        strategy: QueryStrategy = build(config.strategy.query)
        size = values["strategy"].get("ensemble_size", 1)
        # A task that does not say how many posterior samples there are is taken to have some.
        passes = values["task"]["build"].get("mc_dropout_passes", 2)
        rehearse(
            strategy,
            num_posterior_samples=passes if size == 1 else size,
            predicts_losses=head.enabled,
            of_regions=values["query"]["name"] != WHOLE,
        )
        tracker: Tracker | None = build(config.tracker) if engine.is_main else None
        kind = config.task.kind
        backbone = serving(config.backbone, kind, group_name="backbone")
        source = serving(config.data, kind, group_name="data")
        if folder is not None and config.oracle.name == "people":
            folder.write_config(values)  # for `experiments.status`, from the first request on
        self.people = ask_people(engine, config, values, run_folder=path, next_cycle=state.cycle)
        labels = {} if self.people is None else {"collected": self.people.collected}
        data = build(source, **labels)
        self.task: Task = build(config.task.build, data=data, backbone=partial(build, backbone))
        self.queried: Queried = build(
            serving(config.query, kind, group_name="query"), task=self.task
        )
        if self.people is None and state.pool is None:  # before what may take long, and is kept
            self._check_sizes()
        self.queried.prepare()
        make = TaskLearner if size == 1 else partial(EnsembleLearner, size=size)
        self.learner: TaskLearner = make(
            self.task, engine, cycle=self.cycle, optimizer=optimizer, loss_prediction=head,
            queried=self.queried,
        )  # fmt: skip
        self.recording: Recording | None = None
        if folder is not None and tracker is not None:
            self.recording = Recording(
                folder, tracker, values, swept=swept, learner=self.learner, people=self.people
            )
        if self.queried.costs is not None:
            strategy = Affordable(strategy, self.queried.costs)
        if self.cycle.candidates is not None:
            strategy = Subsampled(strategy, self.cycle.candidates, groups=self.queried.groups)
        self.strategy = MeasuredStrategy(strategy, engine)

    def go(self) -> float:
        """Run the cycles that are left."""
        pool, oracle = self._pool()
        if self.cycle.warm_start and self.state.cycle:
            kept = self.engine.gather(self.folder.read_checkpoint() if self.folder else None)[0]
            assert kept is not None, "a cycle was committed without its checkpoint"
            self.learner.load_state_dict(kept["model"])
        if self.recording is not None:
            self.recording.open()
        failed = True
        try:
            records = run_cycles(
                pool, Announced(self.learner, pool), self.strategy, oracle,
                cycles=self.cycles, query_size=self.queried.budget(self.cycle.query_size),
                seed=self.seed, costs=self.queried.costs,
            )  # fmt: skip
            self.engine.reset_peak_memory()
            for record in records:
                last = record.cycle + 1 == self.cycles or not record.query.indices.size
                peak = max(self.engine.peak_memory_mb(), self.strategy.earlier_peak_mb)
                row = row_of(record, query_memory_mb=self.strategy.memory_mb, peak_memory_mb=peak)
                if self.recording is not None:
                    self.recording.record(record, row, pool, finished=last)
                self.engine.barrier()
                self.engine.reset_peak_memory()
            if self.folder is not None and self.state.cycle < self.cycles:
                logger.info(
                    "ended after %d of %d cycles: no image is left to label",
                    self.state.cycle, self.cycles,
                )  # fmt: skip
            failed = False
        except AwaitingAnnotation:
            failed = False
            assert self.people is not None, "only people answer later"
            raise self.people.waiting(self.state.cycle) from None
        finally:
            if self.recording is not None:
                self.recording.close(failed=failed)
        return float(row[self.task.metric] or 0.0)

    def _pool(self) -> tuple[Pool, Oracle]:
        """Restore the pool of the state, or draw the initial set."""
        if self.people is not None:
            return self.people.pool(self.task), self.people
        queried = self.queried
        oracle = GroundTruthOracle(queried.targets)
        num_samples, unreadable = len(queried), queried.unreadable
        if self.state.pool is not None:
            pool = Pool.from_state_dict(self.state.pool)
            if pool.num_samples != num_samples or set(pool.excluded) != set(unreadable):
                raise InvalidSetting(
                    f"the images have changed since this run began ({pool.num_samples} then, "
                    f"{pool.excluded.size} of them unreadable; {num_samples} and "
                    f"{len(unreadable)} now): put them back, or start anew with out=..."
                )
            oracle.annotate(pool.labeled)
            return pool, oracle
        pool = Pool(num_samples, excluded=unreadable)
        self.learner.training.check_batch(self.cycle.initial_size)
        draw_initial_set(
            pool, oracle, size=self.cycle.initial_size, seed=self.seed, groups=queried.groups
        )
        costs = np.ones(num_samples, np.int64) if queried.costs is None else queried.costs
        offered, spent = (int(costs[part].sum()) for part in (pool.unlabeled, pool.labeled))
        self._check_enough(spent, spent + offered)
        return pool, oracle

    def _check_sizes(self) -> None:
        """Refuse an initial set or queries that there are not enough images for."""
        train, initial_size = self.task.train, self.cycle.initial_size
        num_images = len(train) - len(train.unreadable)
        if initial_size > num_images:
            raise InvalidSetting(
                f"cycle.initial_size={initial_size}, but the pool has "
                f"{counted(num_images, 'image')}: lower it"
            )
        self._check_enough(*self.queried.amounts(initial_size))

    def _check_enough(self, initial: int, pool: int) -> None:
        query_size, queried = self.cycle.query_size, self.queried
        needed = initial + (self.cycles - 1) * queried.budget(query_size)
        if needed > pool:
            raise InvalidSetting(
                f"cycles={self.cycles} with cycle.initial_size={self.cycle.initial_size} and "
                f"cycle.query_size={query_size} label {needed} {queried.unit}, but the pool has "
                f"{pool}: lower one of them"
            )
