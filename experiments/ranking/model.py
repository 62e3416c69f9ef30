"""A trained model from a file: the checkpoint of a run, or weights that somebody published."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import conf
from al_core.errors import InvalidSetting
from experiments.data.blank import published_facts
from experiments.ranking.checkpoint import (
    GROUPS,
    RunCheckpoint,
    checked_run,
    checked_state_dict,
    is_of_run,
    read_content,
)
from experiments.ranking.settings import ModelSettings, RankSettings
from experiments.settings.composition import plain
from vendored.checkpoints import find_state_dict

HEAD_KEY = "loss_pred.weight"
"""In the weights of a model with a loss-prediction module."""
DEFAULT_STRATEGY = "entropy"
SCORING_TARGET = "al_core.TopK"
"""Target of the strategies that score each image by itself; others select images jointly."""

SEVERAL_NETWORKS = {"ensemble_size", "snapshot_at"}
"""Keys of strategies that compare networks."""


@dataclass(frozen=True)
class TrainedModel:
    """A trained model with everything that scoring needs; it can be pickled.

    Attributes:
        config: Groups `GROUPS` of a run's configuration, plain and resolved.
        class_names: Class names without background.
        data_facts: As `Task.data_facts`.
        posterior_seed: As `TaskLearner.posterior_seed`.
        weights: The state_dict, as `torch.save` writes it.
        sha256: Hash of the file.
        description: Description of the model and the strategy, for people.
    """

    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    data_facts: Mapping[str, Any]
    posterior_seed: int
    weights: bytes
    sha256: str
    description: str

    @property
    def kind(self) -> str:
        """The kind of task."""
        return str(self.config["task"]["kind"])

    @property
    def scores_images(self) -> bool:
        """True if the strategy gives each image a score; otherwise it chooses images together."""
        return bool(self.config["strategy"]["query"]["_target_"] == SCORING_TARGET)


def read_model(settings: RankSettings | ModelSettings, groups: Mapping[str, Any]) -> TrainedModel:
    """Read the checkpoint, and determine the strategy that scores with it.

    Args:
        settings: Path of the checkpoint, and whether it is trusted.
        groups: The chosen groups of the configuration, resolved: `strategy`, `task`, `backbone` and
            so on.

    Raises:
        InvalidSetting: The file cannot be read safely, is neither kind of checkpoint, or lacks
            something that the command line does not give either.
    """
    path = settings.checkpoint
    content, sha256 = read_content(path)
    if is_of_run(content):
        run = checked_run(path, content, trusted=settings.trust_checkpoint)
        return _of_run(settings, run, groups, sha256)
    return _published(settings, content, groups, sha256)


def last_checkpoint(run: Path) -> Path:
    """Return the checkpoint of the last cycle that a run has recorded.

    Args:
        run: A run folder, or a checkpoint, which is returned as it is.

    Raises:
        InvalidSetting: There is none.
    """
    if run.is_file():
        return run
    if not (run / "config.yaml").is_file():
        raise InvalidSetting(f"{run} is no run folder: it has no config.yaml")
    try:
        state = json.loads((run / "state.json").read_bytes())
        name = state["checkpoint"]
    except (OSError, ValueError, TypeError, KeyError):
        name = None
    path = run / "checkpoints" / name if isinstance(name, str) and Path(name).name == name else None
    if path is None or not path.is_file():
        raise InvalidSetting(
            f"{run} has no checkpoint: no cycle has been trained yet, or the file was removed"
        )
    return path


def trained_model(checkpoint: Path, *, trust_checkpoint: bool = False) -> TrainedModel:
    """Return the model of a run's checkpoint for predictions, without posterior samples.

    Raises:
        InvalidSetting: As `read_model`.
    """
    settings = ModelSettings(checkpoint, trust_checkpoint=trust_checkpoint)
    return read_model(settings, {"strategy": _default_strategy()})


def _of_run(
    settings: RankSettings | ModelSettings,
    run: RunCheckpoint,
    groups: Mapping[str, Any],
    sha256: str,
) -> TrainedModel:
    path, config = settings.checkpoint, run.config
    for key in ("class_names", "mean", "std", "image_size"):
        if getattr(settings, key) is not None:
            raise InvalidSetting(
                f"{key} is for published weights; the run that wrote {path} recorded its own"
            )
    for group in ("task", "backbone"):
        chosen = groups.get(group)
        if chosen is not None and chosen["name"] != config[group]["name"]:
            raise InvalidSetting(
                f"{path} is of a run with {group}={config[group]['name']}: leave out "
                f"{group}={chosen['name']}"
            )
    trained_for = str(config["strategy"]["name"])
    strategy, reason = groups.get("strategy"), "as asked"
    if strategy is None:
        strategy, reason = config["strategy"], "that of the run"
        if strategy["query"]["_target_"] != SCORING_TARGET or SEVERAL_NETWORKS & set(strategy):
            strategy = _default_strategy()
            reason = f"since the run's own, {trained_for}, gives images no scores of their own"
    return _model(
        {**config, "strategy": strategy},
        settings,
        class_names=run.class_names,
        data_facts=run.data_facts,
        posterior_seed=run.posterior_seed,
        state=run.model,
        sha256=sha256,
        description=f"cycle {run.cycle} of a run of {config['task']['name']}, "
        f"{config['backbone']['name']}, {trained_for}; strategy={strategy['name']}, {reason}",
        own_strategy=strategy is config["strategy"],
    )


def _published(
    settings: RankSettings | ModelSettings, content: Any, groups: Mapping[str, Any], sha256: str
) -> TrainedModel:
    path = settings.checkpoint
    if groups.get("task") is None:
        raise InvalidSetting(
            f"{path} is not the checkpoint of a run: name the network of its weights by task=... "
            "and backbone=..., for example task=cifar10 backbone=resnet18"
        )
    try:
        state = checked_state_dict(path, find_state_dict(content))
    except InvalidSetting:
        raise
    except ValueError as error:
        raise InvalidSetting(f"{path}: {error}") from None
    task, backbone = groups["task"], groups["backbone"]
    names, facts = published_facts(task["kind"])
    if settings.class_names is not None:
        names = settings.class_names
        facts.pop("palette", None)  # which is of the published classes
    for key in ("mean", "std", "image_size"):
        value = getattr(settings, key)
        if value is not None and key not in facts:
            raise InvalidSetting(f"{key} is fixed in {task['kind']} (task={task['name']})")
        if value is not None:
            facts[key] = list(value) if key != "image_size" else value
    strategy, reason = groups.get("strategy"), "as asked"
    if strategy is None:
        strategy, reason = _default_strategy(), "the default"
    head = {**groups["loss_prediction"], "enabled": HEAD_KEY in state}
    return _model(
        {**groups, "strategy": strategy, "loss_prediction": head},
        settings,
        class_names=names,
        data_facts=facts,
        posterior_seed=0,
        state=state,
        sha256=sha256,
        description=f"weights of {task['name']}, {backbone['name']}, {len(names)} classes; "
        f"strategy={strategy['name']}, {reason}",
        own_strategy=False,
    )


def _model(
    config: Mapping[str, Any],
    settings: RankSettings | ModelSettings,
    *,
    class_names: Sequence[str],
    state: Mapping[str, Any],
    own_strategy: bool,
    **known: Any,
) -> TrainedModel:
    strategy = config["strategy"]
    if SEVERAL_NETWORKS & set(strategy):
        raise InvalidSetting(
            f"strategy={strategy['name']} needs several networks, and a checkpoint holds one: "
            "choose entropy, margin, least_confidence or learning_loss"
        )
    if strategy["name"].startswith("learning_loss") and HEAD_KEY not in state:
        raise InvalidSetting(
            f"strategy={strategy['name']} needs a loss-prediction module, and "
            f"{settings.checkpoint} has none: rank with strategy=entropy, or train with "
            "strategy=learning_loss or loss_prediction.enabled=true"
        )
    kept = {group: config[group] for group in GROUPS}
    passes = strategy.get("mc_dropout_passes", 0)
    if own_strategy:  # as the run scored its pool, with the passes that were set there
        pass
    elif "mc_dropout_passes" in kept["task"]["build"]:
        build = {**kept["task"]["build"], "mc_dropout_passes": passes}
        kept["task"] = {**kept["task"], "build": build}
    elif passes:
        raise InvalidSetting(
            f"strategy={strategy['name']} needs posterior samples, which the networks of "
            f"task={config['task']['name']} cannot give"
        )
    weights = io.BytesIO()
    torch.save(dict(state), weights)
    return TrainedModel(
        config=kept, class_names=tuple(class_names), weights=weights.getvalue(), **known
    )


def _default_strategy() -> dict[str, Any]:
    from omegaconf import OmegaConf

    found: dict[str, Any] = plain(
        OmegaConf.load(Path(conf.__file__).parent / "strategy" / f"{DEFAULT_STRATEGY}.yaml")
    )
    return found
