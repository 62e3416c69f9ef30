"""From Hydra's configuration to objects, and every check that Hydra does not make.

Hydra composes and type-checks top-level keys; inside the groups it accepts anything. Here unknown
keys are refused, values are checked by the constructors they are handed to, and whatever is wrong
becomes one line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from al_core.errors import ActiveLearningError, InvalidSetting, require_positive
from experiments.settings.checks import check_flag, check_number, check_whole_number

T = TypeVar("T")

GROUPS = ("task", "backbone", "cycle", "strategy", "query", "data", "oracle", "engine", "tracker")
WHOLE = "images"
"""The choice of `query` in which a sample of the pool is an image."""
_LONGEST_LEVEL = 120  # characters of a folder's name; file systems stop at 255 bytes


def build(node: DictConfig, **arguments: Any) -> Any:
    """Call what the node's `_target_` names, with the node's keys and `arguments`.

    Raises:
        InvalidSetting: A key that the target does not take, or a value that it refuses; one line.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    where = str(node._get_full_key("")) or "configuration"
    try:
        # Hydra would take a dataclass among the arguments for configuration, so they come after it.
        make = instantiate(node, _partial_=True, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, ActiveLearningError):
            raise cause from None
        raise InvalidSetting(f"{where}: {_first_line(cause)}") from error
    except OmegaConfBaseException as error:
        raise InvalidSetting(_first_line(error)) from None
    for key, value in make.keywords.items():
        if isinstance(value, partial):  # a function with some of its arguments: `_partial_: true`
            _check_call(
                f"{where}.{key}", inspect.signature(value.func).bind_partial, value.keywords
            )
    _check_call(where, inspect.signature(make.func).bind, {**make.keywords, **arguments})
    return make(**arguments)


def _check_call(where: str, bind: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    try:
        bind(**arguments)
    except TypeError as error:
        raise InvalidSetting(f"{where}: {_first_line(error)}") from None


def settings(kind: type[T], node: DictConfig) -> T:
    """Make a settings dataclass of a node; its `name`, if the class has none, is left out.

    Raises:
        InvalidSetting: Unknown or missing keys, or a value that the class refuses.
    """
    where = node._get_full_key("")
    values = dict(plain(node))
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if "name" not in fields:
        values.pop("name", None)
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise InvalidSetting(
            f"unknown key {where}.{unknown[0]}; there are {', '.join(sorted(fields))}"
        )
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING
    ]
    if missing:
        raise InvalidSetting(f"{where}.{missing[0]} is not set")
    return kind(**values)


def plain(node: DictConfig | ListConfig) -> Any:
    """Return the node as dicts and lists with every interpolation resolved.

    Raises:
        InvalidSetting: A mandatory value is missing or an interpolation leads nowhere.
    """
    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if "Missing mandatory value" in str(error):
            raise InvalidSetting(f"{key} must be given: {key}=...") from None
        raise InvalidSetting(_first_line(error)) from None


def serving(group: DictConfig, kind: str, *, group_name: str) -> DictConfig:
    """Return the part of a choice of `data` or `backbone` that serves this kind of task.

    Raises:
        InvalidSetting: The choice does not serve it.
    """
    part = group.get(kind)
    if part is None:
        kinds = [key for key, value in group.items() if OmegaConf.is_config(value)]
        raise InvalidSetting(
            f"{group_name}={group.name} does not serve {kind}; it serves "
            + ", ".join(map(str, kinds))
        )
    assert isinstance(part, DictConfig)
    return part


