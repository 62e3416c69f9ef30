"""A trained model from a file: the checkpoint of a run, or weights that somebody published.

Files are read without running code from them, and of a configuration inside one only what this
project itself names in `conf` is called.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import conf
from al_core.errors import InvalidSetting
from experiments.data.blank import published_facts
from experiments.ranking.settings import RankSettings
from experiments.settings.composition import plain
from experiments.settings.renamed import with_present_names
from vendored.checkpoints import UNREADABLE, read_state_dict

RUN_KEYS = frozenset({"model", "config", "class_names", "data_facts", "posterior_seed"})
"""What the checkpoint of a run holds; see `experiments.runs.session`."""
HEAD_KEY = "loss_pred.weight"
"""In the weights of a model with a loss-prediction module."""
DEFAULT_STRATEGY = "entropy"
SCORING_TARGET = "al_core.TopK"
"""A strategy that gives each image a score of its own; any other chooses images together."""

SEVERAL_NETWORKS = {"ensemble_size", "snapshot_at"}
"""Keys of strategies that compare networks."""


@dataclass(frozen=True)
class TrainedModel:
    """What a process needs to score with; it can be pickled.

    Attributes:
        config: Plain and resolved: `task`, `backbone`, `strategy`, `cycle`, `optimizer` and
            `loss_prediction`, as of a run.
        class_names: Without background.
        data_facts: As `Task.data_facts`.
        posterior_seed: As `TaskLearner.posterior_seed`.
        weights: The state_dict, as `torch.save` writes it.
        sha256: Of the file.
        said: For people: what it is and how it is asked.
    """

    config: Mapping[str, Any]
    class_names: tuple[str, ...]
    data_facts: Mapping[str, Any]
    posterior_seed: int
    weights: bytes
    sha256: str
    said: str

    @property
    def kind(self) -> str:
        """The kind of task."""
        return str(self.config["task"]["kind"])


def read_model(settings: RankSettings, asked: Mapping[str, Any]) -> TrainedModel:
    """Read the checkpoint, and settle by which strategy it is asked.

    Args:
        settings: Where it is, and what it may call.
        asked: The groups of the configuration, resolved: `strategy`, `task`, `backbone` and so on;
            null where they are not chosen.

    Raises:
        InvalidSetting: The file cannot be read safely, is neither kind of checkpoint, or does not
            say enough.
    """
    path = settings.checkpoint
    data = path.read_bytes()
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # torch's own text advises to read the file without that protection.
        raise InvalidSetting(
            f"{path} cannot be read as a checkpoint: it is damaged, or asks to run code "
            f"({type(error).__name__})"
        ) from None
    if isinstance(content, Mapping) and "config" in content:
        missing = sorted(RUN_KEYS - set(content))
        if missing:
            raise InvalidSetting(
                f"{path} is no complete checkpoint of a run: it lacks {', '.join(missing)} (an "
                "earlier version wrote it, perhaps: resume the run, or train anew)"
            )
        return _of_run(settings, content, asked, hashlib.sha256(data).hexdigest())
    del content
    return _published(settings, asked, hashlib.sha256(data).hexdigest())


def _of_run(
    settings: RankSettings, content: Mapping[str, Any], asked: Mapping[str, Any], sha256: str
) -> TrainedModel:
    path, config = settings.checkpoint, with_present_names(content["config"])
    for key in ("class_names", "mean", "std", "image_size"):
        if getattr(settings, key) is not None:
            raise InvalidSetting(
                f"{key} is for published weights; the run that wrote {path} recorded its own"
            )
    for group in ("task", "backbone"):
        chosen = asked.get(group)
        if chosen is not None and chosen["name"] != config[group]["name"]:
            raise InvalidSetting(
                f"{path} is of a run with {group}={config[group]['name']}: leave out "
                f"{group}={chosen['name']}"
            )
    if not settings.trust_checkpoint:
        _check_targets(path, config)
    trained_for = str(config["strategy"]["name"])
    strategy, said = asked.get("strategy"), "as asked"
    if strategy is None:
        strategy, said = config["strategy"], "that of the run"
        if strategy["query"]["_target_"] != SCORING_TARGET or SEVERAL_NETWORKS & set(strategy):
            strategy = _default_strategy()
            said = f"since the run's own, {trained_for}, gives images no scores of their own"
    return _model(
        {**config, "strategy": strategy},
        settings,
        class_names=content["class_names"],
        data_facts=content["data_facts"],
        posterior_seed=content["posterior_seed"],
        state=content["model"],
        sha256=sha256,
        said=f"cycle {content['cycle']} of a run of {config['task']['name']}, "
        f"{config['backbone']['name']}, {trained_for}; strategy={strategy['name']}, {said}",
        own_strategy=strategy is config["strategy"],
    )


def _published(settings: RankSettings, asked: Mapping[str, Any], sha256: str) -> TrainedModel:
    path = settings.checkpoint
    if asked.get("task") is None:
        raise InvalidSetting(
            f"{path} is not the checkpoint of a run: say what its weights are of with task=... and "
            "backbone=..., for example task=cifar10 backbone=resnet18"
        )
    try:
        state = read_state_dict(path)
    except ValueError as error:
        raise InvalidSetting(str(error)) from None
    task, backbone = asked["task"], asked["backbone"]
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
    strategy, said = asked.get("strategy"), "as asked"
    if strategy is None:
        strategy, said = _default_strategy(), "the default"
    head = {**asked["loss_prediction"], "enabled": HEAD_KEY in state}
    return _model(
        {**asked, "strategy": strategy, "loss_prediction": head},
        settings,
        class_names=names,
        data_facts=facts,
        posterior_seed=0,
        state=state,
        sha256=sha256,
        said=f"weights of {task['name']}, {backbone['name']}, {len(names)} classes; "
        f"strategy={strategy['name']}, {said}",
        own_strategy=False,
    )


def _model(
    config: Mapping[str, Any],
    settings: RankSettings,
    *,
    class_names: Sequence[str],
    state: Mapping[str, Any],
    own_strategy: bool,
    **known: Any,
) -> TrainedModel:
    strategy = config["strategy"]
    if strategy["query"]["_target_"] != SCORING_TARGET:
        raise InvalidSetting(
            f"strategy={strategy['name']} gives images no scores of their own, so it cannot rank: "
            "choose entropy, margin, least_confidence or learning_loss"
        )
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
    kept = {
        key: config[key]
        for key in ("task", "backbone", "cycle", "strategy", "optimizer", "loss_prediction")
    }
    passes = strategy.get("mc_dropout_passes", 0)
    if own_strategy:  # as the run asked its pool, whatever was set by hand
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


@cache
def _own_targets() -> frozenset[str]:
    """What the files in `conf` call."""
    texts = (path.read_text("utf-8") for path in Path(conf.__file__).parent.rglob("*.yaml"))
    return frozenset(name for text in texts for name in re.findall(r"_target_: *([\w.]+)", text))


def _check_targets(path: Path, node: Any) -> None:
    """Refuse a configuration, from a file that may come from anywhere, that calls other things."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and target not in _own_targets():
            raise InvalidSetting(
                f"{path} asks to call {target}, which is not of this project: set "
                "trust_checkpoint=true if the checkpoint is your own"
            )
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for each in node:
            _check_targets(path, each)
