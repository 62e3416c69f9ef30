"""Runs of a sweep that differ in their seeds and train side by side in one process.

A sweep has a job for each run. With `engine.seeds_per_process=k` the seeds of a sweep form groups
of k, and the first job of a group executes all of its runs in turns (see
`experiments.engine.lockstep`). They train together, and each scores, selects and writes its own run
folder. The group's other jobs then find their runs finished, or, if one has failed, repeat its last
cycle and report why.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from omegaconf import DictConfig, OmegaConf

from experiments.engine.lockstep import Lockstep
from experiments.runs.binding import run_folder
from experiments.runs.session import Outcome, run
from experiments.settings.run_config import RunConfig
from experiments.settings.terminal import PlainFormatter

STATE = "state.json"


def run_group(composed: DictConfig, seeds: Sequence[int], *, swept: str = "") -> Outcome:
    """Execute the run of a job, and beside it the unfinished runs of later seeds of its group.

    Args:
        composed: The configuration of the job's run.
        seeds: The seeds of the sweep, in its order; none for a run by itself.
        swept: As for `session.run`.

    Returns:
        How the job's own run ended.

    Raises:
        ActiveLearningError: A user can correct a problem of this run.
    """
    if not seeds:
        return run(composed, swept=swept)
    config = RunConfig.of(composed)
    beside = group_of(config.seed, seeds, size=config.values["engine"].get("seeds_per_process", 1))
    if not beside or _is_finished(config, swept=swept):
        return run(composed, swept=swept)
    configs = {config.seed: composed}
    for seed in beside:
        other = copy.deepcopy(composed)
        OmegaConf.update(other, "seed", seed)
        if not _is_finished(RunConfig.of(other), swept=swept):
            configs[seed] = other
    if len(configs) == 1:
        return run(composed, swept=swept)
    jobs = {f"seed {seed}": partial(run, each, swept=swept) for seed, each in configs.items()}
    with _names_of_threads():
        outcome = Lockstep().run(jobs)[f"seed {config.seed}"]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def group_of(seed: int, seeds: Sequence[int], *, size: int) -> list[int]:
    """Return the seeds that follow `seed` in its group.

    Args:
        seed: One of the seeds.
        seeds: All of them, in the order of the sweep; groups are cut from it.
        size: Seeds of a group.
    """
    every = list(dict.fromkeys(seeds))
    if seed not in every:
        return []
    place = every.index(seed)
    return every[place + 1 : place - place % size + size]


def _is_finished(config: RunConfig, *, swept: str) -> bool:
    """Return whether a run has all of its cycles; False where that cannot be read."""
    try:
        state = json.loads((run_folder(config, swept=swept) / STATE).read_text("utf-8"))
        return bool(state["finished"]) and int(state["cycle"]) >= config.cycles
    except (OSError, ValueError, KeyError, TypeError):
        return False


class _WithThread(PlainFormatter):
    """Puts the name of its thread before each message.

    Args:
        usual: Formats the message.
    """

    def __init__(self, usual: logging.Formatter | None) -> None:
        super().__init__()
        self._usual = usual or PlainFormatter()

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.threadName}: {self._usual.format(record)}"


@contextmanager
def _names_of_threads() -> Iterator[None]:
    """Begin the lines of the terminal with the names of the runs that they are about."""
    handlers = list(logging.getLogger().handlers)
    before = [handler.formatter for handler in handlers]
    for handler in handlers:
        handler.setFormatter(_WithThread(handler.formatter))
    try:
        yield
    finally:
        for handler, formatter in zip(handlers, before, strict=True):
            handler.setFormatter(formatter)
