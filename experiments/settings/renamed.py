"""Read the configurations of older runs and checkpoints as present ones.

A run folder's `config.yaml` and a checkpoint hold the `_target_` of every part. The moves of 0.2
changed these names and nothing else. Keys that were added since have a value that stands for what
runs did before, so an older run can be resumed.
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
"""Beginning of a `_target_` as it was -> as it is."""

ADDED: dict[str, Any] = {
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
    "data.classification.image_size": 32,
    "data.classification.interpolation": "area",
    "data.classification.lazy": False,
}
"""Dotted key that older configurations lack -> the value that changes nothing."""


def with_added_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain configuration with the keys that were added after it was written.

    Groups that it does not have stay absent.
    """
    filled = dict(config)
    for key, value in ADDED.items():
        *groups, name = key.split(".")
        node: dict[str, Any] | None = filled
        for group in groups:
            inner = None if node is None else node.get(group)
            if node is not None and isinstance(inner, Mapping):
                node[group] = inner = dict(inner)
            node = inner if isinstance(inner, dict) else None
        if node is not None:
            node.setdefault(name, value)
    return filled


def with_present_names(node: Any) -> Any:
    """Return a plain configuration in which every `_target_` has its present name."""
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
