"""How the configurations of older runs and checkpoints are read: moved modules and added keys.

A run folder's `config.yaml` and a checkpoint hold the `_target_` of every part. Version 0.2 moved
modules without other changes, so older configurations are read with the present names. A key that
was added later stands for something that was fixed before, so a configuration without the key is
read as if it had the fixed value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOVED = {
    "experiments.queried.": "experiments.units.unit.",
    "experiments.regions.": "experiments.units.regions.",
    "experiments.backbones.drn_seg": "experiments.models.drn.drn_seg",
    "experiments.backbones.light_ssd": "experiments.models.ssd.light_ssd",
    "experiments.backbones.ssd300": "experiments.models.ssd.ssd300",
    "experiments.tracking.": "experiments.runs.tracker.",
    "experiments.data.unlabeled.": "experiments.annotation.unlabeled.",
}
"""Former -> present beginning of a `_target_`."""

ADDED: Mapping[str, Any] = {
    "cycle.initial": "random",
    "cycle.semi_supervised": None,
    "data.resize": "crop",
    "data.test_fraction": None,
    "data.classification.resize": "crop",
    "data.classification.test_fraction": None,
    "task.build.dropout_rate": 0.5,
    "task.build.augmentation": "cifar",
    "task.build.min_area": 0.35,
    "task.build.color_jitter": 0.0,
    "task.build.randaugment": 0,
    "task.build.mirroring": "random",
    "task.build.label_smoothing": 0.0,
    "cycle.merge_remainder": False,
    "engine.cuda_graphs": False,
    "engine.resident": False,
    "engine.seeds_per_process": 1,
    "loss_prediction.output_tap": False,
    "loss_prediction.layers": None,
    "optimizer._target_": "torch.optim.SGD",
    "optimizer.recipe": "scratch",
    "optimizer.backbone_lr_scale": 1.0,
    "optimizer.loss_prediction_lr_scale": 1.0,
    "optimizer.warm_up": 0.0,
    "optimizer.max_grad_norm": None,
    "backbone.recipe": "scratch",
    "backbone.frozen": False,
    "backbone.head": "linear",
    "backbone.frozen_stages": 0,
    "backbone.frozen_batch_norm": False,
    "backbone.image_size": None,
    "backbone.mean": None,
    "backbone.std": None,
    "backbone.interpolation": None,
    "data.image_size": 32,
    "data.interpolation": "area",
    "data.lazy": False,
    "data.near_duplicates": "keep",
    "data.classification.image_size": 32,
    "data.classification.interpolation": "area",
    "data.classification.lazy": False,
}
"""Key that configurations of 0.1 lack -> the value that is the same as having no such key."""

OF_SOME: Mapping[str, Any] = {
    "strategy.query.embedding": "model",
    "strategy.query.first.embedding": "model",
}
"""The same for keys that not every choice of a group has, so that they are only added where the
present configuration has them."""


def with_added_keys(
    older: Mapping[str, Any], present: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a configuration with the keys of `ADDED` that it lacks.

    Args:
        older: The configuration of a run or checkpoint.
        present: Only keys that this configuration has are added; None adds every key whose group
            `older` has.
    """
    if present is not None:
        return _completed(older, present, "")
    filled = dict(older)
    for dotted, value in ADDED.items():
        *groups, name = dotted.split(".")
        node: dict[str, Any] | None = filled
        for group in groups:
            inner = None if node is None else node.get(group)
            if node is not None and isinstance(inner, Mapping):
                node[group] = inner = dict(inner)
            node = inner if isinstance(inner, dict) else None
        if node is not None:
            node.setdefault(name, value)
    return filled


def _completed(older: Mapping[str, Any], present: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = dict(older)
    for key, value in present.items():
        where = f"{prefix}{key}"
        if key not in found and where in (known := {**ADDED, **OF_SOME}):
            found[key] = known[where]
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = _completed(found[key], value, f"{where}.")
    return found


def in_force(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's configuration without what has no influence on it.

    These are the tables of its task, such as `task.protocols`, from which other keys take their
    values, and the parts of its data set and its backbone that serve other tasks: a protocol or a
    task that a run does not use may change, or be new.
    """
    task = config.get("task")
    if not isinstance(task, Mapping):
        return dict(config)
    kept = {k: v for k, v in task.items() if k == "build" or not isinstance(v, Mapping)}
    parts = {
        group: {
            key: value
            for key, value in choice.items()
            if key == task.get("kind") or not (isinstance(value, Mapping) and "_target_" in value)
        }
        for group in ("data", "backbone")
        if "kind" in task and isinstance(choice := config.get(group), Mapping)
    }
    return {**config, **parts, "task": kept}


def with_present_names(node: Any) -> Any:
    """Return a copy of a plain configuration in which every `_target_` has its present name."""
    if isinstance(node, Mapping):
        return {
            key: _renamed(value) if key == "_target_" else with_present_names(value)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [with_present_names(each) for each in node]
    return node


def _renamed(target: Any) -> Any:
    for old, new in MOVED.items():
        if isinstance(target, str) and target.startswith(old):
            return new + target.removeprefix(old)
    return target
