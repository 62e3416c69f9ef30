"""People as the oracle of a run, in each of its processes.

The process that writes the run folder reads the returned annotations and writes the requests; the
other processes receive the result from it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from al_core import IndexArray, Pool, Query
from al_core.errors import InvalidSetting
from experiments.annotation.first_choice import FirstChoice
from experiments.annotation.label_studio_client import Client
from experiments.annotation.label_studio_oracle import Courier
from experiments.annotation.people import People, Waiting
from experiments.annotation.settings import GroundTruthSettings, LabelStudioSettings, PeopleSettings
from experiments.annotation.unlabeled import Collected, checked_class_names
from experiments.data.blank import MAX_IMAGE_SIZE
from experiments.data.duplicate_groups import Groups
from experiments.data.labels import Label, Rules
from experiments.engine.engine import Engine
from experiments.learning.frozen import FOLDER, frozen_trunk
from experiments.learning.learner import TaskLearner
from experiments.learning.near_duplicates import of_files
from experiments.learning.training import Training
from experiments.models.embedding import LITE0, embed
from experiments.settings.checks import check_folder, check_whole_number
from experiments.settings.composition import make
from experiments.settings.run_config import RunConfig
from experiments.settings.run_path import LIVE
from experiments.tasks.base import Task
from experiments.tasks.blank import blank_task
from experiments.tasks.classification import Classification

RESNET18 = "resnet18"
"""The network that weights are of if they are given without its name."""
DATA = "unlabeled"
"""The choice of `data` that people label."""


@dataclass(frozen=True)
class PeopleOracle:
    """People as an oracle, with the answers that they have given so far.

    Attributes:
        collected: Their answers.
        people: The people themselves, in the process that writes; None in the others.
    """

    collected: Collected
    people: People | None

    @property
    def held(self) -> IndexArray:
        """Positions of the images that are labeled, held out, refused or out for annotation."""
        collected = self.collected
        every = {*collected.labels, *collected.test, *collected.excluded}
        return np.array(sorted(every), np.int64)

    def pool(self, task: Task, groups: Groups | None = None) -> Pool:
        """Return the pool that the answers make, and reveal the labels in it to the task.

        Args:
            task: With the images.
            groups: Near-duplicates, of each group of which one image is offered; None to offer all.
        """
        unreadable = task.train.unreadable
        alike = [] if groups is None else groups.redundant(self.held).tolist()
        pool = Pool(len(task.train), excluded={*self.collected.excluded, *unreadable, *alike})
        for batch in self.collected.batches:
            pool.label(np.array([i for i in batch if i not in unreadable], dtype=np.int64))
        task.targets.reveal(pool.labeled)
        return pool

    @property
    def digest(self) -> str:
        """A digest of the labels of all training images, which changes when one of them does."""
        labels = self.collected.labels
        answers = [(i, labels[i].value) for batch in self.collected.batches for i in batch]
        return hashlib.sha256(repr(answers).encode()).hexdigest()

    def annotate(self, indices: IndexArray) -> bool:
        """Return False: people answer later. `ask` writes the request for them."""
        return False

    def ask(self, cycle: int, query: Query, learner: TaskLearner | None) -> None:
        """Write the request that the training of `cycle` waits for, with drafts of a learner.

        The drafts of images that are still open from earlier batches are renewed.
        """
        assert self.people is not None, "another process than the one that writes asked people"
        names = self.collected.names
        drafts: dict[str, Label] = {}
        if learner is not None:
            open_ = set(self.people.still_open())
            unreadable = learner.task.train.unreadable
            indices = [i for i, name in enumerate(names) if name in open_ and i not in unreadable]
            drafted = np.array([*query.indices, *indices], np.int64)
            found = learner.drafts(drafted)
            drafts = {names[i]: draft for i, draft in zip(drafted, found, strict=True)}
        self.people.ask(
            cycle,
            [names[index] for index in query.indices],
            None if query.scores is None else query.scores.tolist(),
            drafts,
        )

    def waiting(self, cycle: int) -> Waiting:
        """Describe the batch that a cycle waits for; the text is empty in other processes."""
        return Waiting("") if self.people is None else self.people.waiting(cycle)


def check_oracle(config: RunConfig) -> None:
    """Check the settings of the oracle, and that it fits the data.

    Raises:
        InvalidSetting: Unknown keys, or an oracle and data that do not go together.
    """
    oracle, data = config.values["oracle"], config.values["data"]
    if not config.asks_people:
        make(GroundTruthSettings, oracle, where="oracle")
        if data["name"] == DATA:
            raise InvalidSetting(f"data={DATA} has no labels: it needs oracle=people")
    elif data["name"] != DATA:
        raise InvalidSetting(
            f"oracle={oracle['name']} annotates images without labels: data={DATA} "
            f"data.root=FOLDER, not data={data['name']}"
        )
    if config.is_live:
        asked_settings(config)


def asked_settings(config: RunConfig) -> PeopleSettings:
    """Return the settings of people as the oracle.

    Raises:
        InvalidSetting: Unknown keys, or values that are not permitted.
    """
    kind = LabelStudioSettings if config.is_live else PeopleSettings
    values = config.values["oracle"]
    return make(kind, values, where="oracle")


def live_oracle(config: RunConfig, folder: Path) -> Courier:
    """Return the exchange of a run with its server, which has been reached.

    Raises:
        InvalidSetting: A setting is wrong, or the token is missing.
        LabelStudioError: The server is down, refuses the token, or is of another version.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise InvalidSetting(
            f"oracle={LIVE} starts its processes itself: engine.num_processes=N, not torchrun"
        )
    asked = asked_settings(config)
    assert isinstance(asked, LabelStudioSettings), "the oracle is live"
    client = Client(str(asked.url), asked.key())
    client.check()
    return Courier(asked, client, folder=folder, title=f"{folder.parts[-3]} {folder.name}"[:50])


