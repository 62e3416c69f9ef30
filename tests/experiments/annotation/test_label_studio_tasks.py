"""The tasks of a project, read again only where they have changed."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from experiments.annotation.label_studio_answers import Annotation, ServerDown, Task
from experiments.annotation.label_studio_tasks import KnownTasks
from tests.experiments.annotation.memory_server import MemoryServer


def test_a_poll_reads_what_has_changed() -> None:
    """The first reading lists all tasks; later ones read single tasks, or none, and see all."""
    server = MemoryServer(50)
    known = KnownTasks(server, 1)
    assert known.read() == list(server.there.values())
    assert known.read() == list(server.there.values())
    assert (server.lists, server.singles) == (1, [])
    server.annotate(7, "cat")
    assert known.read() == list(server.there.values())
    assert (server.lists, server.singles) == (1, [7])


def test_many_changes_are_listed() -> None:
    """More than a tenth of the tasks are read in pages, which is cheaper."""
    server = MemoryServer(50)
    known = KnownTasks(server, 1)
    known.read()
    for number in range(6):
        server.annotate(number, "cat")
    assert known.read() == list(server.there.values())
    assert (server.lists, server.singles) == (2, [])


def test_deleted_tasks_are_gone() -> None:
    """A task is left out if it is not listed, and if it vanishes before it is read."""
    server = MemoryServer(50)
    known = KnownTasks(server, 1)
    known.read()
    server.delete_task(3)
    server.annotate(4, "cat")
    del server.there[4]
    assert [task.id for task in known.read()] == [n for n in range(50) if n not in (3, 4)]


def test_a_task_that_a_page_skipped_is_read() -> None:
    """Pages shift while tasks are deleted; a task that exists is never taken for a deleted one."""
    server = MemoryServer(50)
    server.hidden = 20
    assert len(KnownTasks(server, 1).read()) == 50
    assert server.singles == [20]


def test_a_failed_reading_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that changed before the server failed are read the next time."""
    server = MemoryServer(50)
    known = KnownTasks(server, 1)
    known.read()
    server.annotate(7, "cat")

    def down(number: int) -> Task:
        raise ServerDown("down")

    with monkeypatch.context() as patch:
        patch.setattr(server, "task", down)
        with pytest.raises(ServerDown):
            known.read()
    assert known.read()[7].annotations


def test_an_annotator_is_a_number() -> None:
    """A list has the annotator's number, a single task an object, and both are the same answer."""
    adapter = TypeAdapter(Annotation)
    in_list = adapter.validate_python({"id": 1, "completed_by": 5})
    assert in_list == adapter.validate_python({"id": 1, "completed_by": {"id": 5, "email": "x"}})
