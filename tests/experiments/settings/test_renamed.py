"""Names of before the modules moved lead to what they led to."""

from __future__ import annotations

from hydra.utils import get_object

from experiments.settings.renamed import MOVED, with_present_names

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
