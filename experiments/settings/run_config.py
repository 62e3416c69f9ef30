"""The resolved and checked configuration of one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from al_core import Requirement
from al_core.errors import InvalidSetting, require_positive
from experiments.settings.checks import (
    DROP,
    KEEP,
    check_flag,
    check_near_duplicates,
    check_number,
    check_whole_number,
)
from experiments.settings.composition import build, check_keys, make, part_serving, plain
from experiments.settings.input_format import (
    DEFAULT_IMAGE_SIZE,
    DEFAULT_INTERPOLATION,
    InputFormat,
    input_format,
)
from experiments.settings.recipe import Recipe
from experiments.settings.run_path import LIVE, PEOPLE, WHOLE_IMAGES, run_path, strategy_label
from experiments.settings.stop_settings import StopSettings

GROUPS = ("task", "backbone", "cycle", "strategy", "query", "data", "oracle", "engine", "tracker")
TOP_LEVEL = {
    *GROUPS, "optimizer", "loss_prediction", "stop", "name", "out", "seed", "cycles",
    "checkpoint_minutes",
}  # fmt: skip
HEADS = ("linear", "mlp")
"""Heads on frozen features: one layer, or two."""
DEFAULT_FORMAT = {"image_size": DEFAULT_IMAGE_SIZE, "interpolation": DEFAULT_INTERPOLATION}
"""Keys of `data` that are null where the backbone decides, and what else they are."""
NO_WEIGHTS = (None, "none", "scratch")
"""Values of an argument `weights` that stand for random ones."""

FORMAT_KEYS = tuple(each.name for each in fields(InputFormat))
"""Keys of `backbone` that say more of a network's input than its constructor does."""
_KNOWN_KEYS = {
    "task": {"name", "kind", "metric", "build", "background"},
    "strategy": {"name", "query", "mc_dropout_passes", "ensemble_size", "snapshot_at"},
    "backbone": {
        "name",
        "recipe",
        "frozen",
        "head",
        "frozen_stages",
        "frozen_batch_norm",
        *FORMAT_KEYS,
    },
    "data": {"name", "near_duplicates"},
    "loss": {"reduction"},
    "query": {"name"},
}
"""Known keys of the groups that are not passed to one constructor as a whole."""


@dataclass(frozen=True)
class Backbone:
    """The constructor of a network, described by its configuration.

    Attributes:
        name: The choice of `backbone`.
        kind: The kind of task that the network serves.
        node: The constructor's `_target_` and arguments.
        frozen: Whether a head is trained on the network's features instead of the network.
        head: That head: "linear" or "mlp".
        given_format: What the choice says of the network's input, by the names of `InputFormat`.
    """

    name: str
    kind: str
    node: Mapping[str, Any]
    frozen: bool = False
    head: str = "linear"
    given_format: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, choice: Mapping[str, Any], kind: str) -> Backbone:
        """Read a choice of `backbone`.

        Raises:
            InvalidSetting: The choice has no network for this kind of task, or none with frozen
                weights.
        """
        part = part_serving(choice, kind, group="backbone")
        frozen, head = choice.get("frozen", False), choice.get("head", HEADS[0])
        check_flag("backbone.frozen", frozen)
        if head not in HEADS:
            raise InvalidSetting(f"backbone.head must be {' or '.join(HEADS)}, got {head!r}")
        if frozen and kind != "classification":
            raise InvalidSetting(f"backbone.frozen=true serves classification, not {kind}")
        if frozen and choice.get("frozen_stages"):
            raise InvalidSetting(
                "backbone.frozen=true freezes all stages: leave frozen_stages at 0"
            )
        given = {key: choice.get(key) for key in FORMAT_KEYS}
        return cls(str(choice["name"]), kind, part, frozen, head, given)

    @property
    def source(self) -> str:
        """The network and its arguments, for people."""
        arguments = [f"{k}={v}" for k, v in self.node.items() if k != "_target_" and v is not None]
        return f"backbone={self.name}" + (f" ({', '.join(arguments)})" if arguments else "")

    @property
    def input_format(self) -> InputFormat:
        """The images that the network expects.

        Raises:
            InvalidSetting: As `input_format.input_format`.
        """
        return input_format(self.node, self.given_format)

    def __call__(self, **arguments: Any) -> Any:
        """Build the network.

        Raises:
            InvalidSetting: As `composition.build`.
        """
        return build(self.node, where=f"backbone.{self.kind}", **arguments)


