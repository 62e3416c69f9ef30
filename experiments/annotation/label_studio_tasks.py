"""The tasks of a project, read again only where they have changed.

Label Studio 1.23.2 needs 20 to 40 ms for each task that it lists with its annotations, and a tenth
of that for its number and the time of its last change. This time changes with the task's
annotations and predictions, whether they are added, edited or deleted.
"""

from __future__ import annotations

import time

from experiments.annotation.label_studio_answers import NotThere, Task
from experiments.annotation.label_studio_client import Client

SHARE = 0.1
"""Share of changed tasks above which all are listed: one task by itself costs ten in a list."""


class KnownTasks:
    """The tasks of a project, as they were when they were last read.

    Args:
        client: The server.
        project: Number of the project.

    Attributes:
        listing_s: Seconds that the server needed to list the changes, the last time.
    """

    def __init__(self, client: Client, project: int) -> None:
        self._client, self.project = client, project
        self.listing_s = 0.0
        self._changes: dict[int, str] = {}
        self._tasks: dict[int, Task] = {}

    def read(self) -> list[Task]:
        """Return every task, with annotations and predictions.

        Raises:
            LabelStudioError: The server refuses, or cannot be reached.
        """
        # Times come first, so that a task that changes while it is read is read again.
        began = time.monotonic()
        changes = self._client.changes(self.project)
        self.listing_s = time.monotonic() - began
        stale = [number for number, at in changes.items() if self._changes.get(number) != at]
        if len(stale) > SHARE * len(changes):
            read = {task.id: task for task in self._client.tasks(self.project)}
            self._tasks.update(read)
            # Pages shift when a task is deleted, and then one may be missing from the list.
            stale = [number for number in changes if number not in read]
        for number in stale:
            try:
                self._tasks[number] = self._client.task(number)
            except NotThere:
                del changes[number]
        self._tasks = {number: self._tasks[number] for number in changes}
        self._changes = changes
        return list(self._tasks.values())
