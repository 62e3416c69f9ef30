"""Every choice of every group and every experiment composes, resolves and can be built."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from al_core import ActiveLearning, Pool, Prediction
from al_core.errors import InvalidSetting
from experiments.engine.engine import Engine
from experiments.settings.composition import build, make, plain
from experiments.settings.messages import line
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, OptimizerSettings
from experiments.settings.run_config import GROUPS, RunConfig
from tests.al_core.strategies.listed import earlier_query
from tests.small_runs import compose

CONF = Path(__file__).parents[1] / "conf"
KINDS = ("classification", "detection", "segmentation", "pose")


def choices(group: str) -> list[str]:
    """Return the choices of a group."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def check_node(node: DictConfig, *, resolve: bool = True) -> None:
    """Check that every `_target_` in it exists and takes the keys that it is given.

    Args:
        node: Part of a configuration.
        resolve: Whether it belongs to a whole one, so that interpolations have values.
    """

    def check_below(values: Any) -> None:
        if not isinstance(values, dict):
            return
        for value in values.values():
            check_below(value)
        if str(values.get("_target_")).startswith("torch.optim."):
            # Hydra does not call it.
            OptimizerSettings.of({"momentum": None, "nesterov": None, **values})
        elif "_target_" in values:
            keys = {key: None for key in values if not key.startswith("_")}
            inspect.signature(get_object(values["_target_"])).bind_partial(**keys)

    check_below(OmegaConf.to_container(node, resolve=resolve))


def give_paths(config: DictConfig) -> None:
    """Set the values that a user must set: the places of the data."""
    for key in map(str, config.data):
        if OmegaConf.is_missing(config.data, key):
            config.data[key] = "/data"


def check(config: DictConfig) -> dict[str, Any]:
    """Check a whole configuration, short of building data and networks; return it resolved."""
    give_paths(config)
    checked = RunConfig.of(config)
    values: dict[str, Any] = dict(checked.values)
    Engine(**values["engine"])
    for group in ("task", "backbone", "strategy", "query", "data", "tracker"):
        check_node(config[group])
    kind = config.task.kind
    assert kind in config.data, f"data={config.data.name} does not serve {kind}"
    assert kind in config.backbone, f"backbone={config.backbone.name} does not serve {kind}"
    assert checked.recipe.cycle.query_size >= 1
    return values


def test_every_group_is_known_and_has_choices() -> None:
    """The groups of conf/ are those that the program knows, and experiment."""
    folders = {path.name for path in CONF.iterdir() if path.is_dir() and path.name[0] not in "_."}
    assert folders == {*GROUPS, "experiment"}
    assert all(choices(group) for group in folders)


@pytest.mark.parametrize(
    ("task", "cycle"),
    [
        (task, cycle)
        for task in choices("task")
        for cycle in choices("cycle")
        if cycle != "fast" or task in ("cifar10", "classification")
    ],
)
def test_every_task_and_protocol_compose(task: str, cycle: str) -> None:
    """A task brings a backbone and data that serve it, a recipe, and numbers for every protocol."""
    values = check(compose(f"task={task}", f"cycle={cycle}"))
    assert values["task"]["name"] == task
    assert values["cycle"]["name"] == cycle
    assert values["optimizer"]["lr"] > 0
    assert values["name"] == f"{task}-{values['data']['name']}"


