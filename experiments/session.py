"""One run, from its configuration to its finished run folder, in each of its processes.

Every process runs the same cycles in step; the first one alone writes the run folder and talks to
the tracker.
"""

from __future__ import annotations

import inspect
import logging
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from tqdm.contrib.logging import logging_redirect_tqdm

from al_core import (
    Affordable,
    CycleRecord,
    Oracle,
    Pool,
    QueryStrategy,
    Subsampled,
    draw_initial_set,
    run_cycles,
)
from al_core.errors import ActiveLearningError, AwaitingAnnotation, InvalidSetting
from experiments.config import (
    CycleSettings,
    LossPredictionSettings,
    OptimizerSettings,
    build,
    check_top_level,
    plain,
    run_path,
    serving,
    settings,
    strategy_label,
)
from experiments.data.targets import GroundTruthOracle
from experiments.engine import Engine
from experiments.ensemble import EnsembleLearner
from experiments.learner import TaskLearner
from experiments.oracle import ask_people
from experiments.provenance import provenance
from experiments.queried import Queried, image_of, images_of
from experiments.query_cost import MeasuredStrategy
from experiments.run_folder import Row, RunFolder, RunState, row_of
from experiments.tasks.base import Panel, Task
from experiments.tracking import Tracker

logger = logging.getLogger(__name__)

