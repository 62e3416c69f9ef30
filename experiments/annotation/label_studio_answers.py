"""Errors of Label Studio's client, and the part of the server's answers that is used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from al_core.errors import ActiveLearningError
from experiments.data.untrusted import Whole


class LabelStudioError(ActiveLearningError):
    """Label Studio refused a request or answered with something unexpected."""


class ServerDown(LabelStudioError):
    """The server cannot be reached, or reports a failure that may pass."""


class WrongToken(LabelStudioError):
    """The server does not accept the token."""


class NotThere(LabelStudioError):
    """The project or task does not exist, or the token's user may not see it."""


class WrongVersion(LabelStudioError):
    """The server is no Label Studio, or an old one."""


@dataclass(frozen=True)
class Project:
    """The part of a project that is used.

    Attributes:
        id: Its number.
        title: Its title.
        label_config: Its labeling interface, XML.
        description: Its description; null in some answers.
        task_number: Number of its tasks.
    """

    id: Whole
    title: str
    label_config: str | None = None
    description: str | None = None
    task_number: int | None = None


def _number(person: Any) -> Any:
    """Return the number of a person, who is a number in lists and an object in a single task."""
    return person.get("id") if isinstance(person, dict) else person


@dataclass(frozen=True)
class Annotation:
    """An annotation of a task.

    Attributes:
        id: Its number.
        result: Its regions or choices.
        was_cancelled: Whether the task was skipped.
        updated_at: Time of its last change, ISO 8601 in UTC.
        completed_by: Number of the annotator.
    """

    id: Whole
    result: list[dict[str, Any]] = field(default_factory=list)
    was_cancelled: bool = False
    updated_at: str = ""
    completed_by: Annotated[Any, BeforeValidator(_number)] = None


@dataclass(frozen=True)
class Prediction:
    """A draft of a task; `score` orders the queue."""

    id: Whole
    score: float | None = None
    result: list[dict[str, Any]] = field(default_factory=list)
    model_version: str | None = None


@dataclass(frozen=True)
class Task:
    """A task with all that belongs to it."""

    id: Whole
    data: dict[str, Any]
    annotations: list[Annotation] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)


@dataclass(frozen=True)
class Tasks:
    """A page of tasks."""

    tasks: list[Task]
    total: Whole


@dataclass(frozen=True)
class Change:
    """The time at which a task, its annotations or its predictions changed last, ISO 8601."""

    id: Whole
    updated_at: str


@dataclass(frozen=True)
class Changes:
    """A page of changes."""

    tasks: list[Change]
    total: Whole


@dataclass(frozen=True)
class Projects:
    """A page of projects."""

    results: list[Project]
    next: str | None = None


@dataclass(frozen=True)
class Imported:
    """Numbers of the files of an import."""

    file_upload_ids: list[Whole] = field(default_factory=list)


@dataclass(frozen=True)
class Upload:
    """An uploaded file; `file` is its path on the server."""

    id: Whole
    file: str


@dataclass(frozen=True)
class Version:
    """The release of the server."""

    release: str


@dataclass(frozen=True)
class Access:
    """A short-lived token."""

    access: str


PROJECT, PROJECTS = TypeAdapter(Project), TypeAdapter(Projects)
TASK, TASKS, CHANGES = TypeAdapter(Task), TypeAdapter(Tasks), TypeAdapter(Changes)
IMPORTED, UPLOADS = TypeAdapter(Imported), TypeAdapter(list[Upload])
VERSION, ACCESS = TypeAdapter(Version), TypeAdapter(Access)