def test_a_task_without_the_protocol_is_named() -> None:
    """A protocol that a task has no numbers for is refused in one line with the others."""
    with pytest.raises(InvalidSetting) as error:
        RunConfig.of(compose("task=ssd_voc", "cycle=fast"))
    assert line(error.value) == (
        "error: cycle=fast has no numbers for this task: use cycle=quick or cycle=paper"
    )


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_every_experiment_composes(experiment: str) -> None:
    """Its own values win, and its header gives command, time and what to expect."""
    values = check(compose(f"experiment={experiment}"))
    header = (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    for word in (f"experiment={experiment}", "time:", "expected:"):
        assert word in header
    own = OmegaConf.load(CONF / "experiment" / f"{experiment}.yaml")
    assert isinstance(own, DictConfig)
    for key in ("cycles", "name"):
        if key in own:
            assert values[key] == own[key]
    for key, value in (own.get("cycle") or {}).items():
        assert values["cycle"][key] == value


@pytest.mark.parametrize("engine", choices("engine"))
def test_every_engine_is_made(engine: str) -> None:
    """All keys of a choice are arguments, and all arguments are in it, to be found and set."""
    values = plain(compose(f"engine={engine}").engine)
    assert set(values) == set(inspect.signature(Engine).parameters)
    assert Engine(**{**values, "device": "cpu"}).device.type == "cpu"


@pytest.mark.parametrize("tracker", choices("tracker"))
def test_every_tracker_is_made(tracker: str) -> None:
    """Each can be built without an account or a network."""
    made = build(plain(compose(f"tracker={tracker}").tracker), where="tracker")
    assert all(hasattr(made, method) for method in ("start", "log_cycle", "finish"))


class OneBatch:
    """A learner that answers from made-up predictions."""

    def infer(self, indices: Any, extract: Any) -> torch.Tensor:
        """Extract from one batch."""
        generator = torch.Generator().manual_seed(0)
        b = len(indices)
        rows: torch.Tensor = extract(
            Prediction(
                log_probs=torch.randn(b, 5, generator=generator).log_softmax(1),
                embedding=torch.randn(b, 4, generator=generator),
                predicted_loss=torch.randn(b, generator=generator),
                log_prob_samples=torch.randn(b, 3, 5, generator=generator).log_softmax(2),
            )
        )
        return rows


@pytest.mark.parametrize("strategy", choices("strategy"))
def test_every_strategy_selects(strategy: str) -> None:
    """Each strategy is built as configured and meets its budget; its name is that of its file."""
    config = compose(f"strategy={strategy}")
    assert config.strategy.name == strategy
    for key in map(str, config.strategy.query):  # what a user has to give
        if OmegaConf.is_missing(config.strategy.query, key):
            config.strategy.query[key] = str(earlier_query(20))
    pool = Pool(20)
    pool.label([0, 1])
    query = build(plain(config.strategy.query), where="strategy.query").select(
        pool, pool.unlabeled, OneBatch(), 5, np.random.default_rng(0)
    )
    assert len(set(query.indices.tolist())) == 5
    assert set(query.indices.tolist()) <= set(pool.unlabeled.tolist())


@pytest.mark.parametrize("query", choices("query"))
def test_every_query_takes_its_keys(query: str) -> None:
    """Each part takes the keys it is given, for a kind of task there is; its name is its file's."""
    config = compose("task=drn_cityscapes", f"query={query}", "strategy=entropy")
    assert config.query.name == query
    assert config.task.kind in config.query
    check(config)


@pytest.mark.parametrize("data", choices("data"))
def test_every_data_set_takes_its_keys(data: str) -> None:
    """Each part is a function that exists and takes the keys it is given; all keys have a use."""
    # On the task that it serves; a data set without a task would be of no use to anybody.
    kinds = set(KINDS)
    own = OmegaConf.load(CONF / "data" / f"{data}.yaml")
    assert isinstance(own, DictConfig)
    assert own.name == data
    served = {str(key) for key in own if key in kinds}
    assert served, f"data={data} serves no task"
    config = compose(f"data={data}")
    give_paths(config)
    RunConfig.of(config)
    for kind in served:
        check_node(config.data[kind])
        plain(config.data[kind])


BACKBONES = {
    name: OmegaConf.load(CONF / "backbone" / f"{name}.yaml") for name in choices("backbone")
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_takes_its_keys(backbone: str) -> None:
    """Each part is a callable that exists and takes the keys it is given, for a task there is."""
    node = BACKBONES[backbone]
    assert isinstance(node, DictConfig)
    assert node.name == backbone
    kinds = set(KINDS)
    assert kinds & set(node)
    check_node(node, resolve=False)


CLASSIFIERS = [
    name
    for name, node in BACKBONES.items()
    if str(node.get("classification", {}).get("_target_")).startswith("vendored.pytorch_cifar.")
]
"""Those of pytorch-cifar; the others are in tests/experiments/models."""


@pytest.mark.parametrize("backbone", CLASSIFIERS)
def test_every_classifier_takes_loss_prediction(backbone: str) -> None:
    """Each takes a class count, and its tapped features fit the module that is put on them."""
    config = compose(f"backbone={backbone}")
    with torch.device("meta"):
        model = ActiveLearning(
            build(
                plain(config.backbone.classification),
                where="backbone.classification",
                num_classes=7,
            )
        ).eval()
    with torch.inference_mode():  # weights of any value will do
        logits, predicted = model.to_empty(device="cpu")(torch.zeros(1, 3, 32, 32))
    assert logits.shape == (1, 7)
    assert predicted.shape == (1,)


# ---- who wins


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        # Data sets and tasks set groups that stand before them.
        (["data=digits"], {"cycle.name": "quick", "cycle.epochs": 60, "data.name": "digits"}),
        (["data=digits", "cycle=paper"], {"cycle.name": "paper", "cycle.epochs": 200}),
        (["cycle=paper", "data=digits"], {"cycle.name": "paper"}),
        ([], {"cycle.name": "paper", "backbone.name": "resnet18", "data.name": "cifar10"}),
        (["task=cifar10", "backbone=lenet"], {"backbone.name": "lenet"}),
        # The task sets the recipe, the command line wins.
        ([], {"optimizer.lr": 0.1, "loss_prediction.margin": 1.0, "loss_prediction.width": 128}),
        (["optimizer.lr=0.5"], {"optimizer.lr": 0.5, "optimizer.momentum": 0.9}),
        (["cycles=3", "cycle.epochs=7"], {"cycles": 3, "cycle.epochs": 7}),
        # Learning loss turns the module on, whatever the task says of it; others leave it off.
        (["strategy=learning_loss"], {"loss_prediction.enabled": True}),
        (["strategy=random"], {"loss_prediction.enabled": False}),
        (["strategy=margin", "loss_prediction.enabled=true"], {"loss_prediction.enabled": True}),
        (
            ["strategy=learning_loss", "loss_prediction.weight=0.5"],
            {"loss_prediction.enabled": True, "loss_prediction.weight": 0.5},
        ),
        # An experiment wins over task and data, and the command line over the experiment.
        (["experiment=demo"], {"name": "demo", "data.name": "digits", "backbone.name": "lenet"}),
        (["experiment=demo", "cycles=2", "strategy=random"], {"cycles": 2,
                                                              "strategy.name": "random",
                                                              "loss_prediction.enabled": False}),
        (["experiment=demo", "backbone=vgg16", "optimizer.lr=0.3"], {"backbone.name": "vgg16",
                                                                     "optimizer.lr": 0.3}),
        (["experiment=demo", "cycle.epochs=3"], {"cycle.epochs": 3, "cycle.name": "quick"}),
        # The name of the run folder follows what was chosen.
        (["data=digits"], {"name": "cifar10-digits"}),
        (["data=digits", "name=mine"], {"name": "mine"}),
    ],
)  # fmt: skip
def test_the_more_particular_wins(overrides: list[str], expected: dict[str, Any]) -> None:
    """Defaults, then task and data, then the experiment, then the command line."""
    config = compose(*overrides)
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


