"""Who answers the queries of a run: the data set's own labels, or people.

With people, the process that writes the run folder alone reads what has come back and writes what
is asked; the others are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from al_core import CycleRecord, IndexArray, Pool
from al_core.errors import AwaitingAnnotation, InvalidSetting
from experiments.annotation.people import People
from experiments.annotation.settings import PeopleSettings
from experiments.annotation.unlabeled import Collected, checked_class_names
from experiments.data.blank import MAX_IMAGE_SIZE
from experiments.data.labels import Rules
from experiments.engine.engine import Engine
from experiments.learning.learner import TaskLearner
from experiments.models.embedding import embed
from experiments.settings.checks import check_folder, check_whole_number
from experiments.settings.config import CycleSettings, settings
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.tasks.blank import blank_task

DATA = "unlabeled"
"""The choice of data that people label."""


@dataclass(frozen=True)
class AskedPeople:
    """People as the oracle of a run, as far as they have answered.

    Attributes:
        collected: What they have said.
        people: In the process that writes; else None.
    """

    collected: Collected
    people: People | None

    def pool(self, task: Task) -> Pool:
        """Return the pool that their answers make, with the labels of it readable."""
        unreadable = task.train.unreadable
        pool = Pool(len(task.train), excluded={*self.collected.excluded, *unreadable})
        for batch in self.collected.batches:
            pool.label(np.array([i for i in batch if i not in unreadable], dtype=np.int64))
        task.targets.reveal(pool.labeled)
        return pool

    def annotate(self, indices: IndexArray) -> None:
        """Answer later.

        Raises:
            AwaitingAnnotation: Always.
        """
        raise AwaitingAnnotation(f"{counted(len(indices), 'image')} to be annotated")

    def ask(self, record: CycleRecord, learner: TaskLearner) -> None:
        """Write the request for what a cycle has queried, with the model's drafts."""
        assert self.people is not None, "another process than the one that writes asked people"
        query = record.query
        self.people.ask(
            record.cycle + 1,
            [self.collected.names[index] for index in query.indices],
            None if query.scores is None else query.scores.tolist(),
            learner.drafts(query.indices),
        )

    def waiting(self, cycle: int) -> AwaitingAnnotation:
        """Return what to stop with: what a cycle waits for."""
        return AwaitingAnnotation("" if self.people is None else self.people.waiting(cycle))


def ask_people(
    engine: Engine,
    config: DictConfig,
    values: dict[str, Any],
    *,
    run_folder: Path,
    next_cycle: int,
) -> AskedPeople | None:
    """Take over what people have answered; None where the data set's own labels answer.

    Args:
        engine: Tells the other processes.
        config: As the command line composes it.
        values: The same, resolved.
        run_folder: Where requests and answers are kept.
        next_cycle: The cycle that trains next.

    Raises:
        AwaitingAnnotation: It does not suffice for the next training; in every process.
        InvalidSetting: Settings do not go together, a record is damaged, or the network does not
            take the images.
    """
    data = values["data"]
    if values["oracle"]["name"] != "people":
        if set(values["oracle"]) != {"name"}:
            raise InvalidSetting(
                f"unknown key oracle.{min(set(values['oracle']) - {'name'})}; oracle="
                f"{values['oracle']['name']} has none but name"
            )
        if data["name"] == DATA:
            raise InvalidSetting(f"data={DATA} has no labels: it needs oracle=people")
        return None
    if data["name"] != DATA:
        raise InvalidSetting(
            f"oracle=people annotates images without labels: data={DATA} data.root=FOLDER, not "
            f"data={data['name']}"
        )
    asked = settings(PeopleSettings, config.oracle)
    cycle = settings(CycleSettings, config.cycle)
    kind = values["task"]["kind"]
    people: People | None = None
    answer: Collected | str = ""
    if engine.is_main:
        people = _people(asked, kind, data, run_folder, engine)
        _try_network(config, data)
        try:
            answer = people.open(
                cycle=next_cycle,
                cycles=values["cycles"],
                initial_size=cycle.initial_size,
                query_size=cycle.query_size,
                seed=values["seed"],
            )
        except AwaitingAnnotation as waiting:
            answer = str(waiting)
    first = engine.gather(answer)[0]
    if isinstance(first, str):
        raise AwaitingAnnotation(first)
    return AskedPeople(first, people)


def _try_network(config: DictConfig, data: Mapping[str, Any]) -> None:
    """Refuse a network that cannot take the images before people annotate any of them."""
    check_whole_number("data.image_size", data["image_size"], low=1, high=MAX_IMAGE_SIZE)
    # Neither mean nor deviation matters to whether a network takes an image.
    facts = {"image_size": data["image_size"], "mean": (0.5,) * 3, "std": (0.25,) * 3}
    blank_task(config, checked_class_names(data["class_names"], config.task.kind), facts)


def _people(
    asked: PeopleSettings, kind: str, data: dict[str, Any], run_folder: Path, engine: Engine
) -> People:
    return People(
        asked,
        run_folder=run_folder,
        root=check_folder("data.root", data["root"]),
        rules=Rules(
            kind,
            checked_class_names(data["class_names"], kind),
            refusal=asked.refusal,
            empty_is_answer=asked.empty_is_answer,
            voc_origin=asked.voc_origin,
        ),
        has_test=data["test"] is not None,
        embed=None
        if asked.initial == "random"
        else partial(
            embed,
            network=asked.embedding_network,
            weights=str(asked.embedding_weights),
            engine=engine,
        ),
    )
