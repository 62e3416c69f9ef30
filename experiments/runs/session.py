"""Execute one run, from its configuration to its finished run folder.

Every process of the run executes the same cycles in step. Only the first one writes the run folder
and calls the tracker.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from al_core import CycleRecord, Oracle, Pool, Query, run_cycles
from al_core.errors import InvalidSetting
from experiments.annotation.oracle import check_oracle, live_oracle
from experiments.annotation.people import Waiting
from experiments.data.duplicate_groups import Groups
from experiments.data.targets import GroundTruthOracle
from experiments.engine.engine import Engine
from experiments.engine.threads import num_threads, use_threads
from experiments.learning.learner import TaskLearner
from experiments.runs.assembly import Parts, assemble
from experiments.runs.binding import run_folder
from experiments.runs.folder import RunFolder, RunState
from experiments.runs.known_images import write_record
from experiments.runs.log_file import EXPECTED, logged_to
from experiments.runs.near_duplicates import groups_of, list_redundant
from experiments.runs.pool import (
    check_added_cycles,
    check_classes,
    first_pool,
    restored_pool,
)
from experiments.runs.recorder import Recorder, recording
from experiments.runs.relabel import LabelCheck
from experiments.runs.stopping import StopCheck
from experiments.runs.tracker import Tracker
from experiments.settings.composition import make
from experiments.settings.run_config import RunConfig
from experiments.settings.wording import Lines, counted
from experiments.units.unit import image_of

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

    A run with `oracle=label_studio` brings back annotations itself, and goes on with them.

    Raises:
        ActiveLearningError: A user can correct the problem; one line.
    """
    config = RunConfig.of(composed)
    check_oracle(config)
    engine = make(Engine, config.values["engine"], where="engine")
    live = live_oracle(config, run_folder(config, swept=swept)) if config.is_live else None
    while True:
        outcome = engine.launch(_run_in_process, config, swept)
        if outcome.waiting is None and config.asks_people:
            logger.info("%s", Lines(_next_steps(config, run_folder(config, swept=swept))))
        if outcome.waiting is None or live is None:
            return outcome
        with logged_to(live.folder / "log.txt"):
            live.bring_back()


def _next_steps(config: RunConfig, path: Path) -> str:
    """Return what people can do with a run whose cycles are finished."""
    return "\n".join((
        "finished; next:",
        f"  more labels   the same command with cycles={config.cycles + 1}",
        f"  predictions   python -m experiments.predict {path} images=FOLDER",
        f"  labels        python -m experiments.export {path} csv",
    ))  # fmt: skip


def _run_in_process(engine: Engine, config: RunConfig, swept: str) -> Outcome:
    path = run_folder(config, swept=swept)
    with _held(path, engine, config) as (folder, state):
        _keep_threads(state, explicit=config.values["engine"].get("num_threads"))
        query = _query_to_label(engine, folder, state, config)
        if state.finished and query is None:
            return _already_finished(path, state, config)
        with logged_to(path / "log.txt" if engine.is_main else None):
            tracker: Tracker | None = config.build("tracker") if folder is not None else None
            if query is not None and config.asks_people:
                _ask_for_added_cycles(engine, config, folder, state, query, path=path)
                query = None
            parts = assemble(engine, config, run_folder=path, next_cycle=state.cycle)
            if folder is not None:
                folder.bind(config.values)
            if isinstance(parts, Waiting):
                logger.info("%s", Lines(parts.text))
                return Outcome(_last_metric(state, config), parts)
            if folder is not None:  # before any state that has these positions in it
                write_record(path, parts.images.record)
            groups = groups_of(config, parts.task, engine)
            pool, oracle = _pool_and_oracle(config, parts, state, groups)
            if folder is not None:
                held = pool.labeled if parts.people is None else parts.people.held
                images = np.unique(image_of(parts.unit, held))
                list_redundant(path, groups, parts.task.train.names, images)
            if query is not None:
                oracle.annotate(query.indices)
                pool.label(query.indices)
                check_added_cycles(config, parts.unit, pool)
                if folder is not None:
                    folder.reopen(pool.state_dict())
            if config.recipe.cycle.warm_start and state.cycle:
                kept = engine.gather(folder.read_checkpoint() if folder else None)[0]
                assert kept is not None, "a cycle was committed without its checkpoint"
                parts.learner.load_state_dict(kept["model"])
            check = LabelCheck(path, config, parts.learner)
            stop_check = StopCheck(path, config, parts.learner, pool, state.records)
            if folder is not None and state.cycle and check.needs_network:
                check.take_network(folder.read_checkpoint(), pool)
            with recording(folder, tracker, config, parts, swept=swept) as recorder:
                return _cycles(config, parts, state, pool, oracle, recorder, check, stop_check)


def _cycles(
    config: RunConfig,
    parts: Parts,
    state: RunState,
    pool: Pool,
    oracle: Oracle,
    recorder: Recorder | None,
    check: LabelCheck,
    stop_check: StopCheck,
) -> Outcome:
    """Go through the cycles that are left, and record them."""
    outcome = Outcome(_last_metric(state, config))
    for record in run_cycles(
        pool, parts.learner, parts.strategy, oracle,
        cycles=config.cycles, seed=config.seed, costs=parts.unit.costs,
        query_size=parts.unit.budget(config.recipe.cycle.query_size),
        observer=parts.observer, stop_rule=stop_check,
    ):  # fmt: skip
        check.after_training(record.cycle, pool.labeled[: record.num_labeled])
        if recorder is not None:
            recorder.record(record, pool)
        if pool.cycle > record.cycle:
            check.before_training(pool)
        parts.learner.engine.barrier()
        outcome = _outcome(record, config, parts)
    return outcome


