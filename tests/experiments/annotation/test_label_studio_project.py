"""Label Studio as the oracle: the journal, the interface, and annotations on their way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from al_core.errors import ActiveLearningError, InvalidSetting
from experiments.annotation.label_studio_answers import Annotation, NotThere, Project, Task
from experiments.annotation.label_studio_client import Client
from experiments.annotation.label_studio_oracle import Courier
from experiments.annotation.label_studio_project import (
    Journal,
    by_name,
    check_interface,
    score_of,
    surplus,
)
from experiments.annotation.run_view import AskingRun, open_run
from experiments.annotation.settings import LabelStudioSettings
from experiments.data.labels import Rules, UnusableFile
from experiments.engine.locks import hold
from experiments.handoff.label_studio import interface
from experiments.runs.binding import permitted_changes
from tests.experiments.team import Team

RULES = {
    kind: Rules(kind, ("cat", "a & <b>"))
    for kind in ("classification", "detection", "segmentation")
}


def test_a_journal_is_there_before_its_project(tmp_path: Path) -> None:
    """The mark is on disk as soon as it can be used, and does not change."""
    file = tmp_path / "label_studio" / "journal.json"
    mark = Journal.read(file).mark
    journal = Journal.read(file)
    assert journal.mark == mark
    journal.project, journal.tasks = 7, {"ü/a.png": 3}
    journal.save(file)
    assert Journal.read(file) == journal


@pytest.mark.parametrize("content", ["", "[]", '{"mark": 1}', '{"mark": "a", "tasks": {"a": "b"}}'])
def test_a_damaged_journal_is_one_line(tmp_path: Path, content: str) -> None:
    """The line names the file."""
    file = tmp_path / "journal.json"
    file.write_text(content)
    with pytest.raises(UnusableFile, match=r"journal\.json cannot be read"):
        Journal.read(file)


def test_tasks_are_recognized_by_their_images() -> None:
    """Doubles of an image are found, the oldest first; tasks of other people are left alone."""
    tasks = [
        Task(3, {"al_name": "a"}), Task(1, {"al_name": "a"}), Task(2, {"image": "b"}),
        Task(4, {"al_name": 5}),
    ]  # fmt: skip
    assert {name: [one.id for one in same] for name, same in by_name(tasks).items()} == {
        "a": [1, 3]
    }


def test_doubles_are_surplus_unless_they_are_annotated() -> None:
    """The older of two empty tasks of an image stays, and an annotated one always does."""
    older, newer, done = Task(1, {}), Task(2, {}), answered(3, "a", (1, "01", "cat"))
    assert surplus([older]) == []
    assert surplus([older, newer]) == [newer]
    assert surplus([older, newer, done]) == [older, newer]
    assert surplus([done, replace(done, id=4)]) == []


def test_scores_follow_the_order() -> None:
    """Label Studio serves the lowest score first, so scores rise with the place, and below 1."""
    scores = [score_of(place) for place in range(100_000)]
    assert all(one < other for one, other in pairwise(scores))
    assert scores[0] == 0
    assert scores[-1] < 1


@pytest.mark.parametrize("kind", RULES)
def test_an_interface_must_have_every_class(kind: str) -> None:
    """The interface that the project makes passes; without a class or the control it does not."""
    rules = RULES[kind]
    project = Project(5, "x", label_config=interface(rules))
    check_interface(project, rules)
    check_interface(project, replace(rules, class_names=("cat",)))
    with pytest.raises(InvalidSetting, match="project 5 lacks the class dog"):
        check_interface(project, replace(rules, class_names=("cat", "dog")))
    for config in (None, "<View/>", interface(rules).replace('name="label"', 'name="other"')):
        with pytest.raises(InvalidSetting, match="the labeling interface of project 5 has no <"):
            check_interface(Project(5, "x", label_config=config), rules)
    with pytest.raises(InvalidSetting, match="the labeling interface of the project"):
        check_interface(Project(5, "x", label_config="<View>"), rules)


def answered(number: int, name: str, *given: tuple[int, str, str]) -> Task:
    """Return a task with annotations: number, time, class."""
    annotations = [
        Annotation(
            one,
            [{"type": "choices", "value": {"choices": [word]}}],
            updated_at=f"2026-01-01T00:{minute}:00Z",
            completed_by=one,
        )
        for one, minute, word in given
    ]
    return Task(number, {"al_name": name, "name": name}, annotations)


@pytest.fixture
def waiting(team: Team) -> tuple[AskingRun, Courier]:
    """A run that waits for batch 0, and its exchange, whose server is never called."""
    team.wait()
    client = Client("http://127.0.0.1:9", "none")
    settings = LabelStudioSettings(url="http://127.0.0.1:9")
    return open_run(team.run), Courier(settings, client, folder=team.run, title="x")


def collect(run: AskingRun, courier: Courier, tasks: Sequence[Task]) -> dict[str, set[str]]:
    """Collect annotations; return the images in each file that came back."""
    courier._collect(run, 1, by_name(tasks))
    return {
        path.name[-7:-5]: {task["data"]["al_name"] for task in json.loads(path.read_text())}
        for path in sorted((run.folder / "returned").glob("*.json"))
    }


def test_a_batch_file_has_what_is_new(
    waiting: tuple[AskingRun, Courier], monkeypatch: pytest.MonkeyPatch, team: Team
) -> None:
    """An annotation is in the file of the batch in which it came or was edited, the newest only."""
    run, courier = waiting
    one, two, three = run.request().train[:3]
    first = [answered(1, one, (1, "01", "bars")), answered(2, two, (2, "02", "rows"))]
    assert collect(run, courier, [*first, Task(3, {"al_name": three})]) == {"00": {one, two}}
    assert courier._answers(run) == {one, two}
    file = next((run.folder / "returned").glob("*.json"))
    before = file.stat().st_mtime_ns
    collect(run, courier, [*first, Task(3, {"al_name": three})])
    assert file.stat().st_mtime_ns == before

    later = replace(run.request(), cycle=1)
    monkeypatch.setattr(AskingRun, "request", lambda self, batch=None: later)
    edited = answered(1, one, (1, "01", "bars"), (9, "09", "lines"))
    tasks = [edited, first[1], answered(3, three, (4, "04", "rows"))]
    assert collect(run, courier, tasks) == {"00": {one, two}, "01": {one, three}}
    monkeypatch.undo()
    assert open_run(team.run).ledger is not None
    team.wait("oracle.partial=false")
    assert team.ledger().answers[one].class_name == "lines"
    assert team.ledger().answers[two].class_name == "rows"


def test_several_annotators_are_noted_once(
    waiting: tuple[AskingRun, Courier], caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the image and says which annotation counts."""
    run, courier = waiting
    name = run.request().train[0]
    for _ in range(2):
        collect(run, courier, [answered(1, name, (1, "01", "bars"), (2, "02", "rows"))])
    assert caplog.text.count(f"{name}: 2 people have annotated it; the newest counts") == 1


