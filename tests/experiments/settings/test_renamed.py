"""Names of before the modules moved lead to what they led to."""

from __future__ import annotations

from hydra.utils import get_object

from experiments.settings.renamed import ADDED, MOVED, with_added_keys, with_present_names
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


def test_added_keys_have_the_value_that_changes_nothing() -> None:
    """An older configuration gets them, a present one keeps its own."""
    older = {"loss_prediction": {"weight": 1.0}, "seed": 0}
    filled = with_added_keys(older)
    assert filled["loss_prediction"] == {"weight": 1.0, "layers": None}
    assert older == {"loss_prediction": {"weight": 1.0}, "seed": 0}
    own = {"loss_prediction": {"layers": ["a"]}}
    assert with_added_keys(own)["loss_prediction"] == own["loss_prediction"]


def test_every_added_key_exists_and_has_that_value_by_default() -> None:
    """The defaults of a pytorch-cifar network are those of runs before a key was there."""
    composed = compose("task=cifar10", "data=image_folder", "data.root=/data", "backbone=lenet")
    config = RunConfig.of(composed).values
    for key, value in ADDED.items():
        node = config
        for part in key.split("."):
            node = node[part]
        assert node == value, key
