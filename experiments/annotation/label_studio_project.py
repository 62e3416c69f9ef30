"""The project of a run in Label Studio: create or join it, and keep its open tasks in order.

A task is recognized by `al_name` in its data, the name of its image, so that a process that is
killed between an import and its journal neither loses nor doubles one. The journal, in
`label_studio/journal.json` of the run folder, has the mark by which the run finds its project
again, and the tasks that are known to exist, so that a deleted one is noticed.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
from pydantic import TypeAdapter

from al_core.errors import InvalidSetting
from al_core.files import atomic_write
from experiments.annotation.label_studio_answers import (
    LabelStudioError,
    NotThere,
    Prediction,
    Project,
    Task,
)
from experiments.annotation.label_studio_client import Client
from experiments.annotation.settings import UPLOAD
from experiments.data.decoding import UnreadableImage, read_rgb
from experiments.data.labels import Item, Rules, UnusableFile
from experiments.data.untrusted import checked, parse_json, parse_xml, read_untrusted
from experiments.handoff.label_studio import CONTROLS, FROM, TO, interface, write
from experiments.settings.wording import counted, listed

logger = logging.getLogger(__name__)

NAME = "al_name"
"""Key of a task's data: the name of its image."""
SHOWN = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp")
"""Formats that every browser shows and Label Studio takes; others are uploaded as PNG."""
CHUNK = 20
"""Tasks in one import; a killed process has uploaded at most as many images in vain."""
MODEL_VERSION = "learning-loss"
"""The same for all networks: the server shows and orders the drafts of a project's one version."""
AGAIN = -1.0
"""Added to the scores of tasks that ask again: they are served before all others."""


@dataclass
class Journal:
    """The record of a project in the run folder; it has no token.

    Attributes:
        mark: Text in the description of the project that the run created.
        project: Number of the project; None before it is known.
        tasks: Number of the task of each image.
    """

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    project: int | None = None
    tasks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Journal:
        """Read the journal, or begin and write one.

        Raises:
            UnusableFile: It is damaged.
        """
        if file.exists():
            try:
                return checked(_JOURNAL, parse_json(file.read_bytes()))
            except UnusableFile as error:
                raise UnusableFile(f"{file} cannot be read: {error}") from None
        journal = cls()
        journal.save(file)  # before there is a project with this mark
        return journal

    def save(self, file: Path) -> None:
        """Write the journal."""
        with atomic_write(file) as written:
            json.dump(asdict(self), written, ensure_ascii=False)


_JOURNAL = TypeAdapter(Journal)


def join(
    client: Client, journal: Journal, rules: Rules, *, wanted: int | str | None, title: str
) -> Project:
    """Return the project of a run; create it if there is none.

    Args:
        client: The server.
        journal: Has the mark of a project that this run created.
        rules: Classes and task, for the labeling interface.
        wanted: Number or title of a project; None for one of the run's own.
        title: Title of the run's own.

    Raises:
        InvalidSetting: It was deleted, several have the title, or it does not fit the classes.
        LabelStudioError: The server refuses.
    """
    found = _find(client, journal, wanted)
    if found is None:
        return client.create_project(
            wanted if isinstance(wanted, str) else title,
            label_config=interface(rules),
            description=f"Created by a run of learning-loss ({journal.mark})",
        )
    if not found.task_number and not _controls(found.label_config):
        client.change_project(
            found.id, {"label_config": interface(rules), "sampling": "Uncertainty sampling"}
        )
        return client.project(found.id)
    check_interface(found, rules)
    return found


def _find(client: Client, journal: Journal, wanted: int | str | None) -> Project | None:
    if isinstance(wanted, int):
        try:
            return client.project(wanted)
        except NotThere:
            raise InvalidSetting(
                f"oracle.project={wanted}: {client.url} has no such project, or the token's user "
                "may not see it"
            ) from None
    projects = client.projects()
    if isinstance(wanted, str):
        same = [one for one in projects if one.title == wanted]
        if len(same) > 1:
            numbers = ", ".join(str(one.id) for one in same)
            raise InvalidSetting(
                f"oracle.project={wanted}: projects {numbers} have this title, give the number"
            )
    else:
        same = [one for one in projects if journal.mark in (one.description or "")]
        if not same and journal.project is not None:
            raise InvalidSetting(
                f"project {journal.project} of this run is gone from {client.url}, or its "
                "description was replaced: name the project to use in its place, "
                "oracle.project=NUMBER"
            )
    return client.project(same[0].id) if same else None


