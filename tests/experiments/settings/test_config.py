"""The checks of a configuration that Hydra does not make."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from al_core import TopK
from al_core.errors import InvalidSetting
from experiments.settings.composition import build, differences, make, part_serving, plain
from experiments.settings.recipe import CycleSettings, LossPredictionSettings, OptimizerSettings
from experiments.settings.run_config import RunConfig
from tests.small_runs import compose, overrides

CYCLE = {"initial_size": 10, "query_size": 5, "candidates": None, "epochs": 2, "batch_size": 8}
TOP_K = {
    "_target_": "al_core.TopK",
    "acquisition": {"_target_": "al_core.entropy", "_partial_": True, "aggregation": "max"},
}


def node(**values: Any) -> DictConfig:
    """Return the node `part` of a configuration that holds `values` there."""
    part = OmegaConf.create({"part": values}).part
    assert isinstance(part, DictConfig)
    return part


# ---- build


def test_build_makes_what_the_target_names() -> None:
    """Keys and arguments are handed over, and functions keep the arguments that they were given."""
    made = build(TOP_K, where="part")
    assert isinstance(made, TopK)
    assert made.acquisition.keywords == {"aggregation": "max"}  # type: ignore[attr-defined]
    settings_are_no_config = OptimizerSettings(lr=0.1)  # Hydra itself would make a node of it
    made = build({"_target_": "al_core.Query"}, where="x", indices=settings_are_no_config)
    assert made.indices is settings_are_no_config


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"extra": 1}, "part: got an unexpected keyword argument 'extra'"),
        (
            {"acquisition": {**TOP_K["acquisition"], "extra": 1}},  # type: ignore[dict-item]
            "part.acquisition: got an unexpected keyword argument 'extra'",
        ),
        ({"acquisition": None}, "acquisition must be a function, got None"),
        ({"_target_": "al_core.Nothing"}, "al_core.Nothing"),
        ({"_target_": "nothing.at.all"}, "nothing.at.all"),
    ],
)
def test_build_refuses_in_one_line(change: dict[str, Any], says: str) -> None:
    """Unknown keys, at any depth, wrong values and wrong targets name the place."""
    with pytest.raises(InvalidSetting) as error:
        build({**TOP_K, **change}, where="part")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_build_names_a_missing_argument() -> None:
    """The error names the argument that a target lacks."""
    with pytest.raises(InvalidSetting, match="missing a required argument: 'acquisition'"):
        build({"_target_": "al_core.TopK"}, where="part")


# ---- settings


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (CycleSettings, CYCLE),
        (OptimizerSettings, {"lr": 0.1}),
        (LossPredictionSettings, {}),
    ],
)
def test_settings_refuse_unknown_and_missing_keys(kind: type, values: dict[str, Any]) -> None:
    """A key that does nothing is an error; so is one that is needed and not there."""
    made = make(kind, plain(node(name="a choice", **values)), where="part")
    assert dataclasses.asdict(made).items() >= values.items()
    with pytest.raises(InvalidSetting, match=r"unknown key part\.extra; there are "):
        make(kind, plain(node(**values, extra=1)), where="part")
    if values:
        key = next(iter(values))
        with pytest.raises(InvalidSetting, match=rf"part\.{key} is not set"):
            make(kind, plain(node(**{k: v for k, v in values.items() if k != key})), where="part")


def test_a_missing_value_names_its_key() -> None:
    """`???` asks for the override that is needed, and a broken interpolation names its key."""
    with pytest.raises(InvalidSetting, match=r"^part\.root must be given: part\.root=\.\.\.$"):
        plain(node(root="???"))
    with pytest.raises(InvalidSetting, match="nowhere"):
        plain(node(root="${nowhere}"))


@pytest.mark.parametrize(
    "change",
    [
        {"initial_size": 0}, {"initial_size": "10"}, {"query_size": -1}, {"query_size": 1.5},
        {"epochs": True}, {"batch_size": 1}, {"candidates": 0}, {"candidates": 4},
        {"min_steps": -1}, {"schedule": "linear"}, {"milestones": [0.8, 0.5]}, {"milestones": [1]},
        {"milestones": 0.5}, {"milestones": ["x"]}, {"milestones": None}, {"gamma": -1},
        {"gamma": float("nan")}, {"warm_start": "false"}, {"warm_start": 1},
        {"candidates": "10"}, {"candidates": "0x"}, {"candidates": "1.5x"}, {"candidates": "x10"},
        {"merge_remainder": "no"},
    ],
)  # fmt: skip
def test_cycle_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    """Mistake 7 among them: the text "false" is no bool. The error names key and value."""
    with pytest.raises(InvalidSetting, match=rf"cycle\.{next(iter(change))}"):
        CycleSettings(**{**CYCLE, **change})


def test_candidates_are_a_number_or_so_many_times_the_query() -> None:
    """10x of a query of 5 are 50, whatever sets the query; null shows a strategy everything."""
    shown = [CycleSettings(**{**CYCLE, "candidates": n}).num_candidates for n in ("10x", 7, None)]
    assert shown == [50, 7, None]


@pytest.mark.parametrize(
    "change",
    [
        {"lr": -1}, {"lr": "fast"}, {"lr": float("nan")}, {"lr": True}, {"momentum": -0.1},
        {"weight_decay": -1}, {"nesterov": "no"}, {"nesterov": True, "momentum": 0},
        {"warm_up": 1.5}, {"max_grad_norm": 0}, {"backbone_lr_scale": -1},
        {"loss_prediction_lr_scale": "x"},
    ],
)  # fmt: skip
def test_optimizer_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    """Before torch refuses them with a traceback."""
    with pytest.raises(InvalidSetting, match=rf"optimizer\.{next(iter(change))}"):
        OptimizerSettings(**{"lr": 0.1, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"enabled": "yes"}, {"weight": -1}, {"margin": 0}, {"margin": "wide"}, {"pairs": "some"},
        {"pool_size": 0}, {"width": 1.5}, {"detach_at": 1.1}, {"detach_at": -0.1},
        {"warm_up_epochs": -1}, {"output_tap": "yes"}, {"loss": "l1"},
    ],
)  # fmt: skip
def test_loss_prediction_settings_that_make_no_sense_are_refused(change: dict[str, Any]) -> None:
    """All of them before any data is read."""
    with pytest.raises(InvalidSetting, match=rf"loss_prediction\.{next(iter(change))}"):
        LossPredictionSettings(**change)


# ---- the whole


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("cycles", 0, "cycles must be a positive whole number, got 0"),
        ("cycles", "ten", "got 'ten'"),
        ("seed", -1, "seed must be a whole number of at least 0, got -1"),
        ("seed", True, "seed must be"),
        ("seed", 1.5, "seed must be"),
        ("name", "", "name must be text"),
        ("out", None, "out must be text"),
        ("extra", 1, "unknown key extra; there are backbone, "),
        ("task.extra", 1, "unknown key task.extra"),
        ("data.extra", 1, "unknown key data.extra"),
        ("strategy.extra", 1, "unknown key strategy.extra"),
        ("backbone.extra", 1, "unknown key backbone.extra"),
        ("loss.reduction", "sum", "unknown key loss"),
    ],
)
def test_top_level_values_are_checked(key: str, value: Any, says: str) -> None:
    """Values without a settings class are checked too, unknown keys of a group included."""
    config = compose(*overrides("data.root=/data"))
    RunConfig.of(config)
    OmegaConf.set_struct(config, False)
    OmegaConf.update(config, key, value, force_add=True)
    with pytest.raises(InvalidSetting) as error:
        RunConfig.of(config)
    assert says in str(error.value)


def test_a_choice_that_does_not_serve_a_task_says_which_it_serves() -> None:
    """No network or data set is used for a task that it was not made for."""
    choice = {"name": "lenet", "classification": {"_target_": "x"}}
    assert part_serving(choice, "classification", group="backbone") == {"_target_": "x"}
    with pytest.raises(
        InvalidSetting, match="backbone=lenet does not serve detection; it serves classification"
    ):
        part_serving(choice, "detection", group="backbone")


def test_differences_name_every_leaf() -> None:
    """Nested keys by their path, with the value there and the value here; nothing for equals."""
    ours = {"a": 1, "b": {"c": [1, 2], "d": None}, "e": {"f": 1}}
    assert differences(ours, ours) == []
    theirs = {"a": 2, "b": {"c": [1, 2], "d": 3}, "g": 4}
    assert differences(ours, theirs) == [
        "a: 2 -> 1", "b.d: 3 -> None", "e: None -> {'f': 1}", "g: 4 -> None",
    ]  # fmt: skip


def test_an_optimizer_is_any_class_of_torch_with_its_own_arguments() -> None:
    """Keys that are null are left out, and others are handed over as they are."""
    values = {
        "_target_": "torch.optim.AdamW", "lr": 1e-3, "weight_decay": 0.05, "momentum": None,
        "nesterov": None, "betas": [0.8, 0.9], "recipe": "mine",
    }  # fmt: skip
    settings = OptimizerSettings.of(values)
    assert settings.kind is torch.optim.AdamW
    assert settings.arguments == {"lr": 1e-3, "weight_decay": 0.05, "betas": [0.8, 0.9]}
    older = OptimizerSettings.of({"lr": 0.1, "momentum": 0.9})
    assert older.kind is torch.optim.SGD


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"betas": [0.9, 0.99]},
            r"unknown key optimizer\.betas; there are .*momentum.*warm_up",
        ),
        ({"_target_": "torch.optim.AdamW"}, r"optimizer\.momentum=0.9: torch\.optim\.AdamW has no"),
        ({"_target_": "torch.optim.LBFGS"}, r"LBFGS evaluates the loss several times a step"),
        (
            {"_target_": "os.system"},
            r"must be a class of torch\.optim, .* got 'os\.system'",
        ),
        ({"_target_": "torch.optim.lr_scheduler"}, r"_target_ must be a class of torch\.optim"),
        ({"_target_": "torch.optim.Optim"}, r"_target_ must be a class of torch\.optim"),
        ({"_target_": None}, r"_target_ must be a class of torch\.optim"),
        ({"lr": None}, r"optimizer\.lr must be a number"),
    ],
)
def test_an_optimizer_that_is_none_is_refused(change: dict[str, Any], says: str) -> None:
    """Classes and arguments are checked before anything is trained."""
    values = {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False, **change}
    with pytest.raises(InvalidSetting, match=says) as refused:
        OptimizerSettings.of(values)
    assert "\n" not in str(refused.value)
    with pytest.raises(InvalidSetting, match=r"optimizer\.lr is not set"):
        OptimizerSettings.of({"momentum": 0.9})
