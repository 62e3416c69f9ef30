"""experiments.runs.session as a state machine: start, resume, wait, end early, find finished."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from al_core.errors import InvalidSetting
from experiments.annotation.people import Waiting
from experiments.runs.folder import RunState
from experiments.runs.session import Outcome
from experiments.runs.stopping import StopCheck
from experiments.settings.stop_settings import StopSettings
from tests.experiments.runs.fakes import (
    Engine,
    Learner,
    People,
    Task,
)
from tests.experiments.runs.sessions import Run


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Run:
    """A run that has not begun."""
    caplog.set_level(logging.INFO)
    return Run(tmp_path / "run", monkeypatch)


def files(path: Path) -> set[str]:
    """Return the names of all files below a folder."""
    return {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}


# ---- from the start to the end


def test_a_run_trains_every_cycle_and_commits_each(one: Run) -> None:
    """Each cycle trains on all labels so far; the last is finished, and its query not labeled."""
    learner = Learner(Task())
    assert one.start(learner) == Outcome(6.0)
    first = learner.fitted[0]
    assert [len(labeled) for labeled in learner.fitted] == [2, 4, 6]
    rest = [i for i in range(9, -1, -1) if i not in first]
    assert learner.fitted[2] == [*first, *rest[:4]]
    state = one.state
    assert (state["cycle"], state["finished"]) == (3, True)
    assert [row["num_labeled"] for row in state["records"]] == [2, 4, 6]
    assert [sorted(batch) for batch in state["pool"]["labeled"]] == [
        sorted(first), sorted(rest[:2]), sorted(rest[2:4]),
    ]  # fmt: skip


def test_the_tracker_is_called_after_each_commit(one: Run) -> None:
    """It begins once, sees every cycle, and ends with the area under the curve."""
    one.start()
    calls = [name for name, _ in one.tracker.calls]
    assert calls == ["start", "cycle", "cycle", "cycle", "finish"]
    assert one.tracker.calls[0][1]["run_id"] == one.state["wandb_id"]
    summary = {"final_accuracy": 6.0, "area_under_budget_curve": 4.0}
    assert one.tracker.calls[-1][1] == (summary, False)


def test_the_same_command_finds_a_finished_run(one: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It reports the result; nothing is put together, trained or written."""
    one.start()
    before = {path: path.stat().st_mtime_ns for path in one.path.rglob("*") if path.is_file()}
    assembled = list(one.assembled)
    assert one.start() == Outcome(6.0)
    assert one.assembled == assembled
    assert one.tracker.calls == []
    assert "is finished: 3 cycles, accuracy 6.00 with 6 labels; nothing to do" in caplog.text
    del before[one.path / ".lock"]
    assert before == {path: path.stat().st_mtime_ns for path in before}


# ---- resuming


@pytest.mark.parametrize("failed", [4, 6])
@pytest.mark.parametrize("warm", [False, True])
def test_a_resumed_run_ends_as_one_in_one_go(
    one: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failed: int, warm: bool
) -> None:
    """It goes on with the cycle that was not committed, on the same labels, to the same files."""
    whole = Run(tmp_path / "whole", monkeypatch)
    trained = Learner(Task())
    whole.start(trained, warm_start=warm)
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(failed,)), warm_start=warm)
    assert one.tracker.calls[-1][1][1] is True
    run_id, done = one.state["wandb_id"], failed // 2 - 1
    assert (one.state["cycle"], one.state["finished"]) == (done, False)
    learner = Learner(Task())
    assert one.start(learner, warm_start=warm) == Outcome(6.0)
    assert one.assembled == [0, done]
    assert learner.fitted == trained.fitted[done:]
    assert one.tracker.calls[0][1]["run_id"] == run_id
    assert one.results() == whole.results()
    loaded = [what for call, what in learner.calls if call == "load"]
    assert loaded == ([float(failed - 2)] if warm else [])


