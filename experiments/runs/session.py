"""Execute one run, from its configuration to its finished run folder.

Every process of the run executes the same cycles in step. Only the first one writes the run folder
and calls the tracker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from al_core import Oracle, Pool, run_cycles
from experiments.annotation.oracle import check_oracle
from experiments.annotation.people import Waiting
from experiments.data.targets import GroundTruthOracle
from experiments.engine.engine import Engine
from experiments.runs.assembly import Parts, assemble
from experiments.runs.folder import RunFolder, RunState, row_of
from experiments.runs.log_file import EXPECTED, logged_to
from experiments.runs.pool import first_pool, restored_pool
from experiments.runs.recorder import Recorder
from experiments.runs.tracker import Tracker
from experiments.settings.composition import make
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import counted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        metric: The primary metric of the last cycle; 0 before the first.
        waiting: A note for people if the run needs their annotations to continue, else None.
    """

    metric: float
    waiting: Waiting | None = None


def run(composed: DictConfig, *, swept: str = "") -> Outcome:
    """Start a run, resume it, or report that it is finished.

    Args:
        composed: The configuration as the command line composes it.
        swept: The keys and values that a sweep varies in addition to strategy and seed; they are
            part of the run folder's path.

    Raises:
        ActiveLearningError: A user can correct the problem; one line.
    """
    config = RunConfig.of(composed)
    check_oracle(config)
    engine = make(Engine, config.values["engine"], where="engine")
    return engine.launch(_run_in_process, config, swept)


def _run_in_process(engine: Engine, config: RunConfig, swept: str) -> Outcome:
    path = config.path(swept=swept)
    folder = RunFolder(path, config.values) if engine.is_main else None
    try:
        shared: RunState = engine.gather(folder.state if folder else RunState())[0]
        state = folder.state if folder else shared
        if state.finished:
            return _already_finished(path, state, config)
        with logged_to(path / "log.txt" if engine.is_main else None):
            return _run_cycles(engine, config, folder, state, path=path, swept=swept)
    except (*EXPECTED, OmegaConfBaseException):
        if folder is not None:
            folder.remove_if_unused()
        raise
    finally:
        if folder is not None:
            folder.close()


def _already_finished(path: Path, state: RunState, config: RunConfig) -> Outcome:
    last = state.records[-1]
    metric = float(last[config.metric] or 0.0)
    logger.info(
        "%s is finished: %s, %s %.2f with %s; nothing to do",
        path, counted(state.cycle, "cycle"), config.metric, metric,
        counted(int(last["num_labeled"] or 0), "label"),
    )  # fmt: skip
    return Outcome(metric)


def _run_cycles(
    engine: Engine,
    config: RunConfig,
    folder: RunFolder | None,
    state: RunState,
    *,
    path: Path,
    swept: str,
) -> Outcome:
    """Execute the remaining cycles."""
    tracker: Tracker | None = config.build("tracker") if folder is not None else None
    if folder is not None and config.asks_people:
        folder.write_config(config.values)  # `experiments.status` reads it
    parts = assemble(engine, config, run_folder=path, next_cycle=state.cycle)
    if isinstance(parts, Waiting):
        logger.info("%s", parts.text)
        return Outcome(_last_metric(state, config), parts)
    pool, oracle = _pool_and_oracle(config, parts, state)
    if config.recipe.cycle.warm_start and state.cycle:
        kept = engine.gather(folder.read_checkpoint() if folder else None)[0]
        assert kept is not None, "a cycle was committed without its checkpoint"
        parts.learner.load_state_dict(kept["model"])
    recorder: Recorder | None = None
    if folder is not None and tracker is not None:
        recorder = Recorder(
            folder, tracker, config, swept=swept, learner=parts.learner, people=parts.people
        )
        recorder.open()
    failed, waiting = True, None
    try:
        for record in run_cycles(
            pool, parts.learner, parts.strategy, oracle,
            cycles=config.cycles, query_size=parts.unit.budget(config.recipe.cycle.query_size),
            seed=config.seed, costs=parts.unit.costs, observer=parts.observer,
        ):  # fmt: skip
            if recorder is not None:
                row = row_of(
                    record,
                    query_memory_mb=parts.observer.query_memory_mb,
                    peak_memory_mb=parts.observer.peak_memory_mb,
                )
                is_last = record.cycle + 1 == config.cycles or not record.query.indices.size
                recorder.record(record, row, pool, finished=is_last)
            engine.barrier()
            metric = float(record.metrics[parts.task.metric])
            if record.awaits_labels and parts.people is not None:
                waiting = parts.people.waiting(record.cycle + 1)
                logger.info("%s", waiting.text)
            elif record.cycle + 1 < config.cycles and not record.query.indices.size:
                logger.info(
                    "ended after %d of %d cycles: no image is left to label",
                    record.cycle + 1, config.cycles,
                )  # fmt: skip
        failed = False
    finally:
        if recorder is not None:
            recorder.close(failed=failed)
    return Outcome(metric, waiting)


def _pool_and_oracle(config: RunConfig, parts: Parts, state: RunState) -> tuple[Pool, Oracle]:
    """Restore the pool, or draw the initial set."""
    if parts.people is not None:
        return parts.people.pool(parts.task), parts.people
    oracle = GroundTruthOracle(parts.unit.targets)
    if state.pool is not None:
        return restored_pool(state.pool, parts.unit, oracle), oracle
    return first_pool(config, parts.learner, oracle), oracle


def _last_metric(state: RunState, config: RunConfig) -> float:
    return float(state.records[-1][config.metric] or 0.0) if state.records else 0.0