def _controls(label_config: str | None) -> dict[tuple[str, str, str], set[str]]:
    """Return the values of each control, by its tag, its name and the name of its object."""
    try:
        root = parse_xml((label_config or "<View/>").encode())
    except UnusableFile as error:
        raise InvalidSetting(f"the labeling interface of the project: {error}") from None
    return {
        (one.tag, one.get("name", ""), one.get("toName", "")): {
            str(entry.get("value")) for entry in one.iter() if entry.get("value") is not None
        }
        for one in root.iter()
        if one.get("toName")
    }


def check_interface(project: Project, rules: Rules) -> None:
    """Refuse a labeling interface in which people could not choose every class.

    Raises:
        InvalidSetting: The text has what is missing.
    """
    tag = CONTROLS[rules.kind][0]
    values = _controls(project.label_config).get((tag, FROM, TO))
    if values is None:
        raise InvalidSetting(
            f'the labeling interface of project {project.id} has no <{tag} name="{FROM}" '
            f'toName="{TO}">: take that of label_studio.xml (oracle.formats=[label_studio])'
        )
    missing = [name for name in rules.class_names if name not in values]
    if missing:
        raise InvalidSetting(
            f"the labeling interface of project {project.id} lacks the "
            f"{'class' if len(missing) == 1 else 'classes'} {', '.join(missing)}: add what is "
            f"missing to its <{tag}>"
        )


def by_name(tasks: Sequence[Task]) -> dict[str, list[Task]]:
    """Group the tasks that runs have made by the names of their images, the oldest first."""
    found: dict[str, list[Task]] = {}
    for task in sorted(tasks, key=lambda one: one.id):
        name = task.data.get(NAME)
        if isinstance(name, str):
            found.setdefault(name, []).append(task)
    return found


def surplus(same: Sequence[Task]) -> list[Task]:
    """Return the tasks of one image that an import made twice, never an annotated one.

    The oldest one stays where nobody has annotated any.

    Args:
        same: The tasks of the image, the oldest first.
    """
    empty = [task for task in same if not task.annotations]
    return empty if len(empty) < len(same) else empty[1:]