def test_no_weights_are_loaded_at_the_first_start(one: Run) -> None:
    """A warm start begins with fresh weights: there are none to take over."""
    learner = Learner(Task())
    one.start(learner, warm_start=True)
    assert [call for call, _ in learner.calls] == ["fit"] * 3


def test_a_run_is_not_resumed_over_other_images(one: Run) -> None:
    """Another number of images is refused, and the run folder keeps its state."""
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(4,)))
    state = one.state
    with pytest.raises(InvalidSetting, match=r"the images have changed .*\(10 then.*9"):
        one.start(Learner(Task(9)))
    assert one.state == state


# ---- people


def test_a_run_without_enough_answers_waits(one: Run, caplog: pytest.LogCaptureFixture) -> None:
    """It returns and logs the note and writes its configuration, but trains nothing."""
    note = Waiting("label the first batch")
    assert one.start(people=note) == Outcome(0.0, note)
    assert "label the first batch" in caplog.text
    assert files(one.path) == {".lock", "config.yaml", "log.txt"}
    assert one.tracker.calls == []


def test_people_are_asked_before_the_commit_and_answer_between_two_starts(one: Run) -> None:
    """Each start trains one cycle and asks for the next batch; the last cycle asks nobody."""
    people = People([[0, 1]])
    outcome = one.start(people=people)
    assert outcome == Outcome(2.0, Waiting("waits for the batch of cycle 1"))
    assert people.asked == [(1, [9, 8])]
    assert (one.state["cycle"], one.state["finished"]) == (1, False)
    summary = {"final_accuracy": 2.0, "area_under_budget_curve": 2.0}
    assert one.tracker.calls[-1] == ("finish", (summary, False))
    note = Waiting("3 of 5 images are missing")
    assert one.start(people=note) == Outcome(2.0, note)
    for batches in ([[0, 1], [9, 8]], [[0, 1], [9, 8], [7]]):
        people = People(batches)
        outcome = one.start(people=people)
    assert outcome == Outcome(5.0)
    assert people.asked == []
    assert one.state["finished"]
    assert [row["num_labeled"] for row in one.state["records"]] == [2, 4, 5]


def test_a_request_that_cannot_be_written_is_written_again(one: Run) -> None:
    """The cycle is not committed before people were asked, so the next start asks them."""
    people = People([[0, 1]])
    people.ask = _disk_is_full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no space"):
        one.start(people=people)
    assert one.state["cycle"] == 0
    people = People([[0, 1]])
    assert one.start(people=people).waiting is not None
    assert people.asked == [(1, [9, 8])]


@pytest.mark.parametrize("warm", [False, True])
def test_more_cycles_end_as_a_run_that_had_them_from_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    """A finished run of 2 cycles goes on to 4 without training its last cycle again."""
    unbroken = Run(tmp_path / "unbroken", monkeypatch)
    unbroken.start(cycles=4, warm_start=warm)
    run = Run(tmp_path / "run", monkeypatch)
    run.start(cycles=2, warm_start=warm)
    learner = Learner(Task())
    assert run.start(learner, cycles=4, warm_start=warm) == Outcome(8.0)
    assert [len(each) for each in learner.fitted] == [6, 8]
    assert run.results() == unbroken.results()


def test_more_cycles_than_the_pool_is_enough_for_are_refused(one: Run) -> None:
    """The finished run stays as it was."""
    one.start(cycles=2)
    before = one.state
    with pytest.raises(InvalidSetting, match=r"cycles=9 ask for 12 more images, but 4 are left"):
        one.start(cycles=9)
    assert one.state == before


def _disk_is_full(*what: Any) -> None:
    raise OSError("no space left")


