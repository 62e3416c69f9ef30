"""The training recipe: length of the training, optimizer, and loss prediction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from inspect import Parameter, signature
from itertools import pairwise
from typing import Any

import torch

from al_core.errors import InvalidSetting, require_positive
from experiments.settings.checks import check_flag, check_number, check_whole_number
from experiments.settings.composition import check_keys, make

INITIAL = ("random", "typiclust")
"""Choices of the initial set."""
SEMI_SUPERVISED = ("flexmatch",)
"""Ways to train on unlabeled images too."""


@dataclass(frozen=True)
class CycleSettings:
    """Settings of a cycle.

    Attributes:
        initial_size: Size of the initial set, which cycle 0 trains on.
        query_size: Labels added by each further cycle.
        candidates: Size of the random subset of the unlabeled samples that a strategy selects from,
            or a multiple of the query ("10x"); null for all of them.
        epochs: Passes over the labeled samples.
        min_steps: The least number of optimizer steps, for which epochs are added: a few labels
            would otherwise be trained on for a few steps only.
        batch_size: Samples in a batch, over all processes together.
        merge_remainder: Samples that an epoch leaves over, if fewer than half a batch, join the
            batch before; otherwise they are a small batch of their own, as published.
        schedule: "step" (lr times `gamma` at each of `milestones`) or "cosine" (to 0).
        milestones: Fractions of the training length, in (0, 1), ascending.
        gamma: Factor of "step".
        warm_start: Start from the weights of the previous cycle instead of fresh ones.
        initial: Choice of the initial set: "random", or "typiclust" for typical images of clusters
            of embeddings of a pretrained network.
        semi_supervised: "flexmatch" to train on unlabeled images of the pool too, by pseudo-labels;
            None for labeled ones only.
    """

    initial_size: int
    query_size: int
    candidates: int | str | None
    epochs: int
    batch_size: int
    min_steps: int = 0
    merge_remainder: bool = False
    schedule: str = "step"
    milestones: tuple[float, ...] = (0.8,)
    gamma: float = 0.1
    warm_start: bool = False
    initial: str = "random"
    semi_supervised: str | None = None

    def __post_init__(self) -> None:
        for name in ("initial_size", "query_size", "epochs"):
            require_positive(f"cycle.{name}", getattr(self, name))
        object.__setattr__(self, "candidates", self._num_candidates())
        require_positive("cycle.batch_size", self.batch_size)
        if self.batch_size < 2:
            raise InvalidSetting("cycle.batch_size must be at least 2: a ranking needs a pair")
        check_whole_number("cycle.min_steps", self.min_steps, low=0)
        if self.schedule not in ("step", "cosine"):
            raise InvalidSetting(f"cycle.schedule must be step or cosine, got {self.schedule!r}")
        listed = isinstance(self.milestones, (list, tuple))
        bounds = (0.0, *self.milestones, 1.0) if listed else ()
        if (
            not listed
            or not all(isinstance(bound, (int, float)) for bound in bounds)
            or not all(early < late for early, late in pairwise(bounds))
        ):
            raise InvalidSetting(
                "cycle.milestones must be ascending fractions between 0 and 1, got "
                f"{self.milestones!r}"
            )
        object.__setattr__(self, "milestones", tuple(self.milestones))
        check_number("cycle.gamma", self.gamma, low=0.0)
        check_flag("cycle.warm_start", self.warm_start)
        check_flag("cycle.merge_remainder", self.merge_remainder)
        if self.initial not in INITIAL:
            raise InvalidSetting(
                f"cycle.initial must be {' or '.join(INITIAL)}, got {self.initial!r}"
            )
        if self.semi_supervised not in (None, *SEMI_SUPERVISED):
            raise InvalidSetting(
                f"cycle.semi_supervised must be null or {' or '.join(SEMI_SUPERVISED)}, got "
                f"{self.semi_supervised!r}"
            )

    @property
    def num_candidates(self) -> int | None:
        """How many unlabeled samples a strategy is shown; None for all."""
        assert not isinstance(self.candidates, str), "a multiple was replaced by its number"
        return self.candidates

    def _num_candidates(self) -> int | None:
        asked = self.candidates
        if asked is None:
            return None
        times = re.fullmatch(r"([1-9]\d*)x", asked) if isinstance(asked, str) else None
        if times is not None:
            return int(times[1]) * self.query_size
        if isinstance(asked, str):
            raise InvalidSetting(
                "cycle.candidates must be a number, a multiple of the query such as 10x, or null "
                f"for all, got {asked!r}"
            )
        require_positive("cycle.candidates", asked)
        if asked < self.query_size:
            raise InvalidSetting(
                f"cycle.candidates={asked} is less than cycle.query_size={self.query_size}"
            )
        return asked


@dataclass(frozen=True)
class OptimizerSettings:
    """An optimizer of torch, and how learning rates differ and develop.

    Attributes:
        lr: Initial learning rate, after warm-up.
        momentum: Momentum of SGD; None for classes that take none.
        weight_decay: Weight decay of every parameter; None for the default of the class.
        nesterov: Use Nesterov's momentum; None for classes that have none.
        target: The class, "torch.optim.SGD" for example.
        more: Further arguments of the class.
        recipe: The row of the task's recipes that defaults were taken from; for people.
        backbone_lr_scale: Learning rate of the backbone as a multiple of `lr`, which is that of the
            task's own layers.
        loss_prediction_lr_scale: The same for the loss-prediction module.
        warm_up: Fraction of the training, at its beginning, in which the learning rate rises.
        max_grad_norm: Common norm down to which gradients are scaled; None for no limit.
    """

    lr: float
    momentum: float | None = 0.9
    weight_decay: float | None = 5e-4
    nesterov: bool | None = False
    target: str = "torch.optim.SGD"
    more: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    backbone_lr_scale: float = 1.0
    loss_prediction_lr_scale: float = 1.0
    warm_up: float = 0.0
    max_grad_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("lr", "backbone_lr_scale", "loss_prediction_lr_scale"):
            check_number(f"optimizer.{name}", getattr(self, name), low=0.0)
        check_number("optimizer.warm_up", self.warm_up, low=0.0, high=1.0)
        for name in ("momentum", "weight_decay", "max_grad_norm"):
            if getattr(self, name) is not None:
                check_number(f"optimizer.{name}", getattr(self, name), low=0.0)
        if self.max_grad_norm == 0:
            raise InvalidSetting("optimizer.max_grad_norm must be above 0, or null for no limit")
        if self.nesterov is not None:
            check_flag("optimizer.nesterov", self.nesterov)
        if self.nesterov and not self.momentum:
            raise InvalidSetting("optimizer.nesterov=true needs optimizer.momentum above 0")
        self._check_arguments()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> OptimizerSettings:
        """Read the node `optimizer` of a configuration.

        Raises:
            InvalidSetting: A value out of range, or an argument that the class does not take.
        """
        own = {each.name for each in fields(cls)} - {"target", "more"}
        if "lr" not in values:
            raise InvalidSetting("optimizer.lr is not set")
        return cls(
            **{key: value for key, value in values.items() if key in own},
            target=values.get("_target_", cls.target),
            more={k: v for k, v in values.items() if k not in own and k != "_target_"},
        )

    @property
    def kind(self) -> type[torch.optim.Optimizer]:
        """The class."""
        found: type[torch.optim.Optimizer] = getattr(
            torch.optim, self.target.removeprefix("torch.optim.")
        )
        assert issubclass(found, torch.optim.Optimizer)
        return found

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the class beside the parameters."""
        given = {"lr": self.lr, "weight_decay": self.weight_decay, **self.more}
        given |= {"momentum": self.momentum, "nesterov": self.nesterov}
        return {key: value for key, value in given.items() if value is not None}

    def _check_arguments(self) -> None:
        name = str(self.target).removeprefix("torch.optim.")
        found = getattr(torch.optim, name, None) if name.isidentifier() else None
        if not isinstance(found, type) or not issubclass(found, torch.optim.Optimizer):
            raise InvalidSetting(
                "optimizer._target_ must be a class of torch.optim, such as torch.optim.AdamW, got "
                f"{self.target!r}"
            )
        if signature(found.step).parameters["closure"].default is Parameter.empty:
            raise InvalidSetting(
                f"optimizer._target_={self.target} evaluates the loss several times a step, which "
                "this training does not do: use torch.optim.SGD or torch.optim.AdamW"
            )
        known = set(signature(found).parameters) - {"params", "fused", "foreach"}
        own = {each.name for each in fields(self)} - {"target", "more"}
        check_keys(self.more, known | own, where="optimizer")
        for key, value in self.arguments.items():
            if key not in known:
                raise InvalidSetting(
                    f"optimizer.{key}={value}: torch.optim.{name} has no such argument; null "
                    "leaves it out"
                )