@pytest.mark.parametrize("task", choices("task"))
def test_what_a_strategy_sets_is_in_force(task: str) -> None:
    """No task overrides how a strategy's loss-prediction module learns."""
    for strategy in choices("strategy"):
        own = OmegaConf.load(CONF / "strategy" / f"{strategy}.yaml").get("loss_prediction", {})
        if own:
            config = compose(f"task={task}", f"strategy={strategy}")
            assert {key: config.loss_prediction[key] for key in own} == own, strategy


def test_the_published_protocol_is_the_papers() -> None:
    """Yoo & Kweon, CVPR 2019, section 4.1: the numbers of the paper, and no others."""
    config = compose("task=cifar10", "cycle=paper")
    cycle = make(CycleSettings, plain(config.cycle), where="cycle")
    assert (cycle.initial_size, cycle.query_size, cycle.candidates) == (1000, 1000, 10000)
    assert (cycle.epochs, cycle.batch_size, cycle.schedule) == (200, 128, "step")
    assert (cycle.milestones, cycle.gamma, cycle.min_steps) == ((0.8,), 0.1, 0)
    assert not cycle.warm_start
    assert config.cycles == 10
    optimizer = OptimizerSettings.of(plain(config.optimizer))
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.1, 0.9, 5e-4)
    head = make(LossPredictionSettings, plain(config.loss_prediction), where="loss_prediction")
    assert (head.weight, head.margin, head.pairs) == (1.0, 1.0, "folded")
    assert (head.pool_size, head.width, head.detach_at) == (1, 128, 0.6)


@pytest.mark.parametrize("task", choices("task"))
def test_quick_protocols_compare_strategies_on_one_network(task: str) -> None:
    """Ten times the query as candidates, a floor of steps for fresh weights, and a module that
    moves no feature.
    """
    config = compose(f"task={task}", "cycle=quick", "cycle.query_size=7")
    cycle = make(CycleSettings, plain(config.cycle), where="cycle")
    assert cycle.num_candidates == 70
    assert cycle.min_steps >= (500 if config.optimizer.recipe == "scratch" else 0)
    assert cycle.merge_remainder
    head = make(LossPredictionSettings, plain(config.loss_prediction), where="loss_prediction")
    assert (head.detach_at, head.warm_up_epochs, head.weight) == (0.0, 0, 1.0)


@pytest.mark.parametrize("experiment", choices("experiment"))
def test_the_command_of_every_experiment_composes(experiment: str) -> None:
    """The command in its header composes, and every strategy that it names is there."""
    header = (CONF / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8")
    text = header.replace("\\\n#", " ").partition("experiments.run -m ")[2].splitlines()[0]
    settings = dict(setting.split("=", 1) for setting in text.split())
    assert settings.pop("experiment") == experiment
    first, *others = settings.pop("strategy").split(",")
    assert set(others) <= set(choices("strategy"))
    rest = [f"{key}={value.split(',')[0]}" for key, value in settings.items()]
    values = check(compose(f"experiment={experiment}", f"strategy={first}", *rest))
    assert values["strategy"]["name"] == first
    assert len(settings["seed"].split(",")) >= 3


def test_every_experiment_has_its_results() -> None:
    """Experiments but those for laptops are on the page of replications or on that of results."""
    docs = CONF.parent / "docs"
    text = "".join(
        (docs / f"{n}.md").read_text(encoding="utf-8") for n in ("replications", "results")
    )
    ours = ("demo", "_laptop")
    others = {name for name in choices("experiment") if not name.endswith(ours)}
    assert {name for name in others if f"={name} " in text or f"`{name}`" in text} == others


@pytest.mark.parametrize(
    "path", sorted(CONF.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_file_says_what_it_is(path: Path) -> None:
    """Every choice begins with a comment that explains it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(line for line in lines if not line.startswith("# @package"))
    assert first.startswith("# ")
    assert all(len(line) <= 120 for line in lines)