def test_a_run_ends_early_when_nothing_is_left_to_label(
    one: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """The cycle that finds no candidate is the last one, finished, and the next start says so."""
    assert one.start(Learner(Task(4)), people=People([[0, 1]]), cycles=9).waiting is not None
    people = People([[0, 1], [3, 2]])
    assert one.start(Learner(Task(4)), people=people, cycles=9) == Outcome(4.0)
    assert people.asked == []
    assert one.state["finished"]
    assert "ended after 2 of 9 cycles: no image is left to label" in caplog.text
    assert one.start(Learner(Task(4)), people=people, cycles=9) == Outcome(4.0)
    assert "is finished: 2 cycles" in caplog.text


# ---- errors


@pytest.mark.parametrize("error", [InvalidSetting("wrong"), OSError("no such file")])
def test_an_error_before_the_first_cycle_leaves_no_folder(one: Run, error: Exception) -> None:
    """A wrong setting can be corrected and the run started as if nothing had been."""
    with pytest.raises(type(error)):
        one.start(error=error)
    assert not one.path.exists()
    one.start()
    assert one.state["finished"]


def test_an_error_of_our_own_keeps_the_log_with_its_traceback(one: Run) -> None:
    """An unexpected error leaves the folder for whoever looks into it, unlocked."""
    with pytest.raises(ZeroDivisionError):
        one.start(error=ZeroDivisionError("by us"))
    assert "Traceback" in (one.path / "log.txt").read_text()
    one.start()
    assert one.state["finished"]


def test_an_error_after_a_cycle_keeps_the_record(one: Run) -> None:
    """The folder is unlocked, its log says why the run stopped, and the state is the last one."""
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(4,)))
    assert one.state["cycle"] == 1
    assert "stopped: no space left" in (one.path / "log.txt").read_text()


def test_too_many_labels_are_refused_before_anything_is_trained(one: Run) -> None:
    """The labels of all cycles must be in the pool."""
    learner = Learner(Task(5))
    with pytest.raises(InvalidSetting, match="label 6 images, but the pool has 5"):
        one.start(learner)
    assert learner.calls == []
    assert not one.path.exists()


# ---- ended by a stop rule


@pytest.fixture
def stable(monkeypatch: pytest.MonkeyPatch) -> StopSettings:
    """A rule that is reached with the second cycle, since predictions agree fully then."""
    monkeypatch.setattr(StopCheck, "_kappa", lambda self, cycle: 1.0 if cycle else math.nan)
    return StopSettings("stabilizing", window=1)


