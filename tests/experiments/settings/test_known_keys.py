"""Suggested keys exist in the configuration that the command line chooses."""

from __future__ import annotations

import re

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException

from experiments.settings.messages import line


def refusal(*arguments: str, config_name: str = "config") -> str:
    """Return the line for arguments that Hydra refuses."""
    with (
        pytest.raises(ConfigCompositionException) as refused,
        initialize_config_module("conf", version_base="1.3"),
    ):
        compose(config_name, list(arguments))
    return line(refused.value, arguments=arguments, config_name=config_name)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["cycels=3"], "unknown key cycels: did you mean cycles? the configuration has backbone, "),
        (["cycle.epoch=3"], "unknown key cycle.epoch: did you mean cycle.epochs? cycle has batch_"),
        (["cycel.epochs=3"], "unknown key cycel.epochs: did you mean cycle.epochs? the config"),
        (["cycel.nothing=3"], "unknown key cycel.nothing: did you mean cycle? the configuration"),
        (["foo=1"], "unknown key foo; the configuration has backbone, checkpoint_minutes, cycle, "),
        (["backbone.weights=x"], "unknown key backbone.weights; backbone has classification, f"),
        (["task=drn_cityscapes", "backbone.weights=x"],
         "unknown key backbone.weights: did you mean backbone.segmentation.weights? backbone has "
         "frozen, frozen_batch_norm"),
        (["task=ssd_voc", "backbone=vgg16", "backbone.detection.weights=x"],
         "unknown key backbone.detection.weights; backbone.detection has trunk"),
        (["task=ssd_voc", "backbone=light_ssd", "backbone.detection.sise=96"],
         "backbone.detection.sise: did you mean backbone.detection.size?"),
        (["data=digits", "data.root=x"], "unknown key data.root; data has classification, det"),
        (["experiment=demo", "cycle.epoch=3"], "did you mean cycle.epochs?"),
        (["seed.x=1"], "unknown key seed.x; seed is a value, without keys (--cfg job shows all)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_suggestions_are_keys_of_the_chosen_groups(arguments: list[str], says: str) -> None:
    """The line names the key that was meant, if there is one, and those of the node."""
    text = refusal(*arguments)
    assert says in text
    assert len(text.splitlines()) == 1
    assert "_target_" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["backbone.weights=x"],
        ["backbone.weight=x"],
        ["task=drn_cityscapes", "backbone.weights=imagenet"],
        ["task=drn_cityscapes", "backbone.weight=imagenet"],
        ["task=ssd_voc", "backbone.trunks=scratch"],
        ["data.rot=x"],
        ["strategy.size=3"],
        ["optimiser.lr=0.1"],
    ],
    ids=" ".join,
)
def test_a_suggested_key_is_accepted(arguments: list[str]) -> None:
    """Following a suggestion never leads to another one."""
    *choices, wrong = arguments
    meant = re.search(r"did you mean ([\w.]+)\?", refusal(*arguments))
    if meant is not None:
        with initialize_config_module("conf", version_base="1.3"):
            compose("config", [*choices, f"{meant[1]}={wrong.partition('=')[2]}"])


def test_a_ranking_has_keys_of_its_own() -> None:
    """Keys are those of the command's own configuration."""
    text = refusal("imges=x", config_name="rank")
    assert "unknown key imges: did you mean images? the configuration has batch_size," in text
    text = refusal("task=cifar10", "strategy.size=3", config_name="rank")
    assert "unknown key strategy.size: no strategy is chosen; add strategy=... (" in text


def test_choices_from_elsewhere_are_not_guessed_at() -> None:
    """With choices outside the project nothing is listed that might be wrong."""
    error = ConfigCompositionException("Could not override 'task.x'.")
    text = line(error, arguments=["--config-dir=mine", "task=mine"])
    assert text == "error: unknown key task.x (--cfg job shows all)"
