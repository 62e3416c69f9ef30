"""Annotators who answer through the API of Label Studio."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from experiments.annotation.label_studio_answers import Task
from experiments.annotation.label_studio_client import Client
from experiments.annotation.local_server import LocalServer
from experiments.annotation.run_view import open_run
from experiments.data.labels import Item, Label
from experiments.handoff import label_studio
from experiments.handoff.returned import upright_size
from tests import annotator


class Annotators:
    """People with accounts on the server, and the truth about the images."""

    def __init__(self, server: LocalServer, folder: Path, truth: Path) -> None:
        self.client = Client(server.url, server.key)
        self.folder, self.truth = folder, truth

    @property
    def project(self) -> int:
        """The run's project, once its journal has it."""
        file = self.folder / "label_studio" / "journal.json"
        number = json.loads(file.read_text())["project"] if file.exists() else None
        return int(number or 0)

    def tasks(self) -> list[Task]:
        """Return the tasks of the project."""
        return self.client.tasks(self.project) if self.project else []

    def names(self) -> list[str]:
        """Return the image of each task."""
        return [str(task.data["al_name"]) for task in self.tasks()]

    def next(self) -> Task | None:
        """Return the task that Label Studio gives an annotator next."""
        answer = json.loads(self.client._send("GET", f"/api/projects/{self.project}/next"))
        return Task(answer["id"], answer["data"])

    def label(self, name: str) -> Label:
        """Return the truth about an image."""
        run = open_run(self.folder)
        assert run.ledger is not None
        return annotator.look_up(self.truth, run.rules, run.root, [name], run.ledger.names)[name]

    def answer(self, task: Task, *, class_name: str | None = None, by: int | None = None) -> int:
        """Submit the truth, or another class, and return the number of the annotation.

        Args:
            task: The task.
            class_name: The class; None for the truth.
            by: Number of the annotator; None for the server's user.
        """
        content: dict[str, Any] = {"result": self._result(task, class_name)}
        if by is not None:
            content["completed_by"] = by
        path = f"/api/tasks/{task.id}/annotations/"
        return int(json.loads(self.client._send("POST", path, content))["id"])

    def _result(self, task: Task, class_name: str | None) -> list[dict[str, Any]]:
        run, name = open_run(self.folder), str(task.data["al_name"])
        label = self.label(name) if class_name is None else Label(class_name=class_name)
        item = Item(name, run.root / name, upright_size(run.root / name), draft=label)
        (written,) = label_studio.write([item], run.rules, image_url="-")
        result: list[dict[str, Any]] = written["predictions"][0]["result"]
        return result

    def begin(self, task: Task) -> None:
        """Save an annotation of the truth without submitting it, as the browser does by itself."""
        content = {"result": self._result(task, None)}
        self.client._send("POST", f"/api/tasks/{task.id}/drafts", content)

    def second(self) -> int:
        """Create a second annotator and return the number."""
        content = {"email": f"{uuid.uuid4().hex}@example.com", "username": uuid.uuid4().hex}
        return int(json.loads(self.client._send("POST", "/api/users/", content))["id"])

    def skip(self, task: Task) -> None:
        """Skip a task."""
        content = {"result": [], "was_cancelled": True}
        self.client._send("POST", f"/api/tasks/{task.id}/annotations/", content)

    def answer_open(self, *, at_most: int | None = None) -> int:
        """Answer what is open; return how many tasks that were."""
        open_ = [task for task in self.tasks() if not task.annotations][:at_most]
        for task in open_:
            self.answer(task)
        return len(open_)
