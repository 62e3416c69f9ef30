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
    "data.resize": "crop",
    "data.test_fraction": None,
    "data.classification.resize": "crop",
    "data.classification.test_fraction": None,
    "task.build.augmentation": "cifar",
    "task.build.min_area": 0.35,
    "task.build.color_jitter": 0.0,
    "task.build.randaugment": 0,
}
"""Key that configurations of 0.1 lack -> the value that is the same as having no such key."""


def with_added_keys(older: Mapping[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """Return `older` with those keys of `ADDED` that `present` has and it lacks."""
    return _completed(older, present, "")


def _completed(older: Mapping[str, Any], present: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = dict(older)
    for key, value in present.items():
        where = f"{prefix}{key}"
        if key not in found and where in ADDED:
            found[key] = ADDED[where]
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = _completed(found[key], value, f"{where}.")
    return found


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