def test_a_run_has_one_exchange_at_a_time(team: Team, waiting: tuple[AskingRun, Courier]) -> None:
    """A second start of a run that waits is refused, while `status` can still read the run."""
    lock = hold(team.run / "label_studio", otherwise="")
    try:
        assert not open_run(team.run).is_running
        with pytest.raises(ActiveLearningError, match="in use by another process"):
            waiting[1].bring_back()
    finally:
        lock.release()


@pytest.mark.parametrize(("times", "ends"), [(0, False), (2, False), (3, True)])
def test_what_is_deleted_meanwhile_is_looked_for_again(
    team: Team, monkeypatch: pytest.MonkeyPatch, times: int, ends: bool
) -> None:
    """A task or project that is gone since it was listed: the next round finds out what is left."""
    team.wait()
    pauses: list[float] = []
    settings = LabelStudioSettings(url="http://127.0.0.1:9")
    client = Client("http://127.0.0.1:9", "none")
    courier = Courier(settings, client, folder=team.run, title="x", sleep=pauses.append)
    rounds = iter([NotThere("no task")] * times)

    def exchange(*_: object) -> bool:
        for error in rounds:
            raise error
        return True

    monkeypatch.setattr(courier, "_exchange", exchange)
    with pytest.raises(NotThere) if ends else nullcontext():
        courier.bring_back()
    assert pauses == [settings.poll_seconds] * min(times, 2)


def test_a_run_keeps_its_oracle(team: Team, waiting: tuple[AskingRun, Courier]) -> None:
    """A run that people answer in folders does not become one of Label Studio."""
    before = waiting[0].config
    live = {**before, "oracle": {"name": "label_studio"}}
    with pytest.raises(InvalidSetting, match="oracle: people -> label_studio"):
        permitted_changes(team.run, live, cycles_done=1)
    (team.run / "config.yaml").write_text(json.dumps(live))
    more = {**live, "cycles": before["cycles"] + 1, "seed": before["seed"]}
    assert [one.key for one in permitted_changes(team.run, more, cycles_done=1)] == ["cycles"]


def test_open_images_are_wanted_in_order(waiting: tuple[AskingRun, Courier]) -> None:
    """Places are those in the batch, so that an answer moves nothing; gone images are left out."""
    run, courier = waiting
    names = run.request().queue
    gone = names[4]
    (run.root / gone).unlink()
    wanted = courier._wanted(run, {names[0], names[2]})
    assert [(place, item.name) for place, item in wanted] == [
        (place, name) for place, name in enumerate(names) if place not in (0, 2, 4)
    ]
