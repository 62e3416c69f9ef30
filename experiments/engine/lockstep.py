"""Jobs of one process that take turns, and meet where they can work together.

Each job is an ordinary function in a thread of its own, but only one of them runs at a time, so
that jobs may change what belongs to the whole process (random generators, logging) between two
meetings as if they were alone. A job gives up its turn where it meets the others and where it ends.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")
END_SECONDS = 10.0
"""How long jobs have after an interrupt to come to their next meeting, where they end."""

_here = threading.local()


def current() -> Lockstep | None:
    """Return the group that the job of this thread belongs to; None outside of any."""
    found: Lockstep | None = getattr(_here, "lockstep", None)
    return found


@dataclass
class _Job:
    """The state of a job.

    Attributes:
        turn: Released when it may run.
        waits: It has come to a meeting that has not been held.
        kind: Of its meeting, while it waits for one.
        offer: What it brought to the meeting.
        work: What the meeting does.
        outcome: What it got from its last meeting: a result, or the error that ended the work.
        idle_seconds: The time that others had, since it was asked last.
        has_ended: It needs no more turns.
    """

    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    waits: bool = False
    kind: Hashable = None
    offer: Any = None
    work: Callable[[Sequence[Any]], Sequence[Any]] | None = None
    outcome: Any = None
    idle_seconds: float = 0.0
    has_ended: bool = False


class Lockstep:
    """A group of jobs that take turns."""

    def __init__(self) -> None:
        self._jobs: list[_Job] = []
        self._threads: list[threading.Thread] = []
        self._is_interrupted = False

    def run(self, jobs: Mapping[str, Callable[[], T]]) -> dict[str, T | BaseException]:
        """Run jobs to their ends.

        Args:
            jobs: By the names of their threads, in the order of their first turns.

        Returns:
            What each job returned or raised, by its name.

        Raises:
            KeyboardInterrupt: The process was interrupted; the jobs end at their next meetings.
        """
        found: dict[str, T | BaseException] = {}
        self._jobs = [_Job() for _ in jobs]
        self._threads = threads = [
            threading.Thread(
                target=self._run_one, args=(number, name, job, found), name=name, daemon=True
            )
            for number, (name, job) in enumerate(jobs.items())
        ]
        for thread in threads:
            thread.start()
        if self._jobs:
            self._jobs[0].turn.release()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            self._is_interrupted = True
            deadline = time.monotonic() + END_SECONDS
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            raise
        return {name: found[name] for name in jobs}

    def meet(self, kind: Hashable, offer: S, work: Callable[[Sequence[S]], Sequence[R]]) -> R:
        """Wait until every job has come to a meeting or ended, and work together.

        Args:
            kind: The work is done for all offers of one kind together.
            offer: This job's part.
            work: From the offers of a kind, in the order of the jobs, to a result for each.

        Returns:
            The result of this job's offer.

        Raises:
            Exception: The work raised it, for every job whose offer it was about.
            KeyboardInterrupt: The process was interrupted.
        """
        job = self._jobs[_here.number]
        start = time.perf_counter()
        job.waits, job.kind, job.offer, job.work = True, kind, offer, work
        self._pass_on(_here.number)
        job.turn.acquire()
        job.idle_seconds += time.perf_counter() - start
        outcome, job.outcome = job.outcome, None
        if self._is_interrupted:
            raise KeyboardInterrupt
        if isinstance(outcome, BaseException):
            raise outcome
        result: R = outcome
        return result

    def take_idle_seconds(self) -> float:
        """Return the seconds in which this job waited for others, since the last call.

        Work that is done together counts in equal parts for those who do it.
        """
        job: _Job = self._jobs[_here.number]
        seconds, job.idle_seconds = job.idle_seconds, 0.0
        return seconds

    def filter_of_others(self) -> Callable[[logging.LogRecord], bool]:
        """Return a filter of log records that rejects those of the group's other jobs."""
        others = {each.name for each in self._threads} - {threading.current_thread().name}
        return lambda record: record.threadName not in others

    def _run_one(
        self,
        number: int,
        name: str,
        job: Callable[[], T],
        found: dict[str, T | BaseException],
    ) -> None:
        """Run a job from its first turn on; the main function of its thread."""
        self._jobs[number].turn.acquire()
        _here.lockstep, _here.number = self, number
        try:
            if self._is_interrupted:
                raise KeyboardInterrupt
            found[name] = job()
        except BaseException as error:  # noqa: BLE001  # it is returned, and the others go on
            found[name] = error
        self._jobs[number].has_ended = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        """Give the turn to the next job that can go on; hold the meeting first if none can."""
        count = len(self._jobs)
        for _ in range(2):
            for step in range(1, count + 1):
                following = self._jobs[(number + step) % count]
                if not following.waits and not following.has_ended:
                    following.turn.release()
                    return
            self._hold_meeting()

    def _hold_meeting(self) -> None:
        """Do the work of all jobs that wait, kind by kind."""
        kinds: dict[Hashable, list[_Job]] = {}
        for job in self._jobs:
            if job.waits:
                kinds.setdefault(job.kind, []).append(job)
        for members in kinds.values():
            start = time.perf_counter()
            work = members[0].work
            assert work is not None, "a job that waits has brought work"
            outcomes: Sequence[Any]
            try:
                outcomes = work([job.offer for job in members])
            except Exception as error:  # noqa: BLE001  # raised where the jobs met
                outcomes = [error] * len(members)
            share = (time.perf_counter() - start) / len(members)
            for job, outcome in zip(members, outcomes, strict=True):
                job.waits, job.outcome, job.offer, job.work = False, outcome, None, None
                job.idle_seconds -= share
