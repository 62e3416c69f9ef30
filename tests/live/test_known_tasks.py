"""Tasks of a real project, read again only where they have changed; `make test-live`."""

from __future__ import annotations

import pytest

from experiments.annotation import label_studio_client
from experiments.annotation.label_studio_answers import ServerDown
from experiments.annotation.label_studio_client import Client
from experiments.annotation.label_studio_tasks import KnownTasks
from experiments.annotation.local_server import LocalServer
from experiments.data.labels import Rules
from experiments.handoff.label_studio import interface
from tests.live.observed import Observed

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

SIZE = 12
CHANGES, LIST, ONE = "include=id", "fields=all", r"/api/tasks/\d+/$"
"""Requests for the times of all tasks, for a page of tasks, and for one task."""


def annotate(client: Client, number: int) -> None:
    """Choose a class for a task."""
    result = [{
        "from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": ["cat"]},
    }]  # fmt: skip
    client._send("POST", f"/api/tasks/{number}/annotations/", {"result": result})


def test_a_poll_reads_what_has_changed(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No task is read twice, missed or kept, also if pages shift or a reading fails."""
    client = Observed(server)
    config = interface(Rules("classification", ("cat", "dog")))
    project = client.create_project("known tasks", label_config=config, description="").id
    tasks = [{"data": {"al_name": str(one), "image": "/none.jpg"}} for one in range(SIZE)]
    client.import_tasks(project, tasks)
    known = KnownTasks(client, project)

    def read() -> tuple[list[int], int, int]:
        """Return the tasks with annotations, and how many lists and single tasks were read."""
        client.sent.clear()
        found = known.read()
        assert client.count(CHANGES) == 1
        answered = [task.id for task in found if task.annotations]
        return answered, client.count(LIST), client.count(ONE)

    assert read() == ([], 1, 0)
    assert read() == ([], 0, 0)
    numbers = sorted(task.id for task in known.read())
    assert len(numbers) == SIZE

    annotate(client, numbers[3])
    assert read() == ([numbers[3]], 0, 1)
    annotate(client, numbers[4])
    annotate(client, numbers[5])
    assert read() == (numbers[3:6], 1, 0)

    def down() -> None:
        raise ServerDown("the answer was lost")

    annotate(client, numbers[6])
    client.after = (ONE, down)
    with pytest.raises(ServerDown):
        known.read()
    assert read() == (numbers[3:7], 0, 1)

    # A task changes, and is deleted before it can be read.
    annotate(client, numbers[7])
    client.after = (CHANGES, lambda: client.delete_task(numbers[7]))
    assert read() == (numbers[3:7], 0, 2)
    left = [number for number in numbers if number != numbers[7]]
    assert sorted(task.id for task in known.read()) == left

    # A task of the first page is deleted after it was read, and one is on no page then.
    monkeypatch.setattr(label_studio_client, "PAGE", 4)
    client.after = (LIST, lambda: client.delete_task(left[0]))
    known = KnownTasks(client, project)
    client.sent.clear()
    assert set(left[1:]) <= {task.id for task in known.read()}
    assert client.count(ONE) == 2  # it and the request that deletes
    assert sorted(task.id for task in known.read()) == left[1:]
