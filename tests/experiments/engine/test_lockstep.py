"""Jobs that take turns and meet."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from experiments.engine.lockstep import Lockstep, current


def total(numbers: Sequence[int]) -> list[int]:
    """Give everybody the sum."""
    return [sum(numbers)] * len(numbers)


def meet(kind: object, number: int) -> int:
    """Meet the others of this thread's group."""
    lockstep = current()
    assert lockstep is not None
    return lockstep.meet(kind, number, total)


def test_jobs_that_meet_work_together() -> None:
    """Offers of one kind are worked on at once, in the order of the jobs."""
    seen: list[list[int]] = []

    def noting(numbers: Sequence[int]) -> list[int]:
        seen.append(list(numbers))
        return [number + 100 * len(numbers) for number in numbers]

    def job(number: int) -> list[int]:
        lockstep = current()
        assert lockstep is not None
        return [lockstep.meet(number % 2, 10 * step + number, noting) for step in range(2)]

    found = Lockstep().run({f"job {n}": lambda n=n: job(n) for n in range(3)})  # type: ignore[misc]
    assert found == {"job 0": [200, 210], "job 1": [101, 111], "job 2": [202, 212]}
    assert seen == [[0, 2], [1], [10, 12], [11]]
    assert current() is None


def test_one_job_runs_at_a_time_until_it_meets() -> None:
    """Between meetings a job is alone, and the turns go round in one order."""
    turns: list[int] = []
    running: set[int] = set()

    def job(number: int) -> None:
        for _ in range(3):
            running.add(number)
            time.sleep(0.002)
            assert running == {number}
            turns.append(number)
            running.clear()
            meet("all", number)

    found = Lockstep().run({f"job {n}": lambda n=n: job(n) for n in range(3)})  # type: ignore[misc]
    assert found == dict.fromkeys(("job 0", "job 1", "job 2"))
    assert turns == [0, 1, 2] * 3


def test_jobs_that_end_early_are_not_waited_for() -> None:
    """The others go on, also where a job has failed, whose error is its outcome."""

    def failing() -> int:
        meet("all", 1)
        raise ValueError("this one")

    jobs: dict[str, Callable[[], int]] = {
        "none": lambda: 7,
        "failing": failing,
        "long": lambda: meet("all", 2) + meet("all", 3),
    }
    found = Lockstep().run(jobs)
    assert found["none"] == 7
    assert found["long"] == 3 + 3
    assert str(found["failing"]) == "this one"


def test_failed_work_fails_for_those_who_offered() -> None:
    """Its error is raised where they met; others of another kind have their results."""

    def fail(numbers: Sequence[int]) -> list[int]:
        raise RuntimeError("no")

    def caught() -> str:
        lockstep = current()
        assert lockstep is not None
        try:
            lockstep.meet("bad", 1, fail)
        except RuntimeError as error:
            return str(error)
        return "went well"

    found = Lockstep().run({"a": caught, "b": lambda: meet("good", 4), "c": caught})
    assert found == {"a": "no", "b": 4, "c": "no"}


def test_waiting_is_told_from_working() -> None:
    """Work that is done together counts in equal parts, and a job's own work for itself alone."""

    def slow(numbers: Sequence[int]) -> Sequence[int]:
        time.sleep(0.06)
        return numbers

    def job(own_seconds: float) -> float:
        lockstep = current()
        assert lockstep is not None
        start = time.perf_counter()
        time.sleep(own_seconds)
        lockstep.meet("all", 0, slow)
        lockstep.meet("all", 0, slow)
        return time.perf_counter() - start - lockstep.take_idle_seconds()

    found = Lockstep().run({"busy": lambda: job(0.05), "idle": lambda: job(0.0)})
    busy, idle = found["busy"], found["idle"]
    assert isinstance(busy, float)
    assert isinstance(idle, float)
    assert busy == pytest.approx(0.11, abs=0.03)
    assert idle == pytest.approx(0.06, abs=0.03)


def test_an_interrupt_ends_all_jobs_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt is raised in the main thread, and no job is left behind."""
    join = threading.Thread.join
    interrupted: list[threading.Thread] = []

    def interrupting(self: threading.Thread, timeout: float | None = None) -> None:
        if not interrupted:
            interrupted.append(self)
            raise KeyboardInterrupt
        join(self, timeout)

    def endless(number: int) -> None:
        while True:
            meet("all", number)
            time.sleep(0.001)

    monkeypatch.setattr(threading.Thread, "join", interrupting)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        Lockstep().run({f"job {n}": lambda n=n: endless(n) for n in range(2)})  # type: ignore[misc]
    assert threading.active_count() == before