def _keep_threads(state: RunState, *, explicit: int | None) -> None:
    """Compute with the threads of the first start, wherever the run goes on.

    A number that `engine.num_threads` sets is part of the configuration and counts.
    """
    before = state.num_threads
    if explicit is None and before is not None and before != num_threads():
        logger.info("going on with %s, as before", counted(before, "thread"))
        use_threads(before)
    state.num_threads = num_threads()


def _query_to_label(
    engine: Engine, folder: RunFolder | None, state: RunState, config: RunConfig
) -> Query | None:
    """Return the last query of a finished run that is to have more cycles; None for any other."""
    if not state.finished or config.cycles <= state.cycle or config.stop.is_reached(state.records):
        return None
    query = engine.gather(folder.read_query(state.cycle - 1) if folder else None)[0]
    return query if query is not None and query.indices.size else None  # none was left to label


def _ask_for_added_cycles(
    engine: Engine,
    config: RunConfig,
    folder: RunFolder | None,
    state: RunState,
    query: Query,
    *,
    path: Path,
) -> None:
    """Ask people for the last query of a finished run, with drafts of its last network."""
    last = assemble(engine, config, run_folder=path, next_cycle=state.cycle - 1, is_trained=True)
    if isinstance(last, Waiting) or last.people is None:
        raise InvalidSetting(f"{path}: annotations of its last cycle are missing: put them back")
    if folder is not None:
        kept = folder.read_checkpoint()
        assert kept is not None, "a cycle was committed without its checkpoint"
        learner: TaskLearner | None = last.learner
        try:
            last.learner.load_state_dict(kept["model"], posterior_seed=kept["posterior_seed"])
        except ValueError:  # the weights are of the network before this start changed it
            logger.info("the network has changed: the request has no drafts")
            learner = None
        last.people.ask(state.cycle, query, learner)
        folder.reopen(None)
    state.finished = False


@contextmanager
def _held(
    path: Path, engine: Engine, config: RunConfig
) -> Iterator[tuple[RunFolder | None, RunState]]:
    """Hold the run folder, in the process that writes it, and share its state with the others.

    A folder of a run that never began is removed again if an expected error ends it.
    """
    folder = RunFolder(path, config.values) if engine.is_main else None
    try:
        shared: RunState = engine.gather(folder.state if folder else RunState())[0]
        yield folder, folder.state if folder else shared
    except (*EXPECTED, OmegaConfBaseException):
        if folder is not None:
            folder.remove_if_unused()
        raise
    finally:
        if folder is not None:
            folder.close()


def _already_finished(path: Path, state: RunState, config: RunConfig) -> Outcome:
    metric = _last_metric(state, config)
    logger.info(
        "%s is finished: %s, %s %.2f with %s; nothing to do",
        path, counted(state.cycle, "cycle"), config.metric, metric,
        counted(int(state.records[-1]["num_labeled"] or 0), "label"),
    )  # fmt: skip
    if state.cycle < config.cycles and config.stop.is_reached(state.records):
        logger.info("%s", _stopped(state.cycle, config))
    return Outcome(metric)


def _stopped(cycles_done: int, config: RunConfig) -> str:
    return (
        f"ended after {cycles_done} of {config.cycles} cycles: predictions for unlabeled images no "
        f"longer change (stop.rule={config.stop.rule}); stop.rule=none goes on"
    )


def _outcome(record: CycleRecord, config: RunConfig, parts: Parts) -> Outcome:
    """Return how the run would end with this cycle, and log why it does if it is not the last."""
    metric = float(record.metrics[config.metric])
    if record.awaits_labels and parts.people is not None:
        waiting = parts.people.waiting(record.cycle + 1)
        logger.info("%s", Lines(waiting.text))
        return Outcome(metric, waiting)
    if record.stopped:
        logger.info("%s", _stopped(record.cycle + 1, config))
    elif record.cycle + 1 < config.cycles and not record.query.indices.size:
        logger.info(
            "ended after %d of %d cycles: no image is left to label",
            record.cycle + 1, config.cycles,
        )  # fmt: skip
    return Outcome(metric)


def _pool_and_oracle(
    config: RunConfig, parts: Parts, state: RunState, groups: Groups | None
) -> tuple[Pool, Oracle]:
    """Restore the pool, or draw the initial set."""
    if parts.people is not None:
        return parts.people.pool(parts.task, groups), parts.people
    oracle = GroundTruthOracle(parts.unit.targets)
    if state.pool is not None:
        check_classes(state.class_names, parts.task)
        pool = restored_pool(
            state.pool, parts.task, parts.unit, parts.images, oracle, groups=groups
        )
        return pool, oracle
    return first_pool(config, parts.learner, oracle, groups=groups), oracle


def _last_metric(state: RunState, config: RunConfig) -> float:
    return float(state.records[-1][config.metric] or 0.0) if state.records else 0.0