@dataclasses.dataclass(frozen=True)
class CycleSettings:
    """What one cycle consists of.

    Attributes:
        initial_size: Labels that cycle 0 trains on, drawn at random.
        query_size: Labels added by each further cycle.
        candidates: A strategy is shown this many randomly drawn unlabeled samples; null for all.
        epochs: Passes over the labeled samples.
        min_steps: Epochs are added until there are this many optimizer steps: a handful of labels
            would otherwise be trained on for a handful of steps.
        batch_size: Over all processes together.
        schedule: "step" (lr times `gamma` at each of `milestones`) or "cosine" (to 0).
        milestones: Fractions of the training length, in (0, 1), ascending.
        gamma: Factor of "step".
        warm_start: Go on from the weights of the previous cycle instead of fresh ones.
    """

    initial_size: int
    query_size: int
    candidates: int | None
    epochs: int
    batch_size: int
    min_steps: int = 0
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.8,)
    gamma: float = 0.1
    warm_start: bool = False

    def __post_init__(self) -> None:
        for name in ("initial_size", "query_size", "epochs"):
            require_positive(f"cycle.{name}", getattr(self, name))
        if self.candidates is not None:
            require_positive("cycle.candidates", self.candidates)
            if self.candidates < self.query_size:
                raise InvalidSetting(
                    f"cycle.candidates={self.candidates} is less than "
                    f"cycle.query_size={self.query_size}"
                )
        require_positive("cycle.batch_size", self.batch_size)
        if self.batch_size < 2:
            raise InvalidSetting("cycle.batch_size must be at least 2: a ranking needs a pair")
        check_whole_number("cycle.min_steps", self.min_steps, low=0)
        if self.schedule not in ("step", "cosine"):
            raise InvalidSetting(f"cycle.schedule must be step or cosine, got {self.schedule!r}")
        listed = isinstance(self.milestones, (list, tuple))
        bounds = (0.0, *self.milestones, 1.0) if listed else ()
        if (
            not listed
            or not all(isinstance(bound, (int, float)) for bound in bounds)
            or not all(early < late for early, late in pairwise(bounds))
        ):
            raise InvalidSetting(
                "cycle.milestones must be ascending fractions between 0 and 1, got "
                f"{self.milestones!r}"
            )
        object.__setattr__(self, "milestones", tuple(self.milestones))
        check_number("cycle.gamma", self.gamma, low=0.0)
        check_flag("cycle.warm_start", self.warm_start)


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Stochastic gradient descent.

    Attributes:
        lr: Learning rate at the start.
        momentum: Of SGD.
        weight_decay: On every parameter.
        nesterov: Nesterov's momentum.
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_number("optimizer.lr", self.lr, low=0.0)
        check_number("optimizer.momentum", self.momentum, low=0.0)
        check_number("optimizer.weight_decay", self.weight_decay, low=0.0)
        check_flag("optimizer.nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise InvalidSetting("optimizer.nesterov=true needs optimizer.momentum above 0")


@dataclasses.dataclass(frozen=True)
class LossPredictionSettings:
    """The loss-prediction module and its part in training.

    Attributes:
        enabled: Whether models get one; a strategy that asks for predicted losses turns it on.
        weight: The factor lambda of the ranking loss.
        margin: The margin xi of the ranking loss.
        pairs: "folded" (sample i with b-1-i, as published) or "all".
        pool_size: Side of the pooled features.
        width: Width of the hidden layer of each feature.
        detach_at: From this fraction of the training length on, its gradient stops at the features.
        warm_up_epochs: Epochs at the start without the ranking loss.
        loss: What the module is trained by: "ranking", as published, or "mse", the squared error,
            the paper's ablation.
    """

    enabled: bool = False
    weight: float = 1.0
    margin: float = 1.0
    pairs: str = "folded"
    pool_size: int = 1
    width: int = 128
    detach_at: float = 0.6
    warm_up_epochs: int = 0
    loss: str = "ranking"

    def __post_init__(self) -> None:
        check_flag("loss_prediction.enabled", self.enabled)
        check_number("loss_prediction.weight", self.weight, low=0.0)
        check_number("loss_prediction.margin", self.margin, low=0.0)
        require_positive("loss_prediction.pool_size", self.pool_size)
        require_positive("loss_prediction.width", self.width)
        if self.margin == 0 or self.pairs not in ("folded", "all"):
            raise InvalidSetting(
                "loss_prediction.margin must be above 0 and loss_prediction.pairs folded or all, "
                f"got {self.margin!r} and {self.pairs!r}"
            )
        check_number("loss_prediction.detach_at", self.detach_at, low=0.0, high=1.0)
        check_whole_number("loss_prediction.warm_up_epochs", self.warm_up_epochs, low=0)
        if self.loss not in ("ranking", "mse"):
            raise InvalidSetting(f"loss_prediction.loss must be ranking or mse, got {self.loss!r}")


def check_top_level(config: DictConfig) -> None:
    """Check the keys that belong to no group, and that no key was invented beside them.

    Raises:
        InvalidSetting: As it says.
    """
    known = {
        *GROUPS, "optimizer", "loss_prediction", "name", "out", "seed", "cycles",
    }  # fmt: skip
    if "reduction" in config.task.build:  # a task whose loss of an image is a matter of choice
        known.add("loss")
    unknown = sorted(set(map(str, config)) - known)
    if unknown:
        raise InvalidSetting(f"unknown key {unknown[0]}; there are {', '.join(sorted(known))}")
    for key in ("name", "out"):
        if not isinstance(config[key], str) or not config[key].strip():
            raise InvalidSetting(f"{key} must be text, got {config[key]!r}")
    _check_groups(config)
    _check_combinations(config)
    require_positive("cycles", config.cycles)
    check_whole_number("seed", config.seed, low=0)


_KNOWN_KEYS = {
    "task": {"name", "kind", "metric", "build", "background"},
    "strategy": {"name", "query", "mc_dropout_passes", "ensemble_size"},
    "backbone": {"name"},
    "data": {"name"},
    "loss": {"reduction"},
    "query": {"name"},
}
"""Of the groups that are neither built nor made settings of, which refuse keys themselves."""


def _check_groups(config: DictConfig) -> None:
    """Refuse keys that would do nothing."""
    for group, own in _KNOWN_KEYS.items():
        if group not in config:
            continue
        choice: dict[str, Any] = OmegaConf.to_container(config[group])  # type: ignore[assignment]
        parts = {key: part for key, part in choice.items() if isinstance(part, dict)}
        known = set(own)
        if group == "task":  # tables that other keys look their values up in, by data or cycle
            known |= set(parts)
        elif group in ("data", "backbone", "query"):
            # What a choice has for a kind of task is built, and refuses keys then; what stands
            # beside it is there to be set, and interpolated into it.
            known |= {*parts, *(key for part in parts.values() for key in part)}
        unknown = sorted(set(choice) - known)
        if unknown:
            raise InvalidSetting(
                f"unknown key {group}.{unknown[0]}; there are {', '.join(sorted(known))}"
            )


def _check_combinations(config: DictConfig) -> None:
    """Refuse choices that do not go together."""
    if "mc_dropout_passes" in config.strategy and "mc_dropout_passes" not in config.task.build:
        raise InvalidSetting(
            f"strategy={config.strategy.name} needs posterior samples, which the networks of "
            f"task={config.task.name} cannot give by Monte-Carlo dropout; an ensemble can"
        )
    if "query" in config and config.query.name != WHOLE:
        if config.loss_prediction.enabled:
            raise InvalidSetting(
                f"query={config.query.name} ranks parts of images, and the loss-prediction module "
                f"knows the loss of a whole one: with strategy={config.strategy.name} use "
                f"query={WHOLE}, or another strategy without loss_prediction.enabled=true"
            )
        if config.oracle.name == "people":
            raise InvalidSetting(f"oracle=people labels whole images: use query={WHOLE}")


def strategy_label(values: Mapping[str, Any]) -> str:
    """Return the name of a configuration's strategy, and of what it queries if not images."""
    strategy, query = str(values["strategy"]["name"]), str(values["query"]["name"])
    return strategy if query == WHOLE else f"{strategy}-{query}"


def run_path(values: Mapping[str, Any], *, swept: str = "") -> Path:
    """Return the run folder of a resolved configuration: <out>/<name>/<strategy>/seed<seed>.

    Args:
        values: The configuration.
        swept: What else a sweep varies, as key=value, for a level of its own above the strategy;
            what a folder's name cannot hold is replaced, and an endless one cut.
    """
    level = re.sub(r"[^\w.,=+-]", "_", swept)
    if len(level) > _LONGEST_LEVEL:
        level = f"{level[:_LONGEST_LEVEL]}-{hashlib.sha256(swept.encode()).hexdigest()[:8]}"
    parts = (values["name"], level, strategy_label(values), f"seed{values['seed']}")
    return Path(values["out"]).joinpath(*parts)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return `key: theirs -> ours` for every leaf in which two plain configurations differ."""
    found: list[str] = []
    for key in sorted({*ours, *theirs}):
        mine, other = ours.get(key), theirs.get(key)
        if isinstance(mine, Mapping) and isinstance(other, Mapping):
            found += differences(mine, other, f"{prefix}{key}.")
        elif mine != other:
            found.append(f"{prefix}{key}: {other} -> {mine}")
    return found


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
