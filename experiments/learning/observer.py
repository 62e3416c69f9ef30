"""Follow the cycles of a run: announce what begins, and measure seconds and memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from al_core import Stopwatch
from experiments.engine.engine import Engine
from experiments.engine.memory import give_back_freed_memory, host_memory_mb

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochEnd:
    """The state of a training at the end of an epoch.

    Attributes:
        epoch: The number of the epoch, from 0.
        num_epochs: The epochs of this training.
        step: Optimizer steps of this training so far.
        loss: Mean loss of the epoch, without that of a loss-prediction module.
        learning_rate: That of the last step.
        images_per_second: Over the epoch, of all processes together.
        ranking_accuracy: Share of pairs that a loss-prediction module ranked right; None without.
    """

    epoch: int
    num_epochs: int
    step: int
    loss: float
    learning_rate: float
    images_per_second: float
    ranking_accuracy: float | None


class CycleObserver:
    """The observer of a run in one process; the loop and the learner report to it.

    Args:
        engine: Measures the peak of memory.

    Attributes:
        query_memory_mb: Memory of this process in MB that the latest query needed at its peak,
            scoring included, beyond what the process held when the query began.
        on_epoch: Called with the cycle and the end of each epoch of its training.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watch = Stopwatch()
        self._cycle = 0
        self._has_scored = False
        self._peak_before_query_mb = 0.0
        self.query_memory_mb = 0.0
        self.on_epoch: Callable[[int, EpochEnd], None] | None = None
        self._last_step = 0

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds of the phases of the current cycle so far, by name; "score" is always there."""
        return {"score": 0.0, **self._watch.seconds}

    @property
    def peak_memory_mb(self) -> float:
        """The largest memory in MB of the current cycle: of the GPU, or of this process."""
        return max(self._peak_before_query_mb, self._engine.peak_memory_mb())

    def start_cycle(self, cycle: int) -> None:
        """Begin cycle number `cycle` and its measurements."""
        self._watch.start_cycle(cycle)
        self._cycle, self._has_scored, self._last_step = cycle, False, 0
        self._peak_before_query_mb = self.query_memory_mb = 0.0
        self._engine.reset_peak_memory()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Enclose the phase "fit", "evaluate", "query" or "score"."""
        if name == "score" and not self._has_scored:  # a strategy may infer several times
            self.announce("scoring unlabeled images")
            self._has_scored = True
        with self._watch.phase(name):
            if name == "query":
                with self._memory_of_query():
                    yield
            else:
                yield

    def credit(self, name: str, seconds: float) -> None:
        """Add the time that earlier processes have spent in a phase of this cycle."""
        self._watch.credit(name, seconds)

    def end_epoch(self, end: EpochEnd) -> None:
        """Report the end of an epoch; of an ensemble only the first member's count."""
        if end.step > self._last_step:
            self._last_step = end.step
            if self.on_epoch is not None:
                self.on_epoch(self._cycle, end)

    def announce(self, text: str) -> None:
        """Log a line about the current cycle; training and scoring may take long."""
        logger.info("cycle %d: %s", self._cycle, text)

    @contextmanager
    def _memory_of_query(self) -> Iterator[None]:
        self._peak_before_query_mb = self._engine.peak_memory_mb()
        give_back_freed_memory()  # or the query would take from freed memory, unseen
        self._engine.reset_peak_memory()
        held_mb = host_memory_mb(peak=False)
        yield
        self.query_memory_mb = max(0.0, host_memory_mb(peak=True) - held_mb)
