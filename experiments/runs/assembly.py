"""Build the parts of a run from its configuration.

Checks that need no data come first, so that a wrong setting is reported before images are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from al_core import Affordable, QueryStrategy, Requirement, Subsampled, requirements_of
from al_core.errors import InvalidSetting
from experiments.annotation.oracle import PeopleOracle, consult_people
from experiments.annotation.people import Waiting
from experiments.data.arranged import Data
from experiments.engine.engine import Engine
from experiments.learning.checkpointing import Clock, TrainingCheckpoint
from experiments.learning.ensemble import EnsembleLearner
from experiments.learning.frozen import FOLDER, FrozenClassification
from experiments.learning.learner import TaskLearner
from experiments.learning.observer import CycleObserver
from experiments.learning.pretrained_features import pool_features
from experiments.learning.snapshot import SnapshotLearner
from experiments.metrics.columns import column
from experiments.runs.binding import training_settings
from experiments.runs.folder import CHECKPOINTS
from experiments.runs.identity import RunImages, settled
from experiments.runs.known_images import read_record
from experiments.runs.pool import check_sizes
from experiments.settings.requirements import check_requirements
from experiments.settings.run_config import RunConfig
from experiments.tasks.base import Task
from experiments.tasks.classification import Classification
from experiments.units.unit import Unit


@dataclass(frozen=True)
class Parts:
    """The parts of a run in one process.

    Attributes:
        task: Data, model, loss and metric.
        unit: The samples of the pool.
        learner: Trains and infers.
        strategy: Selects.
        observer: Follows the cycles.
        people: The oracle if people annotate; None if the data set has the labels.
        images: Which images the positions of pool and test set stand for.
    """

    task: Task
    unit: Unit
    learner: TaskLearner
    strategy: QueryStrategy
    observer: CycleObserver
    people: PeopleOracle | None
    images: RunImages = field(default_factory=lambda: RunImages({}))


def assemble(
    engine: Engine,
    config: RunConfig,
    *,
    run_folder: Path,
    next_cycle: int,
    is_trained: bool = False,
) -> Parts | Waiting:
    """Build everything that a run needs, and read its data.

    Args:
        engine: Devices and processes.
        config: The run's configuration.
        run_folder: The run folder, which holds the requests to people and their answers.
        next_cycle: The cycle that trains next.
        is_trained: Whether that cycle has trained already, so that nothing is waited for.

    Returns:
        The parts, or a note for people if the next training needs more of their answers.

    Raises:
        InvalidSetting: A setting is wrong, or parts do not fit together; one line.
    """
    strategy: QueryStrategy = config.build("strategy.query")
    name, of_regions = str(config.values["strategy"]["name"]), config.queries_regions
    # Whether the network has embeddings is only known after it is built.
    known = config.provided | {Requirement.EMBEDDING, Requirement.PRETRAINED_EMBEDDING}
    check_requirements(strategy, name, provided=known, of_regions=of_regions)
    people: PeopleOracle | None = None
    if config.asks_people:
        consulted = consult_people(
            engine, config, run_folder=run_folder, next_cycle=next_cycle, is_trained=is_trained
        )
        if isinstance(consulted, Waiting):
            return consulted
        people = consulted
    collected = {} if people is None else {"collected": people.collected}
    data = config.build_for_task("data", **collected)
    images = RunImages({})
    if isinstance(data, Data):
        record = read_record(run_folder) if engine.is_main and next_cycle else None
        record = engine.gather(record)[0]
        data, images = settled(data, record, fixed=people is not None, of_regions=of_regions)
    task: Task = config.build("task.build", data=data, backbone=config.backbone())
    _check_metric(config.metric, task)
    if config.backbone().frozen:
        assert isinstance(task, Classification), "backbone.frozen serves classification"
        folder = Path(config.values["out"], FOLDER)
        task = FrozenClassification(task, engine, folder=folder)
    if not task.has_embedding:
        known = known - {Requirement.EMBEDDING}
    check_requirements(strategy, name, provided=known, of_regions=of_regions)
    pretrained = None
    if Requirement.PRETRAINED_EMBEDDING in requirements_of(strategy):
        out = Path(config.values["out"])
        key = "strategy.query.embedding=pretrained"
        pretrained = pool_features(task, engine, out=out, key=key)
    unit: Unit = config.build_for_task("query", task=task)
    if people is None and next_cycle == 0:  # before `prepare`, which may take long
        check_sizes(config, task, unit)
    unit.prepare()
    observer = CycleObserver(engine)
    checkpoint = TrainingCheckpoint(
        run_folder / CHECKPOINTS / "training.pt",
        Clock(config.checkpoint_minutes),
        training_settings(config.values),
        labels="" if people is None else people.digest,
    )
    learner = _learner_kind(config)(
        task,
        engine,
        config.recipe,
        unit=unit,
        observer=observer,
        checkpoint=checkpoint,
        pretrained=pretrained,
    )
    if next_cycle == 0:
        learner.training.check_batch(config.recipe.cycle.initial_size)
    if unit.costs is not None:
        strategy = Affordable(strategy, unit.costs)
    num_candidates = config.recipe.cycle.num_candidates
    if num_candidates is not None:
        strategy = Subsampled(strategy, num_candidates, groups=unit.groups)
    return Parts(task, unit, learner, strategy, observer, people, images)


def _check_metric(name: str, task: Task) -> None:
    """Raise InvalidSetting unless the task measures the metric that a run is judged by."""
    measured = list(task.metrics().compute())  # of no sample, which names all but those of classes
    if name not in measured and not column(name).is_member:
        raise InvalidSetting(
            f"task.metric={name} is not measured by this task; there are {', '.join(measured)}"
        )


def _learner_kind(config: RunConfig) -> Callable[..., TaskLearner]:
    if config.snapshot_at is not None:
        return partial(SnapshotLearner, at=config.snapshot_at)
    if config.ensemble_size > 1:
        return partial(EnsembleLearner, size=config.ensemble_size)
    return TaskLearner
