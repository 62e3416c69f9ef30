"""Follow the cycles of a run: announce what begins, and measure seconds and memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from al_core import Stopwatch
from experiments.engine.engine import Engine
from experiments.engine.memory import give_back_freed_memory, host_memory_mb

logger = logging.getLogger(__name__)


class CycleObserver:
    """The observer of a run in one process; the loop and the learner report to it.

    Args:
        engine: Measures the peak of memory.

    Attributes:
        query_memory_mb: Memory of this process in MB that the latest query needed at its peak,
            scoring included, beyond what the process held when the query began.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._watch = Stopwatch()
        self._cycle = 0
        self._has_scored = False
        self._peak_before_query_mb = 0.0
        self.query_memory_mb = 0.0

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
        self._cycle, self._has_scored = cycle, False
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
