"""Exchange between a run folder and a server of Label Studio, while the run waits for annotations.

The exchange reads the newest request of the run folder, sees to it that the project has a task for
each of its images, and writes the annotations that come back into `returned`, as an export of Label
Studio. From there on all rules of people as the oracle apply unchanged. It holds nothing in memory
that it could not find out again, so it may be killed at any moment.

Each batch has one file of annotations. It has the tasks whose newest annotation is not yet in the
file of an earlier batch, so an annotation that is edited later counts as a newer one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from al_core.files import atomic_write
from experiments.annotation.inbox import read_returned
from experiments.annotation.label_studio_answers import Annotation, NotThere, ServerDown, Task
from experiments.annotation.label_studio_client import Client
from experiments.annotation.label_studio_project import NAME, Journal, OpenTasks, by_name, join
from experiments.annotation.label_studio_tasks import KnownTasks
from experiments.annotation.records import Request
from experiments.annotation.run_view import EXCHANGE, AskingRun, open_run
from experiments.annotation.settings import LabelStudioSettings
from experiments.data.labels import Item
from experiments.data.untrusted import checked, parse_json
from experiments.engine.locks import hold
from experiments.settings.wording import counted, listed

logger = logging.getLogger(__name__)

LONGEST_SHARE = 5
"""The pause is so many times what listing the changes takes, so that a large project is not kept
busy by polls."""
MAX_MISSED = 3
"""Rounds in succession in which something that was listed may be missing."""
_TASKS = TypeAdapter(list[Task])


class Courier:
    """Brings tasks to the server and annotations back.

    Args:
        settings: Settings of the oracle.
        client: The server.
        folder: The run folder.
        title: Title of a project that is created.
        sleep: Waits for seconds.
    """

    def __init__(
        self,
        settings: LabelStudioSettings,
        client: Client,
        *,
        folder: Path,
        title: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings, self._client, self.folder = settings, client, folder
        self._title, self._sleep = title, sleep
        self._said: set[str] = set()
        self._last: Request | None = None
        self._drafted: Request | None = None
        self._known: KnownTasks | None = None

    def bring_back(self) -> None:
        """Return when enough of the newest batch is back for the next training.

        Raises:
            LabelStudioError: The server refuses; one that is down is waited for.
            InvalidSetting: The project was deleted or does not fit.
            UnusableFile: The run folder is damaged.
        """
        place = self.folder / EXCHANGE
        lock = hold(place, otherwise="it waits for the same annotations: let it, or end it")
        try:
            run = open_run(self.folder)
            if run.request() == self._last:  # enough is back, but not for training: no haste
                self._sleep(self._settings.poll_seconds)
            self._last = run.request()
            num_missed = 0
            while True:
                try:
                    done = self._exchange(run, place / "journal.json")
                    self._unsaid("down")
                    num_missed = 0
                except NotThere:  # deleted since it was listed: the next round sees what is left
                    num_missed += 1
                    if num_missed == MAX_MISSED:
                        raise
                    done = False
                except ServerDown as error:
                    done = False
                    self._say("down", "%s; trying again until it does", error, warn=True)
                if done:
                    return
                took = 0.0 if self._known is None else self._known.listing_s
                self._sleep(max(self._settings.poll_seconds, LONGEST_SHARE * took))
        finally:
            lock.release()

    def _exchange(self, run: AskingRun, file: Path) -> bool:
        """Bring tasks and annotations up to date once; tell whether enough is back."""
        client, settings, rules = self._client, self._settings, run.rules
        journal = Journal.read(file)
        project = join(client, journal, rules, wanted=settings.project, title=self._title)
        if journal.project != project.id:
            journal.project, journal.tasks = project.id, {}
            journal.save(file)
        if self._known is None or self._known.project != project.id:
            self._known = KnownTasks(client, project.id)
        tasks = by_name(self._known.read())
        gone = [name for name in journal.tasks if name not in tasks]
        self._collect(run, project.id, tasks)
        answers = self._answers(run)
        wanted = self._wanted(run, answers)
        lost = sorted({item.name for _, item in wanted}.intersection(gone))
        if lost:
            logger.warning(
                "%s deleted in Label Studio, uploaded again:\n%s", counted(len(lost), "task"),
                listed(lost),
            )  # fmt: skip
        queue = OpenTasks(client, project.id, rules, image_url=settings.image_url)
        # Drafts change with the newest batch only.
        if queue.bring_about(wanted, tasks, with_drafts=run.request() != self._drafted):
            tasks = by_name(self._known.read())
        self._drafted = run.request()
        journal.tasks = {name: same[0].id for name, same in tasks.items()}
        journal.save(file)
        return self._is_enough(run, answers, project.id)

    # -- tasks ------------------------------------------------------------------------------------

    def _wanted(self, run: AskingRun, answers: set[str]) -> list[tuple[int, Item]]:
        """Return the images without an answer with their places: the newest batch comes first."""
        assert run.ledger is not None, "there is a request"
        wanted: list[tuple[int, Item]] = []
        place = 0
        for request in sorted(run.ledger.requests, key=lambda one: -one.cycle):
            if not answers.issuperset(request.names):  # spares reading drafts of finished batches
                for offset, item in enumerate(run.ledger.items(request, run.root, run.rules)):
                    if item.name not in answers and item.path.exists():
                        wanted.append((place + offset, item))
            place += len(request.names)
        return wanted

    # -- annotations ------------------------------------------------------------------------------

    def _collect(self, run: AskingRun, project: int, tasks: Mapping[str, Sequence[Task]]) -> None:
        """Write the annotations that are new since the earlier batches into this batch's file."""
        folder = self._returned(run)
        batch = run.request().cycle
        before: dict[str, tuple[str, int]] = {}
        for earlier in range(batch):
            for one in _read(_file(folder, project, earlier)):
                before[one.data[NAME]] = _newest(one)
        kept = []
        for name, same in tasks.items():
            answered = [task for task in same if task.annotations]
            if not answered:
                continue
            every = [each for task in answered for each in task.annotations]
            if _newest_of(every) == before.get(name):
                continue
            self._note_several(name, every)
            kept.append(Task(answered[0].id, answered[0].data, every))
        file = _file(folder, project, batch)
        content = [_plain(task) for task in kept]
        if content != [_plain(task) for task in _read(file)]:
            with atomic_write(file) as written:
                json.dump(content, written, ensure_ascii=False, indent=1)

    def _note_several(self, name: str, annotations: Sequence[Annotation]) -> None:
        people = {str(one.completed_by) for one in annotations if not one.was_cancelled}
        if len(people) > 1:
            self._say(
                f"several {name}", "%s: %d people have annotated it; the newest counts", name,
                len(people),
            )  # fmt: skip

    def _returned(self, run: AskingRun) -> Path:
        return self._settings.returned_in(run.folder)

    def _answers(self, run: AskingRun) -> set[str]:
        """Return the names of images with an answer, and report what cannot be used, once."""
        assert run.ledger is not None, "there is a request"
        found = read_returned(run.ledger, self._returned(run), run.rules, run.root, write=False)
        new = [problem for problem in found.problems if problem not in self._said]
        if new:
            self._said.update(new)
            logger.warning(
                "%s that cannot be used, until changed in Label Studio:\n%s",
                counted(len(new), "annotation"), listed(new),
            )  # fmt: skip
        return {*run.ledger.answers, *found.answers}

    def _is_enough(self, run: AskingRun, answers: set[str], project: int) -> bool:
        request = run.request()
        here = [name for name in request.names if (run.root / name).exists()]
        back = sum(name in answers for name in here)
        self._say(
            f"progress {request.cycle} {back}",
            "label studio: batch %d, %d of %d images are back; annotate at %s/projects/%d",
            request.cycle, back, len(here), self._client.url, project,
        )  # fmt: skip
        if back == len(here):
            return True
        # A share of batch 0 must have something of both sets in it.
        sets = [part for part in (request.train, request.test) if part]
        return self._settings.suffices(back, len(here)) and all(map(answers.intersection, sets))

    # -- log --------------------------------------------------------------------------------------

    def _say(self, what: str, text: str, *values: Any, warn: bool = False) -> None:
        """Log a line once, until it is unsaid."""
        if what not in self._said:
            self._said.add(what)
            logger.log(logging.WARNING if warn else logging.INFO, text, *values)

    def _unsaid(self, what: str) -> None:
        if what in self._said:
            self._said.discard(what)
            logger.info("%s answers again", self._client.url)


def _file(folder: Path, project: int, batch: int) -> Path:
    return folder / f"label_studio_project_{project}_batch_{batch:02d}.json"


def _read(file: Path) -> list[Task]:
    if not file.exists():
        return []
    return [task for task in checked(_TASKS, parse_json(file.read_bytes())) if NAME in task.data]


def _plain(task: Task) -> dict[str, Any]:
    """Return a task as an export has it."""
    return {
        "id": task.id,
        "data": task.data,
        "annotations": [asdict(one) for one in sorted(task.annotations, key=lambda one: one.id)],
    }


def _newest_of(annotations: Sequence[Annotation]) -> tuple[str, int]:
    return max((one.updated_at, one.id) for one in annotations)


def _newest(task: Task) -> tuple[str, int]:
    return _newest_of(task.annotations)
