"""The optimizer of a training, its groups of parameters and its learning rates."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import wraps
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, MultiStepLR

from al_core import ActiveLearning
from al_core.errors import InvalidSetting
from experiments.settings.recipe import CycleSettings, OptimizerSettings


@runtime_checkable
class TellsHead(Protocol):
    """A task that tells the layers of its own in a network from those of the backbone."""

    def head(self, model: nn.Module) -> Sequence[nn.Module]:
        """Return the layers whose sizes depend on the classes; all else is the backbone."""
        ...


def make_optimizer(
    settings: OptimizerSettings,
    model: nn.Module,
    task: object,
    *,
    fused: bool,
    capturable: bool = False,
) -> torch.optim.Optimizer:
    """Return the optimizer of all parameters that need gradients.

    They are one group where all have the same learning rate, and else those of the backbone, of the
    task's own layers and of the loss-prediction module.

    Args:
        settings: Class, learning rates and further arguments.
        model: The network, with or without a loss-prediction module.
        task: Tells the backbone from its own layers, if it is a `TellsHead`.
        fused: Update all parameters at once, where the class can.
        capturable: Keep the number of steps on the GPU, for CUDA graphs, where the class counts.

    Raises:
        InvalidSetting: There is nothing to train, or the backbone cannot be told apart.
    """
    own = getattr(model, "optim_parameters", model.parameters)
    parameters = [each for each in own() if each.requires_grad]
    if not parameters:
        raise InvalidSetting("no weight is left to train: lower backbone.frozen_stages")
    arguments = settings.arguments
    known = inspect.signature(settings.kind).parameters
    if fused and "fused" in known:
        arguments["fused"] = True
    if capturable and "capturable" in known:
        arguments["capturable"] = True
    scales, kind = _scales(settings, model, task), never_compiled(settings.kind)
    if not scales:
        return kind(parameters, **arguments)
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        scale = scales.get(id(parameter), settings.backbone_lr_scale)
        groups.setdefault(scale, []).append(parameter)
    return kind(
        [{"params": group, "lr": settings.lr * scale} for scale, group in groups.items()],
        **arguments,
    )


def never_compiled(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return a class of the same optimizer that does not import torch's compiler.

    torch keeps its compiler, `torch._dynamo`, out of these methods, and imports it for that when
    they are called first: in every process that trains, 1 to 2 s. Steps are not compiled here; with
    `engine.compile` the model alone is.
    """
    step = inspect.unwrap(kind.step)

    def step_outside_the_graph(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return step(self, *args, **kwargs)

    marked = ("add_param_group", "state_dict", "load_state_dict", "zero_grad")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in marked}
    return type(kind.__name__, (kind,), {**methods, "step": wraps(step)(step_outside_the_graph)})


def _scales(settings: OptimizerSettings, model: nn.Module, task: object) -> dict[int, float]:
    """Return factors of the learning rate by a parameter's id; nothing where all are 1."""
    if settings.backbone_lr_scale == settings.loss_prediction_lr_scale == 1:
        return {}
    scales: dict[int, float] = {}
    network = model
    if isinstance(model, ActiveLearning):
        network = model.base_model
        for part in (model.fc, model.loss_pred):
            scales |= _each(part.parameters(), settings.loss_prediction_lr_scale)
    layers = task.head(network) if isinstance(task, TellsHead) else ()
    if not layers and settings.backbone_lr_scale != 1:
        raise InvalidSetting(
            f"optimizer.backbone_lr_scale={settings.backbone_lr_scale:g}: in this network the "
            "task's own layers are not known from those of the backbone; leave it at 1"
        )
    for layer in layers:
        scales |= _each(layer.parameters(), 1.0)
    return scales


def _each(parameters: Iterable[nn.Parameter], scale: float) -> dict[int, float]:
    return {id(parameter): scale for parameter in parameters}


def make_scheduler(
    optimizer: torch.optim.Optimizer,
    settings: OptimizerSettings,
    cycle: CycleSettings,
    *,
    steps: int,
) -> LRScheduler:
    """Return the learning rates of all steps: the schedule, after a linear warm-up if there is one.

    Args:
        optimizer: Its learning rates are those of the schedule's beginning.
        settings: The length of the warm-up.
        cycle: The schedule.
        steps: How many there are.
    """
    milestones = [round(m * steps) for m in cycle.milestones]
    warm_up_steps = round(settings.warm_up * steps)
    if warm_up_steps:

        def factor(step: int) -> float:
            if cycle.schedule == "cosine":
                scheduled = (1 + math.cos(math.pi * min(step / max(1, steps), 1.0))) / 2
            else:
                scheduled = cycle.gamma ** sum(step >= milestone for milestone in milestones)
            return min(1.0, (step + 1) / warm_up_steps) * scheduled

        return LambdaLR(optimizer, factor)
    if cycle.schedule == "cosine":
        return CosineAnnealingLR(optimizer, max(1, steps))
    # Differs: the reference makes a new optimizer at the milestone, which forgets momentum.
    return MultiStepLR(optimizer, milestones, cycle.gamma)


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float | None) -> None:
    """Scale all gradients down so that their common norm is at most `max_norm`; None for never."""
    if max_norm is not None:
        parameters: list[Any] = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, max_norm)