@dataclass(frozen=True)
class RunConfig:
    """A run's configuration.

    Attributes:
        values: The configuration as in `config.yaml`: plain values, interpolations resolved.
        recipe: The training recipe.
        stop: When the run ends early.
    """

    values: Mapping[str, Any]
    recipe: Recipe
    stop: StopSettings = field(default_factory=StopSettings)

    @classmethod
    def of(cls, composed: DictConfig) -> RunConfig:
        """Resolve and check a configuration as the command line composes it.

        Raises:
            InvalidSetting: An unknown key, a value out of range, or choices that do not fit
                together.
        """
        values = _completed(plain(composed))
        known = set(TOP_LEVEL)
        if "reduction" in values["task"]["build"]:  # a task that offers several losses
            known.add("loss")
        check_keys(values, known, where="")
        for key in ("name", "out"):
            if not isinstance(values[key], str) or not values[key].strip():
                raise InvalidSetting(f"{key} must be text, got {values[key]!r}")
        _check_groups(values)
        _check_combinations(values)
        require_positive("cycles", values["cycles"])
        require_positive("strategy.ensemble_size", values["strategy"].get("ensemble_size", 1))
        check_whole_number("seed", values["seed"], low=0)
        if values.get("checkpoint_minutes") is not None:
            check_number("checkpoint_minutes", values["checkpoint_minutes"], low=0.0)
        stop = make(StopSettings, values.get("stop", {}), where="stop")
        return cls(values, Recipe.of(values), stop)

    @property
    def seed(self) -> int:
        """The seed that decides every random draw."""
        return int(self.values["seed"])

    @property
    def cycles(self) -> int:
        """The number of cycles, each of which trains once."""
        return int(self.values["cycles"])

    @property
    def checkpoint_minutes(self) -> float | None:
        """Minutes between checkpoints within a training; None for no checkpoints."""
        minutes = self.values.get("checkpoint_minutes")
        return None if minutes is None else float(minutes)

    @property
    def kind(self) -> str:
        """The kind of task: classification, detection, segmentation or pose."""
        return str(self.values["task"]["kind"])

    @property
    def metric(self) -> str:
        """The name of the task's primary metric."""
        return str(self.values["task"]["metric"])

    @property
    def asks_people(self) -> bool:
        """True if people annotate, False if the data set has the labels."""
        return bool(self.values["oracle"]["name"] in PEOPLE)

    @property
    def checks_labels(self) -> bool:
        """True if labels that look wrong are listed: for classified whole images, if asked for."""
        is_asked = self.values["oracle"].get("check_labels", False)
        return bool(is_asked) and self.kind == "classification" and not self.queries_regions

    @property
    def is_live(self) -> bool:
        """True if the run itself exchanges tasks and annotations with a server."""
        return bool(self.values["oracle"]["name"] == LIVE)

    @property
    def ensemble_size(self) -> int:
        """The number of networks that each cycle trains."""
        return int(self.values["strategy"].get("ensemble_size", 1))

    @property
    def snapshot_at(self) -> float | None:
        """The fraction of a training after which an earlier network is kept; None for none."""
        at = self.values["strategy"].get("snapshot_at")
        return None if at is None else float(at)

    @property
    def provided(self) -> frozenset[Requirement]:
        """The parts of a prediction that the settings decide: all but embeddings."""
        found = set()
        if self.recipe.loss_prediction.enabled:
            found.add(Requirement.PREDICTED_LOSS)
        # A user's own task without that key may make posterior passes of its own.
        passes = self.values["task"]["build"].get("mc_dropout_passes", 2)
        several = self.ensemble_size > 1 or self.snapshot_at is not None
        if several or passes:
            found.add(Requirement.LOG_PROB_SAMPLES)
        if several or (isinstance(passes, int) and passes > 1):
            found.add(Requirement.SEVERAL_PASSES)
        return frozenset(found)

    @property
    def drops_near_duplicates(self) -> bool:
        """True if one image of each group of near-duplicates is offered."""
        return bool(self.values["data"].get("near_duplicates", KEEP) == DROP)

    @property
    def queries_regions(self) -> bool:
        """True if the samples of the pool are regions of images."""
        return bool(self.values["query"]["name"] != WHOLE_IMAGES)

    @property
    def strategy_label(self) -> str:
        """The name of the strategy, followed by its unit unless that is images."""
        return strategy_label(self.values)

    def path(self, *, swept: str = "") -> Path:
        """Return the path of the run folder; see `run_path`."""
        return run_path(self.values, swept=swept)

    def build(self, key: str, **arguments: Any) -> Any:
        """Build the node at a dotted key.

        Raises:
            InvalidSetting: As `composition.build`.
        """
        node: Any = self.values
        for part in key.split("."):
            node = node[part]
        return build(node, where=key, **arguments)

    def build_for_task(self, group: str, **arguments: Any) -> Any:
        """Build the part of a group's choice for the kind of task.

        Raises:
            InvalidSetting: The choice has no part for it, or as `composition.build`.
        """
        part = part_serving(self.values[group], self.kind, group=group)
        return build(part, where=f"{group}.{self.kind}", **arguments)

    def backbone(self) -> Backbone:
        """Return the constructor of the network for the kind of task.

        Raises:
            InvalidSetting: The backbone has none for it.
        """
        return Backbone.of(self.values["backbone"], self.kind)


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in the sizes of images, and how they are resized, that follow from the backbone."""
    kind = values["task"]["kind"]
    choice, backbone = values["data"], values["backbone"]
    nodes = [choice, *(part for part in choice.values() if isinstance(part, dict))]
    part_serving(backbone, kind, group="backbone")
    network = Backbone.of(backbone, kind)
    if backbone.get("frozen_batch_norm") and network.node.get("weights", "") in NO_WEIGHTS:
        raise InvalidSetting(
            f"backbone.weights={network.node['weights']} has no statistics of batch normalization "
            "to keep: set backbone.frozen_batch_norm=false"
        )
    for key, usual in DEFAULT_FORMAT.items():
        found = getattr(network.input_format, key)
        for node in nodes:
            if key in node and node[key] is None:
                node[key] = usual if found is None else found
    return values


def _check_groups(values: Mapping[str, Any]) -> None:
    """Refuse keys that would have no effect."""
    for group, own in _KNOWN_KEYS.items():
        choice = values.get(group, {})
        parts = {key: part for key, part in choice.items() if isinstance(part, Mapping)}
        known = set(own)
        if group == "task":  # its tables hold values by data or cycle, for other keys to look up
            known |= set(parts)
        elif group in ("data", "backbone", "query"):
            # Unknown keys inside a part are refused when it is built. The keys beside the parts are
            # settings that are interpolated into them.
            known |= {*parts, *(key for part in parts.values() for key in part)}
        check_keys(choice, known, where=group)


def _check_combinations(values: Mapping[str, Any]) -> None:
    """Refuse choices that do not fit together."""
    strategy, task, query = values["strategy"], values["task"], values["query"]
    check_near_duplicates("data.near_duplicates", values["data"].get("near_duplicates", KEEP))
    if "mc_dropout_passes" in strategy and "mc_dropout_passes" not in task["build"]:
        raise InvalidSetting(
            f"strategy={strategy['name']} needs posterior samples by Monte-Carlo dropout, which "
            f"the networks of task={task['name']} do not support; use an ensemble"
        )
    if "mc_dropout_passes" in strategy:
        passes = strategy["mc_dropout_passes"]
        check_whole_number("strategy.mc_dropout_passes", passes, low=0, high=1000)
    if strategy.get("snapshot_at") is not None:
        check_number("strategy.snapshot_at", strategy["snapshot_at"], low=0.01, high=0.99)
        if strategy.get("ensemble_size", 1) != 1 or strategy.get("mc_dropout_passes", 0):
            raise InvalidSetting(
                "strategy.snapshot_at gives two posterior samples of its own: leave out "
                "strategy.ensemble_size and strategy.mc_dropout_passes"
            )
    beside = values["engine"].get("seeds_per_process", 1)
    is_simulated = values["oracle"]["name"] not in PEOPLE
    if beside != 1 and not (task["kind"] == "classification" and is_simulated):
        raise InvalidSetting(
            f"engine.seeds_per_process={beside} serves classification without people: set 1"
        )
    if query["name"] == WHOLE_IMAGES:
        return
    if values["loss_prediction"]["enabled"]:
        raise InvalidSetting(
            f"query={query['name']} ranks parts of images, but the loss-prediction module "
            f"predicts the loss of a whole image: with strategy={strategy['name']} use "
            f"query={WHOLE_IMAGES}, or another strategy without loss_prediction.enabled=true"
        )
    if values["oracle"]["name"] in PEOPLE:
        raise InvalidSetting(f"oracle=people labels whole images: use query={WHOLE_IMAGES}")
