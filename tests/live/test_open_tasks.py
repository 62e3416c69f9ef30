"""Order and drafts of the open tasks of a real project; `make test-live`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.annotation.label_studio_answers import Task
from experiments.annotation.label_studio_project import OpenTasks, by_name, score_of
from experiments.annotation.local_server import LocalServer
from experiments.data.labels import Box, Item, Keypoint, Label, Rules
from experiments.handoff.label_studio import interface, write
from tests.live.observed import Observed

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]

CLASSES = ("cat", "dog")
CHANGES = r"/api/predictions/"
DRAFTS: dict[str, Callable[[int], Label]] = {
    "classification": lambda one: Label(class_name=CLASSES[one % 2], score=0.1 * one),
    "detection": lambda one: Label(boxes=(Box("dog", (one / 7, 2.5, 20.1, 17), score=0.5),)),
    "segmentation": lambda one: Label(mask=np.eye(20, 30, k=one, dtype=np.uint8)),
    "pose": lambda one: Label(keypoints=(Keypoint("cat", one / 3, 4.4, score=0.4),)),
}
"""A draft of each kind for each number."""


class Queue:
    """A project with the open tasks of images, which have numbers for names."""

    def __init__(self, client: Observed, kind: str) -> None:
        self.client, self._draft = client, DRAFTS[kind]
        self.rules = Rules(kind, CLASSES)
        config = interface(self.rules)
        self.project = client.create_project("open", label_config=config, description="").id

    def bring_about(self, drafts: dict[str, int | None]) -> int:
        """Bring about tasks in an order, with drafts; return how many drafts that changed."""
        wanted = [
            (place, self._item(name, number)) for place, (name, number) in enumerate(drafts.items())
        ]
        open_ = OpenTasks(self.client, self.project, self.rules, image_url="/{name}")
        tasks = self.tasks()
        self.client.sent.clear()
        open_.bring_about(wanted, {name: [task] for name, task in tasks.items()}, with_drafts=True)
        return self.client.count(CHANGES)

    def _item(self, name: str, number: int | None) -> Item:
        draft = None if number is None else self._draft(number)
        return Item(name, Path(name), (20, 30), draft=draft)

    def result(self, name: str, number: int | None) -> list[dict[str, Any]]:
        """Return a draft as Label Studio's regions or choices."""
        (task,) = write([self._item(name, number)], self.rules, image_url="-")
        result: list[dict[str, Any]] = task["predictions"][0]["result"]
        return result

    def ask_again(self, *names: str) -> None:
        """Create second tasks for images."""
        open_ = OpenTasks(self.client, self.project, self.rules, image_url="/{name}")
        open_.ask_again([self._item(name, 1) for name in names])

    def next(self) -> str:
        """Return the image of the task that an annotator is given next, and answer it."""
        path = f"/api/projects/{self.project}/next"
        task = json.loads(self.client._send("GET", path))
        content = {"result": self.result("x", 1)}
        self.client._send("POST", f"/api/tasks/{task['id']}/annotations/", content)
        return str(task["data"]["al_name"])

    def tasks(self) -> dict[str, Task]:
        """Return the tasks by the names of their images."""
        found = by_name(self.client.tasks(self.project))
        assert all(len(same) == 1 for same in found.values())
        return {name: same[0] for name, same in found.items()}


@pytest.mark.parametrize("kind", DRAFTS)
def test_open_tasks_get_new_drafts_and_places(server: LocalServer, kind: str) -> None:
    """One request for each task that differs, none for one that somebody has begun or done."""
    client = Observed(server)
    queue = Queue(client, kind)
    first: dict[str, int | None] = {"a": None, "b": 1, "c": 2, "d": 3, "e": 4}
    assert queue.bring_about(first) == 0  # drafts come with the tasks
    assert queue.bring_about(first) == 0  # what the server keeps is what it was given
    imported = queue.tasks()
    result: list[dict[str, Any]] = imported["b"].predictions[0].result
    client._send("POST", f"/api/tasks/{imported['b'].id}/drafts", {"result": result})
    client._send("POST", f"/api/tasks/{imported['c'].id}/annotations/", {"result": result})
    foreign = {"task": imported["d"].id, "result": [], "score": 0.5, "model_version": "another"}
    client.create_prediction(foreign)

    second: dict[str, int | None] = {"f": 9, "a": 5, "b": 6, "c": 7, "d": 3, "e": 8}
    assert queue.bring_about(second) == 3  # of a, d and e; f is new
    tasks = queue.tasks()
    for name in ("b", "c"):
        assert tasks[name].predictions == imported[name].predictions
    for place, name in ((0, "f"), (1, "a"), (4, "d"), (5, "e")):
        (own,) = (one for one in tasks[name].predictions if one.model_version != "another")
        assert own.model_version == "learning-loss"  # or the server neither shows nor orders it
        assert own.score == score_of(place)
        assert own.result == queue.result(name, second[name])
    (other,) = (one for one in tasks["d"].predictions if one.model_version == "another")
    assert (other.score, other.result) == (0.5, [])
    assert queue.bring_about(second) == 0


def test_second_tasks_come_first(server: LocalServer) -> None:
    """Images that are asked for again are served before all others, then the most wanted one."""
    queue = Queue(Observed(server), "classification")
    queue.bring_about({"a": 1, "b": 2, "c": 3})
    queue.ask_again("c", "b")
    assert [queue.next() for _ in range(4)] == ["c", "b", "a", "b"]
