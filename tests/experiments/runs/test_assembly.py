"""experiments.runs.assembly: checks in the order of their cost, and the parts that fit together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from al_core import Affordable, Requirement, Subsampled
from al_core.errors import InvalidSetting
from experiments.annotation.people import Waiting
from experiments.runs import assembly
from experiments.runs.assembly import Parts, assemble
from experiments.units.unit import WholeImages
from tests.experiments.runs.fakes import NET, Config, Engine, Last, People, Task

EVERY_PART = ["strategy.query", "data", "task.build", "query"]


class Needy(Last):
    """A strategy that requires something."""

    def __init__(self, *requires: Requirement) -> None:
        self.requires = frozenset(requires)


class Priced(WholeImages):
    """Images that cost their number plus one, in groups of two."""

    prepared = False

    def __init__(self, task: Any) -> None:
        super().__init__(task)
        self.costs = np.arange(1, 11)
        self.groups = np.arange(10) // 2

    def prepare(self) -> None:
        """Note it."""
        self.prepared = True


@pytest.fixture(autouse=True)
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Learners that keep what they are made of; the sizes that they were asked about."""
    checked = list[int]()
    for name in ("TaskLearner", "EnsembleLearner"):

        def made(*parts: Any, name: str = name, **more: Any) -> SimpleNamespace:
            training = SimpleNamespace(check_batch=checked.append)
            return SimpleNamespace(kind=name, parts=parts, training=training, **{"size": 1, **more})

        monkeypatch.setattr(assembly, name, made)
    return checked


def test_the_initial_set_has_to_be_large_enough_for_a_batch(
    tmp_path: Path, checked: list[int]
) -> None:
    """The learner is asked before the first cycle, and not again."""
    assembled(config(tmp_path))
    assembled(config(tmp_path), next_cycle=1)
    assert checked == [2]


def config(path: Path, strategy: Any = None, task: Any = None, **how: Any) -> Config:
    """Return a configuration whose data is the word "data"."""
    built = {
        "strategy.query": strategy or Last(),
        "data": lambda **given: ("data", given),
        "task.build": task or (lambda **given: Task()),
        "query": how.pop("unit", WholeImages),
    }
    return Config(path, built, **how)


def assembled(of: Config, *, next_cycle: int = 0) -> Any:
    """Put the parts together."""
    return assemble(Engine(), of, run_folder=of.path(), next_cycle=next_cycle)  # type: ignore[arg-type]


def test_the_parts_are_made_of_one_another(tmp_path: Path) -> None:
    """The task gets the data, the unit the task, and the learner all of them with the recipe."""
    given: dict[str, Any] = {}

    def task(**arguments: Any) -> Task:
        given.update(arguments)
        return Task()

    of = config(tmp_path, task=task)
    parts = assembled(of)
    assert isinstance(parts, Parts)
    assert of.built == EVERY_PART
    assert given == {"data": ("data", {}), "backbone": NET}
    learner: Any = parts.learner
    assert (learner.kind, learner.size) == ("TaskLearner", 1)
    assert learner.parts[0] is parts.task
    assert learner.parts[2] is of.recipe
    assert (learner.unit, learner.observer) == (parts.unit, parts.observer)
    assert parts.people is None
    assert type(parts.strategy) is Last


def test_an_ensemble_has_its_size(tmp_path: Path) -> None:
    """With several networks the learner is an ensemble of so many."""
    learner: Any = assembled(config(tmp_path, ensemble_size=3)).learner
    assert (learner.kind, learner.size) == ("EnsembleLearner", 3)


def test_a_strategy_is_wrapped_for_costs_and_candidates(tmp_path: Path) -> None:
    """The subset is drawn first, in groups, and what is selected from it must be affordable."""
    strategy: Any = assembled(config(tmp_path, unit=Priced, candidates=4, initial_size=1)).strategy
    assert isinstance(strategy, Subsampled)
    assert strategy.size == 4
    assert strategy.groups is not None
    assert isinstance(strategy.strategy, Affordable)
    assert type(strategy.strategy.strategy) is Last


OF_SETTINGS = [r for r in Requirement if not r.value.endswith("embedding")]
"""Requirements that the settings alone decide."""


@pytest.mark.parametrize("requirement", OF_SETTINGS)
def test_a_requirement_is_checked_before_the_data_is_read(
    tmp_path: Path, requirement: Requirement
) -> None:
    """Only the strategy was built when a run without what it needs is refused."""
    of = config(tmp_path, Needy(requirement))
    with pytest.raises(InvalidSetting, match="strategy=last needs"):
        assembled(of)
    assert of.built == EVERY_PART[:1]
    of.provided = frozenset([requirement])
    assert isinstance(assembled(of), Parts)


@pytest.mark.parametrize("name", ["map50", "iou", ""])
def test_a_metric_that_the_task_does_not_measure_is_refused(tmp_path: Path, name: str) -> None:
    """The message names the metrics that there are, before anything is trained."""
    of = config(tmp_path, Last())
    of.metric = name
    with pytest.raises(InvalidSetting, match="not measured by this task; there are accuracy"):
        assembled(of)


def test_embeddings_are_checked_once_the_network_is_known(tmp_path: Path) -> None:
    """A network without them is refused before its pool is cut into parts."""

    class Bare(Task):
        has_embedding = False

    strategy = Needy(Requirement.EMBEDDING)
    assert isinstance(assembled(config(tmp_path, strategy)), Parts)
    of = config(tmp_path, strategy, task=lambda **given: Bare())
    with pytest.raises(InvalidSetting, match="needs embeddings"):
        assembled(of)
    assert of.built == EVERY_PART[:3]


def test_regions_have_no_embedding(tmp_path: Path) -> None:
    """A strategy that needs one of them cannot rank regions, whatever the network has."""
    of = config(tmp_path, Needy(Requirement.EMBEDDING), regions=True)
    with pytest.raises(InvalidSetting, match="query=regions serves strategies that score pixels"):
        assembled(of)
    assert of.built == EVERY_PART[:1]


def test_sizes_are_checked_before_regions_are_cut(tmp_path: Path) -> None:
    """At the first start only: later the pool is what it was."""
    units: list[Priced] = []

    def unit(task: Any) -> Priced:
        units.append(Priced(task))
        return units[-1]

    of = config(tmp_path, unit=unit, initial_size=11)
    with pytest.raises(InvalidSetting, match=r"cycle\.initial_size=11, but the pool has 10"):
        assembled(of)
    assert not units[0].prepared
    assert isinstance(assembled(of, next_cycle=1), Parts)
    assert units[1].prepared


def test_people_are_consulted_before_the_data_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If they have to answer first, nothing but the strategy was built."""
    note = Waiting("label the first batch")
    monkeypatch.setattr(assembly, "consult_people", lambda *of, **how: note)
    of = config(tmp_path, people=True)
    assert assembled(of) is note
    assert of.built == EVERY_PART[:1]


def test_answers_of_people_are_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their answers go into the data, and their number decides the size of the pool."""
    people = People([[0]])
    asked: dict[str, Any] = {}

    def consult(engine: Any, config: Any, **how: Any) -> People:
        asked.update(how)
        return people

    monkeypatch.setattr(assembly, "consult_people", consult)
    given: dict[str, Any] = {}

    def task(**arguments: Any) -> Task:
        given.update(arguments)
        return Task()

    parts = assembled(config(tmp_path, task=task, people=True, initial_size=11), next_cycle=0)
    assert asked == {"run_folder": tmp_path, "next_cycle": 0, "is_trained": False}
    assert given["data"] == ("data", {"collected": people.collected})
    assert parts.people is people
