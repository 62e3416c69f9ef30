"""The exchange with Label Studio, with a server in memory; tests/live has the real one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from experiments.annotation.label_studio_oracle import Courier
from experiments.annotation.label_studio_project import OpenTasks, by_name
from experiments.annotation.run_view import AskingRun, open_run
from experiments.annotation.settings import LabelStudioSettings
from experiments.data.labels import Item
from tests.experiments.annotation.memory_server import ADDRESS, MemoryServer
from tests.experiments.team import INITIAL, TEST, Team


@pytest.fixture
def server() -> MemoryServer:
    """A server without a project."""
    return MemoryServer()


def bring_back(team: Team, server: MemoryServer, *steps: Callable[[], None]) -> Courier:
    """Let a run that waits exchange until it has what it needs, with a step between two polls."""
    left = list(steps)

    def sleep(_: float) -> None:
        assert left, "the run waits for more than was to happen"
        left.pop(0)()

    settings = LabelStudioSettings(url=ADDRESS)
    courier = Courier(settings, server, folder=team.run, title="birds", sleep=sleep)
    courier.bring_back()
    assert not left
    return courier


def answer_all(team: Team, server: MemoryServer) -> None:
    """Answer every open task with the truth."""
    truth = team.labels()
    for number, task in list(server.there.items()):
        if not task.annotations:
            server.annotate(number, truth[task.data["al_name"]])


def test_a_batch_comes_back(team: Team, server: MemoryServer) -> None:
    """One task an image, the most wanted first; with all answers the run has its labels."""
    team.wait()
    seen: list[list[str]] = []

    def answer() -> None:
        seen.append(server.queue())
        answer_all(team, server)

    bring_back(team, server, answer)
    assert seen == [list(open_run(team.run).request().names)]
    assert server.kept[1].title == "birds"
    team.wait()
    assert team.curve() == [str(INITIAL)]


@pytest.mark.parametrize("method", ["create_project", "upload", "import_tasks"])
def test_a_lost_answer_doubles_nothing(
    team: Team, server: MemoryServer, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server has acted and its answer is lost: the next poll finds what is there."""
    team.wait()
    server.lost.append(method)
    bring_back(team, server, lambda: None, lambda: answer_all(team, server))
    assert "does not answer" in caplog.text
    assert "answers again" in caplog.text
    names = [task.data["al_name"] for task in server.there.values()]
    assert sorted(names) == sorted(open_run(team.run).request().names)


def test_a_deleted_task_is_uploaded_again(
    team: Team, server: MemoryServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Also if it had an answer that no training has used."""
    team.wait()
    name = open_run(team.run).request().names[0]

    def delete() -> None:
        server.annotate(server.of(name)[0], "bars")
        server.delete_task(server.of(name)[0])

    bring_back(team, server, delete, lambda: answer_all(team, server))
    assert "1 task deleted in Label Studio, uploaded again" in caplog.text
    assert len(server.of(name)) == 1
    assert len(server.there) == INITIAL + TEST


def test_doubles_are_removed_unless_they_are_answered(team: Team, server: MemoryServer) -> None:
    """The older of two empty tasks of an image stays, and an answered one always does."""
    run = asking(team)
    names = run.request().names
    wanted = items(run)
    open_tasks(run, server).bring_about(wanted, {})
    server.import_tasks(1, [_again(server, names[0]), _again(server, names[1])])
    kept = server.of(names[0])[0]
    server.annotate(server.of(names[1])[1], "bars")
    answered = server.of(names[1])[1]
    open_tasks(run, server).bring_about(wanted, by_name(server.tasks(1)))
    assert (server.of(names[0]), server.of(names[1])) == ([kept], [answered])


def test_open_tasks_are_put_into_a_new_order(team: Team, server: MemoryServer) -> None:
    """Tasks that stay open go behind those that are wanted more now."""
    run = asking(team)
    names = [item.name for _, item in items(run)]
    open_tasks(run, server).bring_about(items(run), {})
    assert server.queue() == names
    turned = [(len(names) - place, item) for place, item in items(run)]
    assert not open_tasks(run, server).bring_about(turned, by_name(server.tasks(1)))
    assert server.queue() == names[::-1]


def test_what_the_run_has_is_on_disk(team: Team, server: MemoryServer) -> None:
    """An exchange that was ended at a poll is taken up by another, which uploads nothing again."""
    team.wait()

    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    with pytest.raises(Ended):
        bring_back(team, server, end)
    before = list(server.there)
    answer_all(team, server)
    bring_back(team, server)
    assert list(server.there) == before


def asking(team: Team) -> AskingRun:
    """Return a run that waits for batch 0."""
    team.wait()
    return open_run(team.run)


def items(run: AskingRun) -> list[tuple[int, Item]]:
    """Return the images of batch 0 with their places."""
    assert run.ledger is not None
    return list(enumerate(run.ledger.items(run.request(), run.root, run.rules)))


def open_tasks(run: AskingRun, server: MemoryServer) -> OpenTasks:
    """Return the open tasks of a project."""
    return OpenTasks(server, 1, run.rules, image_url="upload")


def _again(server: MemoryServer, name: str) -> dict[str, Any]:
    (number,) = server.of(name)
    return {"data": server.there[number].data, "predictions": [{"score": 0.5}]}