@dataclass(frozen=True)
class FreezingSettings:
    """Parts of a network that stay as they are while the rest is trained.

    Attributes:
        frozen_stages: The number of stages, from the first, whose weights are not trained.
        frozen_batch_norm: Keep the statistics of batch normalization.
    """

    frozen_stages: int = 0
    frozen_batch_norm: bool = False

    def __post_init__(self) -> None:
        check_whole_number("backbone.frozen_stages", self.frozen_stages, low=0)
        check_flag("backbone.frozen_batch_norm", self.frozen_batch_norm)


@dataclass(frozen=True)
class LossPredictionSettings:
    """The loss-prediction module and its part in training.

    Attributes:
        enabled: Add the module to models; strategies that use predicted losses turn it on.
        weight: The factor lambda of the ranking loss.
        margin: The margin xi of the ranking loss.
        pairs: "folded" (sample i with b-1-i, as published) or "all".
        pool_size: Side of the pooled features.
        width: Width of the hidden layer of each feature.
        detach_at: Fraction of the training length after which its gradient stops at the features.
        warm_up_epochs: Epochs at the start without the ranking loss.
        loss: The loss of the module: "ranking", as published; "ranknet", the cross-entropy of the
            order of all pairs; or "mse", the squared error of the paper's ablation.
        output_tap: The module reads the model's own output as one more feature.
        layers: Names of the network's layers whose outputs the module reads, or a mapping from
            names to their layouts (see `al_core.ActiveLearning`). None for the features that a
            network itself offers, and else for the last layer of each of its stages.
    """

    enabled: bool = False
    weight: float = 1.0
    margin: float = 1.0
    pairs: str = "folded"
    pool_size: int = 1
    width: int = 128
    detach_at: float = 0.6
    warm_up_epochs: int = 0
    loss: str = "ranking"
    output_tap: bool = False
    layers: tuple[str, ...] | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_flag("loss_prediction.enabled", self.enabled)
        check_number("loss_prediction.weight", self.weight, low=0.0)
        check_number("loss_prediction.margin", self.margin, low=0.0)
        require_positive("loss_prediction.pool_size", self.pool_size)
        require_positive("loss_prediction.width", self.width)
        if self.margin == 0 or self.pairs not in ("folded", "all"):
            raise InvalidSetting(
                "loss_prediction.margin must be above 0 and loss_prediction.pairs folded or all, "
                f"got {self.margin!r} and {self.pairs!r}"
            )
        check_number("loss_prediction.detach_at", self.detach_at, low=0.0, high=1.0)
        check_whole_number("loss_prediction.warm_up_epochs", self.warm_up_epochs, low=0)
        if self.loss not in ("ranking", "ranknet", "mse"):
            raise InvalidSetting(
                f"loss_prediction.loss must be ranking, ranknet or mse, got {self.loss!r}"
            )
        check_flag("loss_prediction.output_tap", self.output_tap)
        if self.layers is None:
            return
        listed = isinstance(self.layers, (list, tuple, Mapping)) and len(self.layers) > 0
        if not listed or not all(isinstance(name, str) for name in self.layers):
            raise InvalidSetting(
                "loss_prediction.layers must be a list of layer names, such as [layer1,layer2], or "
                f"null, got {self.layers!r}"
            )
        if not isinstance(self.layers, Mapping):
            object.__setattr__(self, "layers", tuple(self.layers))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained on given samples.

    Attributes:
        cycle: Training length, batches and schedule.
        optimizer: Class, learning rates and further arguments.
        loss_prediction: The loss-prediction module; without one by default.
        freezing: What is not trained; nothing by default.
    """

    cycle: CycleSettings
    optimizer: OptimizerSettings
    loss_prediction: LossPredictionSettings = field(default_factory=LossPredictionSettings)
    freezing: FreezingSettings = field(default_factory=FreezingSettings)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Recipe:
        """Read `cycle`, `optimizer`, `loss_prediction` and, of `backbone`, what is not trained.

        Raises:
            InvalidSetting: An unknown or missing key, or a value out of range.
        """
        backbone = values.get("backbone") or {}
        freezing = [each.name for each in fields(FreezingSettings)]
        return cls(
            make(CycleSettings, values["cycle"], where="cycle"),
            OptimizerSettings.of(values["optimizer"]),
            make(LossPredictionSettings, values["loss_prediction"], where="loss_prediction"),
            FreezingSettings(**{key: backbone[key] for key in freezing if key in backbone}),
        )