def test_a_stop_rule_ends_a_run(
    one: Run, stable: StopSettings, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is finished early, says why, and the same command finds it finished."""
    learner = Learner(Task())
    assert one.start(learner, stop=stable) == Outcome(4.0)
    assert (one.state["cycle"], one.state["finished"]) == (2, True)
    assert [row["prediction_agreement"] for row in one.state["records"]] == [None, 1.0]
    told = "ended after 2 of 3 cycles: predictions for unlabeled images no longer change"
    assert caplog.text.count(told) == 1
    assert sum(map(len, one.state["pool"]["labeled"])) == 4
    assert one.start(learner, stop=stable) == Outcome(4.0)
    assert len(learner.fitted) == 2
    assert caplog.text.count(told) == 2


def test_without_the_rule_the_run_goes_on_to_the_same_end(
    one: Run, stable: StopSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last query is labeled then, and nothing is trained twice."""
    whole = Run(tmp_path / "whole", monkeypatch)
    whole.start(stop=replace(stable, rule="none"))
    one.start(stop=stable)
    learner = Learner(Task())
    one.start(learner, stop=replace(stable, rule="none"))
    assert [len(labeled) for labeled in learner.fitted] == [6]
    assert one.results() == whole.results()


def test_people_are_not_asked_for_more_than_the_rule_wants(one: Run, stable: StopSettings) -> None:
    """The cycle that ends the run writes no request; without the rule it does."""
    outcome = one.start(people=People([[0, 1]]), stop=stable)
    assert outcome.waiting is not None  # of cycle 0, whose agreement is not measured
    people = People([[0, 1], [2, 3]])
    outcome = one.start(people=people, stop=stable)
    assert (outcome.waiting, people.asked, one.state["finished"]) == (None, [], True)
    people = People([[0, 1], [2, 3]])
    outcome = one.start(people=people, stop=StopSettings(images=0))
    assert outcome.waiting is not None
    assert people.asked[0][0] == 2


# ---- several processes


def test_another_process_writes_nothing_and_follows_the_first(one: Run) -> None:
    """It trains the cycles that are left by the first one's state, and touches no file."""
    state = RunState()
    learner = Learner(Task())
    engine = Engine(main=lambda value: state if isinstance(value, RunState) else value)
    assert one.start(learner, engine=engine) == Outcome(6.0)
    assert [len(labeled) for labeled in learner.fitted] == [2, 4, 6]
    assert one.tracker.calls == []
    assert not one.path.exists()


def test_another_process_takes_over_state_and_weights(one: Run) -> None:
    """Records, pool and checkpoint come from the first process."""
    pool = {"num_samples": 10, "excluded": [], "labeled": [[5, 6], [7, 8]]}
    records: list[Any] = [{"cycle": 0, "num_labeled": 2, "accuracy": 2.0}]
    state = RunState(1, False, pool, records, "cycle_00.pt")
    weights = Learner(Task()).model.state_dict()
    learner = Learner(Task())

    def main(value: Any) -> Any:
        return state if isinstance(value, RunState) else {"model": weights}

    one.start(learner, engine=Engine(main), warm_start=True)
    assert one.assembled == [1]
    assert learner.calls[0][0] == "load"
    assert learner.fitted[0] == [5, 6, 7, 8]


def test_another_process_finds_the_run_finished_too(one: Run) -> None:
    """It returns the same result, so that processes end together."""
    state = RunState(1, True, None, [{"cycle": 0, "num_labeled": 2, "accuracy": 2.5}], "a.pt")
    assert one.start(engine=Engine(main=lambda value: state), cycles=1) == Outcome(2.5)
    assert one.assembled == []


def test_the_outcome_of_a_folder_without_a_metric_is_zero(one: Run) -> None:
    """A cell of the metric may be empty: the quantity does not exist."""
    row: Any = {"cycle": 0, "num_labeled": 2, "accuracy": None}
    state = RunState(1, True, None, [row], "a.pt")
    assert one.start(engine=Engine(main=lambda value: state), cycles=1) == Outcome(0.0)


# ---- the same bits


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set the threads that a start finds; those of the tests come back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_a_run_goes_on_with_the_threads_that_it_began_with(
    one: Run, threads: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A machine with other cores gives the same sums, bit for bit, and a line says so."""
    threads(3)
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(4,)))
    assert one.state["num_threads"] == 3
    threads(8)
    one.start()
    assert torch.get_num_threads() == one.state["num_threads"] == 3
    assert "going on with 3 threads, as before" in caplog.text


def test_a_run_that_does_not_know_its_threads_resumes(
    one: Run, threads: Callable[[int], None]
) -> None:
    """Runs of earlier versions take those of their next start, and keep them."""
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(4,)))
    state = one.state
    del state["num_threads"]
    (one.path / "state.json").write_text(json.dumps(state))
    threads(8)
    one.start()
    assert torch.get_num_threads() == one.state["num_threads"] == 8


def test_a_number_of_threads_that_is_set_counts(one: Run, threads: Callable[[int], None]) -> None:
    """In a run with people it may change between two batches, which the record follows."""
    threads(3)  # as `Engine.join` does
    with pytest.raises(OSError, match="no space"):
        one.start(Learner(Task(), fails=(4,)), num_threads=3)
    (one.path / "state.json").write_text(json.dumps({**one.state, "num_threads": 5}))
    one.start(num_threads=3)
    assert torch.get_num_threads() == one.state["num_threads"] == 3