class OpenTasks:
    """The tasks that people are to do, in the order in which they are wanted, with drafts.

    Args:
        client: The server.
        project: Number of the project.
        rules: Classes and task.
        image_url: "upload", or the address of an image with {name} in it.
    """

    def __init__(self, client: Client, project: int, rules: Rules, *, image_url: str) -> None:
        self._client, self._project, self._rules = client, project, rules
        self._image_url = image_url
        self._unreadable: set[str] = set()

    def bring_about(
        self,
        wanted: Sequence[tuple[int, Item]],
        tasks: Mapping[str, Sequence[Task]],
        *,
        with_drafts: bool,
    ) -> bool:
        """Import missing tasks, remove doubles, put the open ones into order and renew drafts.

        A task that somebody has begun keeps its place and its draft.

        Args:
            wanted: Places in the order of the batch, with the images that have no answer yet.
            tasks: The tasks of the project by the names of their images.
            with_drafts: Whether the drafts of tasks that exist are compared, which takes a moment
                for each mask.

        Returns:
            Whether tasks were imported, so that `tasks` is out of date.

        Raises:
            LabelStudioError: The server refuses, or cannot be reached.
        """
        for _, item in wanted:
            for task in surplus(tasks.get(item.name, ())):
                self._client.delete_task(task.id)
        new = [
            (place, item)
            for place, item in wanted
            if item.name not in tasks and item.name not in self._unreadable
        ]
        for start in range(0, len(new), CHUNK):
            part = list(self._tasks(new[start : start + CHUNK]))
            if part:
                self._client.import_tasks(self._project, part)
            if len(new) > CHUNK:
                logger.info(
                    "label studio: %d of %s uploaded",
                    min(start + CHUNK, len(new)), counted(len(new), "image"),
                )  # fmt: skip
        self._renew(wanted, tasks, with_drafts=with_drafts)
        return bool(new)

    def ask_again(self, items: Sequence[Item]) -> None:
        """Create further tasks for images that have some, the first item to be served first.

        Raises:
            LabelStudioError: The server refuses, or cannot be reached.
        """
        for start in range(0, len(items), CHUNK):
            part = list(enumerate(items))[start : start + CHUNK]
            tasks = list(self._tasks(part, shift=AGAIN))
            if tasks:
                self._client.import_tasks(self._project, tasks)

    def _renew(
        self,
        wanted: Sequence[tuple[int, Item]],
        tasks: Mapping[str, Sequence[Task]],
        *,
        with_drafts: bool,
    ) -> None:
        changed = list(self._outdated(wanted, tasks, with_drafts=with_drafts))
        # Asked for after the tasks, so that whoever has begun meanwhile is among them.
        begun = self._client.begun(self._project) if changed else set()
        for task, content in changed:
            if task.id in begun:
                continue
            for prediction in _own(task):
                self._client.change_prediction(prediction.id, {"task": task.id, **content})
            if not _own(task):
                self._client.create_prediction(
                    {"task": task.id, "model_version": MODEL_VERSION, **content}
                )

    def _outdated(
        self,
        wanted: Sequence[tuple[int, Item]],
        tasks: Mapping[str, Sequence[Task]],
        *,
        with_drafts: bool,
    ) -> Iterator[tuple[Task, dict[str, Any]]]:
        """Yield open tasks that have another place or draft, with the right ones."""
        for place, item in wanted:
            for task in tasks.get(item.name, ())[:1]:
                own = _own(task)
                content: dict[str, Any] = {"score": score_of(place)}
                if with_drafts or not own:
                    (written,) = write([item], self._rules, image_url=self._image_url)
                    content["result"] = _result(written)
                is_right = own and all(
                    getattr(one, key) == value for one in own for key, value in content.items()
                )
                if not task.annotations and not is_right:
                    yield task, content

    def _tasks(
        self, chosen: Sequence[tuple[int, Item]], *, shift: float = 0.0
    ) -> Iterator[dict[str, Any]]:
        problems = []
        for place, item in chosen:
            try:
                address = self._address(item)
            except (UnusableFile, UnreadableImage, OSError) as error:
                self._unreadable.add(item.name)
                problems.append(f"{item.name}: {error}")
                continue
            (task,) = write([item], self._rules, image_url=self._image_url)
            task["data"] |= {NAME: item.name, "image": address or task["data"]["image"]}
            score, result = score_of(place) + shift, _result(task)
            task["predictions"] = [
                {"model_version": MODEL_VERSION, "score": score, "result": result}
            ]
            yield task
        if problems:
            logger.warning("images that cannot be uploaded:\n%s", listed(problems))

    def _address(self, item: Item) -> str | None:
        """Upload an image and return its address; None where images have one of their own."""
        if self._image_url != UPLOAD:
            return None
        path, name = item.path, item.name
        if path.suffix.lower() in SHOWN:
            return self._client.upload(self._project, name, read_untrusted(path))
        done, data = cv2.imencode(".png", cv2.cvtColor(read_rgb(path), cv2.COLOR_RGB2BGR))
        if not done:
            raise LabelStudioError(f"{name} cannot be written as PNG")
        return self._client.upload(self._project, f"{name}.png", data.tobytes())


def _own(task: Task) -> list[Prediction]:
    """Return the drafts of runs; a server may have models of its own."""
    return [one for one in task.predictions if one.model_version == MODEL_VERSION]


def _result(written: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the draft in a task that is to be imported; empty where the model has none."""
    return [part for draft in written.get("predictions", ()) for part in draft["result"]]


def score_of(place: int) -> float:
    """Return the score of a prediction; Label Studio serves the lowest first.

    It depends on the place alone, so that an answer changes no other score; a double tells ten
    million places apart.
    """
    return round(1 - 1000 / (1000 + place), 9)