GALLERY_IMAGES = 8
"""Thumbnails of the most and of the least wanted images of a cycle."""
EXPECTED = (ActiveLearningError, OSError)
"""Errors that say in one line what is wrong; of others the log keeps the traceback."""


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
                    "%s is finished: %d cycles, %s %.2f with %d labels; nothing to do",
                    path, state.cycle, metric, last[metric], last["num_labeled"],
                )  # fmt: skip
            return float(last[metric] or 0.0)
        with _logged_to(path / "log.txt" if engine.is_main else None):
            try:
                return _Run(engine, config, values, folder, state, swept=swept).go()
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
        folder: RunFolder | None,
        state: RunState,
        *,
        swept: str,
    ) -> None:
        self.engine, self.values, self.folder, self.state = engine, values, folder, state
        self.swept = swept
        self.seed, self.cycles = int(values["seed"]), int(values["cycles"])
        self.cycle = settings(CycleSettings, config.cycle)
        head = settings(LossPredictionSettings, config.loss_prediction)
        optimizer = settings(OptimizerSettings, config.optimizer)
        # Cheap and easily set wrongly, so before any data is read.
        strategy: QueryStrategy = build(config.strategy.query)
        self.tracker: Tracker | None = build(config.tracker) if engine.is_main else None
        kind = config.task.kind
        backbone = serving(config.backbone, kind, group_name="backbone")
        source = serving(config.data, kind, group_name="data")
        self.people = ask_people(engine, config, values, folder, state)
        labels = {} if self.people is None else {"collected": self.people.collected}
        data = build(source, **labels)
        self.task: Task = build(config.task.build, data=data, backbone=partial(build, backbone))
        self.queried: Queried = build(
            serving(config.query, kind, group_name="query"), task=self.task
        )
        size = values["strategy"].get("ensemble_size", 1)
        make = TaskLearner if size == 1 else partial(EnsembleLearner, size=size)
        self.learner: TaskLearner = make(
            self.task, engine, cycle=self.cycle, optimizer=optimizer, loss_prediction=head,
            queried=self.queried,
        )  # fmt: skip
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
        if self.folder is not None:
            self._open(self.folder)
        failed = True
        try:
            records = run_cycles(
                pool, self.learner, self.strategy, oracle,
                cycles=self.cycles, query_size=self.queried.budget(self.cycle.query_size),
                seed=self.seed, costs=self.queried.costs,
            )  # fmt: skip
            self.engine.reset_peak_memory()
            for record in records:
                last = record.cycle + 1 == self.cycles or not record.query.indices.size
                peak = max(self.engine.peak_memory_mb(), self.strategy.earlier_peak_mb)
                row = row_of(record, query_memory_mb=self.strategy.memory_mb, peak_memory_mb=peak)
                if self.folder is not None:
                    self._record(self.folder, record, row, pool, finished=last)
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
            if self.tracker is not None:
                self.tracker.finish(self._summary(), failed=failed)
        return float(row[self.task.metric] or 0.0)

    def _pool(self) -> tuple[Pool, Oracle]:
        """Restore the pool of the state, or draw the initial set."""
        if self.people is not None:
            return self.people.pool(self.task), self.people
        queried, query_size = self.queried, self.cycle.query_size
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
        images = np.unique(image_of(queried, pool.unlabeled)).size
        if self.cycle.initial_size > images:
            raise InvalidSetting(
                f"cycle.initial_size={self.cycle.initial_size}, but the pool has {images} images"
            )
        draw_initial_set(
            pool, oracle, size=self.cycle.initial_size, seed=self.seed, groups=queried.groups
        )
        costs = np.ones(num_samples, np.int64) if queried.costs is None else queried.costs
        offered, spent = (costs[part].sum() for part in (pool.unlabeled, pool.labeled))
        needed = spent + (self.cycles - 1) * queried.budget(query_size)
        if needed > spent + offered:
            raise InvalidSetting(
                f"cycles={self.cycles} with cycle.initial_size={self.cycle.initial_size} and "
                f"cycle.query_size={query_size} label {needed} {queried.unit}, but the pool has "
                f"{spent + offered}: lower one of them"
            )
        return pool, oracle

    def _open(self, folder: RunFolder) -> None:
        """Write what is known before the first cycle, and start the tracker."""
        state, values, task = self.state, self.values, self.task
        folder.write_config(values)
        if state.cycle:
            logger.info("%s: going on with cycle %d of %d", folder.path, state.cycle, self.cycles)
        else:
            logger.info("%s: %d cycles", folder.path, self.cycles)
            folder.write_provenance(provenance(values, device_name=self.engine.device_name))
        quarantine = {
            f"{part}/{samples.names[index]}": reason
            for part, samples in (("train", task.train), ("test", task.test))
            for index, reason in samples.unreadable.items()
        }
        if quarantine:
            folder.write_quarantine(quarantine)
            logger.warning(
                "%d images cannot be read and are left out; see %s",
                len(quarantine), folder.path / "quarantine.csv",
            )  # fmt: skip
        if state.wandb_id is None:
            state.wandb_id = uuid.uuid4().hex[:8]
            folder.save_state()
        assert self.tracker is not None
        self.tracker.start(
            run_folder=folder.path,
            name=f"{strategy_label(values)}-seed{values['seed']}"
            + (f"-{self.swept}" if self.swept else ""),
            group=values["name"],
            config=values,
            tags=[values["task"]["name"], values["data"]["name"], strategy_label(values)],
            run_id=state.wandb_id,
        )

    def _record(
        self, folder: RunFolder, record: CycleRecord, row: Row, pool: Pool, *, finished: bool
    ) -> None:
        """Write a cycle's files, the state last, then show the cycle to people."""
        folder.write_query(record, self.task.train.names, self.queried)
        folder.write_gallery(record.cycle, self._panels(record))
        if self.people is not None and not finished:
            self.people.ask(record, self.learner)
        checkpoint = folder.write_checkpoint(
            record.cycle,
            {
                "model": self.learner.model.state_dict(),
                "config": self.values,
                "class_names": list(self.task.class_names),
                "data_facts": self.task.data_facts(),
                "posterior_seed": self.learner.posterior_seed,
                "cycle": record.cycle,
            },
        )
        folder.commit(row, pool=pool.state_dict(), checkpoint=checkpoint, finished=finished)
        tau = row["loss_ranking_tau"]
        logger.info(
            "cycle %d: %d labeled, %s %.2f%s, %.1f s (fit %.1f, evaluate %.1f, score %.1f)",
            record.cycle, record.num_labeled, self.task.metric, row[self.task.metric],
            "" if tau is None else f", tau {tau:.2f}", sum(record.seconds.values()),
            record.seconds["fit"], record.seconds["evaluate"], record.seconds["score"],
        )  # fmt: skip
        assert self.tracker is not None
        self.tracker.log_cycle(record, row, run_folder=folder.path)

    def _panels(self, record: CycleRecord) -> dict[str, list[tuple[str, float | None, Panel]]]:
        """Draw the most and the least wanted candidates, and their scores."""
        query, ranking = record.query, record.query.ranking
        order = query.indices if ranking is None else ranking.indices
        images, first = images_of(self.queried, order)
        scores = [None] * len(images) if ranking is None else ranking.scores[first].tolist()
        kinds = {"most": slice(GALLERY_IMAGES)}
        if ranking is not None:
            start = max(GALLERY_IMAGES, len(images) - GALLERY_IMAGES)
            kinds["least"] = slice(start, None)
        found = {}
        for kind, part in kinds.items():
            chosen = images[part]
            panels = self.queried.marked(self.learner.draw(chosen), chosen, query.indices)
            names = [self.task.train.names[image] for image in chosen]
            found[kind] = list(zip(names, scores[part], panels, strict=True))
        return {kind: items if kind == "most" else items[::-1] for kind, items in found.items()}

    def _summary(self) -> dict[str, float]:
        """Return the last metric and the area under the budget curve, in units of the metric."""
        records, metric = self.state.records, self.task.metric
        if not records:
            return {}
        values = np.array([row[metric] for row in records], dtype=np.float64)
        labeled = np.array([row["num_labeled"] for row in records], dtype=np.float64)
        spread = labeled[-1] - labeled[0]
        area = np.trapezoid(values, labeled) / spread if spread else values[-1]
        return {f"final_{metric}": float(values[-1]), "area_under_budget_curve": float(area)}


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the name is logging's
        """Let a full disk stop the run as it does anywhere else, not print a traceback."""
        raise


@contextmanager
def _logged_to(file: Path | None) -> Iterator[None]:
    """Send log lines to the run's log.txt too; progress bars stay out of their way.

    A process that is not the first says nothing below an error.
    """
    root = logging.getLogger()
    level = root.level
    if file is None:
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)
        return
    if not root.handlers:  # a started process has no logging of Hydra's
        logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stdout)
    handler = _LogFile(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(handler)
    try:
        with logging_redirect_tqdm():
            yield
    except AwaitingAnnotation:
        raise  # no error, and said already
    except Exception as error:
        trace = None if isinstance(error, EXPECTED) else sys.exc_info()
        with suppress(OSError):  # the disk may be what is full
            handler.handle(
                logger.makeRecord(
                    logger.name, logging.ERROR, __file__, 0, "stopped: %s", (error,), trace
                )
            )
        raise
    finally:
        root.removeHandler(handler)
        handler.close()
