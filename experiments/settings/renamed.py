"""Former names of modules, for the configurations of older runs and checkpoints.

A run folder's `config.yaml` and a checkpoint hold the `_target_` of every part. Version 0.2 moved
modules without other changes, so older configurations are read with the present names.
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
