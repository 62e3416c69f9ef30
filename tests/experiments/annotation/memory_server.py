"""Label Studio in memory: what a run sees of a server, without the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.annotation.label_studio_answers import (
    Annotation,
    NotThere,
    Prediction,
    Project,
    ServerDown,
    Task,
)
from experiments.annotation.label_studio_client import Client

ADDRESS = "http://127.0.0.1:9"


class MemoryServer(Client):
    """Projects and tasks; each change gives a task a new time.

    Attributes:
        kept: The projects.
        there: The tasks, all of one project.
        lost: Names of methods whose next answer is lost after the server has acted.
        lists: How often all tasks were listed.
        singles: Numbers of the tasks that were read one by one.
        hidden: Number of a task that the list of all tasks leaves out.
    """

    def __init__(self, count: int = 0) -> None:
        super().__init__(ADDRESS, "none")
        self.kept: dict[int, Project] = {}
        self.there: dict[int, Task] = {}
        self.lost: list[str] = []
        self.lists, self.singles, self.hidden = 0, list[int](), -1
        self._times: dict[int, str] = {}
        self._clock = self._number = 0
        for number in range(count):
            self._put(Task(number, {"al_name": str(number)}))

    def project(self, number: int) -> Project:
        if number not in self.kept:
            raise NotThere(f"no project {number}")
        return self.kept[number]

    def projects(self) -> list[Project]:
        return list(self.kept.values())

    def create_project(self, title: str, *, label_config: str, description: str) -> Project:
        self.kept[1] = Project(1, title, label_config, description)
        return self._answered("create_project", self.kept[1])

    def tasks(self, project: int) -> list[Task]:
        self.lists += 1
        return [task for number, task in self.there.items() if number != self.hidden]

    def changes(self, project: int) -> dict[int, str]:
        return dict(self._times)

    def task(self, number: int) -> Task:
        self.singles.append(number)
        if number not in self.there:
            raise NotThere(f"no task {number}")
        return self.there[number]

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> None:
        for one in tasks:
            drafts = [Prediction(self._new(), each["score"]) for each in one["predictions"]]
            self._put(Task(self._new(), one["data"], predictions=drafts))
        self._answered("import_tasks", None)

    def delete_task(self, number: int) -> None:
        del self.there[number], self._times[number]

    def upload(self, project: int, name: str, data: bytes) -> str:
        return self._answered("upload", f"/data/upload/{name}")

    def change_prediction(self, number: int, *, score: float) -> None:
        (task,) = [one for one in self.there.values() if one.predictions[0].id == number]
        self._put(replace(task, predictions=[Prediction(number, score)]))

    def annotate(self, number: int, class_name: str) -> None:
        """Add an annotation to a task."""
        task = self.there[number]
        result = [{"type": "choices", "value": {"choices": [class_name]}}]
        one = Annotation(self._new(), result, updated_at=f"{self._clock:06d}", completed_by=1)
        self._put(replace(task, annotations=[*task.annotations, one]))

    def queue(self) -> list[str]:
        """Return the images of the open tasks in the order in which annotators get them."""
        open_ = [task for task in self.there.values() if not task.annotations]
        return [task.data["al_name"] for task in sorted(open_, key=_score)]

    def of(self, name: str) -> list[int]:
        """Return the numbers of an image's tasks."""
        return [number for number, one in self.there.items() if one.data["al_name"] == name]

    def _put(self, task: Task) -> None:
        self._clock += 1
        self.there[task.id] = task
        self._times[task.id] = f"{self._clock:06d}"

    def _new(self) -> int:
        self._number += 1
        return 1000 + self._number

    def _answered(self, method: str, answer: Any) -> Any:
        if method in self.lost:
            self.lost.remove(method)
            raise ServerDown(f"{ADDRESS} does not answer: lost")
        return answer


def _score(task: Task) -> float:
    return float(task.predictions[0].score or 0)
