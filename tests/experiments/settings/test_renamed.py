"""Configurations of earlier versions mean what they meant."""

from __future__ import annotations

import copy
from typing import Any

from hydra.utils import get_object

from experiments.settings.recipe import CycleSettings, LossPredictionSettings
from experiments.settings.renamed import (
    ADDED,
    MOVED,
    in_force,
    with_added_keys,
    with_present_names,
)
from experiments.settings.run_config import RunConfig
from tests.small_runs import compose

OLD = (
    "experiments.queried.WholeImages",
    "experiments.regions.Regions",
    "experiments.backbones.drn_seg",
    "experiments.backbones.light_ssd",
    "experiments.backbones.ssd300",
    "experiments.tracking.NoTracker",
    "experiments.tracking.WandbTracker",
    "experiments.data.unlabeled.classification",
    "experiments.data.unlabeled.detection",
    "experiments.data.unlabeled.segmentation",
)


def test_old_names_lead_somewhere() -> None:
    """Every name that moved is found where it is now, at any depth; others stay as they are."""
    for old in OLD:
        (renamed,) = with_present_names({"a": [{"_target_": old}]})["a"]
        assert renamed["_target_"] != old
        assert callable(get_object(renamed["_target_"])), old
    assert all(any(old.startswith(prefix) for old in OLD) for prefix in MOVED)
    own = {"_target_": "my_package.backbones.Net", "name": "experiments.backbones.ssd300"}
    assert with_present_names(own) == own


def test_added_keys_have_the_values_that_change_nothing() -> None:
    """Keys that an older configuration lacks are read as they were fixed, others not at all."""
    composed = compose("task=cifar10", "data=image_folder", "data.root=/data", "backbone=lenet")
    values = RunConfig.of(composed).values
    older = copy.deepcopy(values)
    for key in ADDED:
        *parents, last = key.split(".")
        node = older
        for parent in parents:
            node = node[parent]
        del node[last]
    assert with_added_keys(older, values) == values
    strategy = {"strategy": {"query": {"neighbors": 20, "embedding": "pretrained"}}}
    before: dict[str, Any] = {"strategy": {"query": {"neighbors": 20}}}
    assert with_added_keys(before, strategy)["strategy"]["query"]["embedding"] == "model"
    assert with_added_keys(before) == before
    older["data"]["image_size"] = 64
    del older["data"]["flip"]
    completed = with_added_keys(older, values)
    assert completed["data"]["image_size"] == 64
    assert "flip" not in completed["data"]


def test_added_keys_change_nothing() -> None:
    """A run from before a key existed is read as if it had the key's default."""
    cycle = CycleSettings(initial_size=4, query_size=2, candidates=None, epochs=1, batch_size=4)
    filled = with_added_keys({"name": "x", "cycle": {}, "loss_prediction": {}})
    assert filled == {
        "name": "x",
        "cycle": {
            "initial": cycle.initial,
            "semi_supervised": cycle.semi_supervised,
            "merge_remainder": cycle.merge_remainder,
        },
        "loss_prediction": {
            "output_tap": LossPredictionSettings().output_tap,
            "layers": LossPredictionSettings().layers,
        },
    }
    set_already = {
        "cycle": {"initial": "typiclust", "semi_supervised": "flexmatch", "merge_remainder": True}
    }
    assert with_added_keys(set_already) == set_already


def test_parts_for_other_tasks_are_no_setting() -> None:
    """A data set or a backbone may learn to serve another task without ending older runs."""
    values = RunConfig.of(compose("task=drn_cityscapes", "data=digits", "strategy=entropy")).values
    older = copy.deepcopy(dict(values))
    assert {"classification", "pose"} <= set(older["data"])
    for group in ("data", "backbone"):
        for part in ("classification", "detection", "pose"):
            older[group].pop(part, None)
    assert in_force(older) == in_force(values)
    older["data"]["segmentation"]["num_scenes"] += 1
    assert in_force(older) != in_force(values)
    older["data"]["num_scenes"] += 1
    assert in_force(older)["data"] != in_force(values)["data"]


def test_tables_of_a_task_are_no_setting() -> None:
    """A protocol that a run does not use may change; what its task is built with may not."""
    task = {"name": "t", "build": {"a": 1}, "protocols": {"quick": {"epochs": 1}}}
    assert in_force({"task": task, "seed": 0}) == {
        "task": {"name": "t", "build": {"a": 1}},
        "seed": 0,
    }