def consult_people(
    engine: Engine,
    config: RunConfig,
    *,
    run_folder: Path,
    next_cycle: int,
    is_trained: bool = False,
) -> PeopleOracle | Waiting:
    """Read the answers of people; the same in every process.

    Args:
        engine: The processes of the run.
        config: Its configuration.
        run_folder: Folder of the requests and answers.
        next_cycle: The cycle that trains next.
        is_trained: Whether that cycle has trained already.

    Returns:
        The oracle, or a note for people if their answers do not suffice for the next training.

    Raises:
        InvalidSetting: A setting is wrong, a record is damaged, or the network does not take the
            images.
    """
    asked = asked_settings(config)
    people: People | None = None
    answer: Collected | Waiting = Waiting("")
    if engine.is_main:
        people = _people(asked, config, run_folder, engine)
        _try_network(config, engine)
        answer = people.open(
            cycle=next_cycle,
            cycles=config.cycles,
            initial_size=config.recipe.cycle.initial_size,
            query_size=config.recipe.cycle.query_size,
            seed=config.seed,
            is_trained=is_trained,
        )
    first = engine.gather(answer)[0]
    return first if isinstance(first, Waiting) else PeopleOracle(first, people)


def _try_network(config: RunConfig, engine: Engine) -> None:
    """Refuse a network that cannot take the images before people annotate any of them."""
    data = config.values["data"]
    check_whole_number("data.image_size", data["image_size"], low=1, high=MAX_IMAGE_SIZE)
    # Neither mean nor deviation matters to whether a network takes an image.
    facts = {"image_size": data["image_size"], "mean": (0.5,) * 3, "std": (0.25,) * 3}
    names = checked_class_names(data["class_names"], config.kind)
    backbone = config.backbone()
    task = blank_task(config.values["task"], backbone, names, facts)
    if backbone.frozen:
        assert isinstance(task, Classification), "backbone.frozen serves classification"
        frozen_trunk(task, engine).check()
    elif config.recipe.loss_prediction.enabled:
        Training(task, engine, config.recipe).fresh_model(seed=0)


def _people(asked: PeopleSettings, config: RunConfig, run_folder: Path, engine: Engine) -> People:
    data: dict[str, Any] = config.values["data"]
    root = check_folder("data.root", data["root"])
    return People(
        asked,
        run_folder=run_folder,
        root=root,
        rules=Rules(
            config.kind,
            checked_class_names(data["class_names"], config.kind),
            refusal=asked.refusal,
            empty_is_answer=asked.empty_is_answer,
            voc_origin=asked.voc_origin,
        ),
        has_test=data["test"] is not None,
        choice=FirstChoice(
            root,
            embed=None
            if asked.initial == "random"
            else partial(
                embed,
                network=asked.embedding_network or (RESNET18 if asked.embedding_weights else LITE0),
                weights=asked.embedding_weights,
                engine=engine,
            ),
            group=partial(of_files, engine=engine, folder=Path(config.values["out"], FOLDER))
            if config.drops_near_duplicates
            else None,
        ),
    )
