"""Trainings of one network with several seeds, whose passes are computed as one of stacked weights.

Runs that go side by side (`experiments.engine.lockstep`) meet in every step: the weights and
batches of all are stacked, and one forward and backward pass gives each network its own gradients.
All else is each training's own: order, augmentation, schedule, gradient clipping, the update, batch
normalization's statistics, checkpoints. Results differ from those of a training alone by rounding.

Small networks gain from it on a GPU, where starting their operations takes longer than computing
them.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from experiments.engine.lockstep import Lockstep, current
from experiments.learning.step import Phase, StepResult, TrainingStep

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Offer:
    """A step of one training.

    Attributes:
        member: The training.
        step: Computes its loss.
        inputs: (b, ...) inputs of its network.
        targets: (b,) labels.
        phase: How predicted losses are trained.
    """

    member: Stacked
    step: TrainingStep
    inputs: Tensor
    targets: Tensor
    phase: Phase


class Stacked:
    """A training whose passes are computed together with those of others.

    Args:
        model: Its network.
        lockstep: The others.
    """

    def __init__(self, model: nn.Module, lockstep: Lockstep) -> None:
        self.parameters = dict(model.named_parameters())
        self.buffers = dict(model.named_buffers())
        # It is called with the weights of all, and keeps what a forward leaves behind.
        self.template = copy.deepcopy(model)
        self._lockstep = lockstep

    def backward(
        self, step: TrainingStep, inputs: Tensor, targets: Tensor, phase: Phase
    ) -> StepResult:
        """Give the network the gradients of its loss, at a meeting with the others."""
        kind = (inputs.shape, inputs.dtype, targets.shape, phase)
        return self._lockstep.meet(kind, _Offer(self, step, inputs, targets, phase), _backward)


def stacked_with_others(step: TrainingStep, model: nn.Module) -> Stacked | None:
    """Return the way in which a training is computed together with others.

    None where there are no others, or where the network cannot be stacked: it then trains alone, in
    one turn, as its random numbers (those of dropout) come from generators of the whole process.

    Args:
        step: The training's step.
        model: Its network, in training mode.
    """
    lockstep = current()
    if lockstep is None:
        return None
    stacked = Stacked(model, lockstep)
    example = step.engine.laid_out(step.engine.to_device(step.task.example()))
    targets = torch.zeros(len(example), dtype=torch.long, device=example.device)
    buffers = {name: value.clone()[None] for name, value in stacked.buffers.items()}
    parameters = {name: value.detach()[None] for name, value in stacked.parameters.items()}
    offer = _Offer(stacked, step, example, targets, Phase(detached=False, ranked=True))
    try:
        with torch.no_grad():
            _forward(offer, parameters, buffers, example[None], targets[None])
    except Exception as error:  # noqa: BLE001  # whatever the network of a user raises
        reason = str(error).strip().partition("\n")[0]
        logger.warning("this network trains alone, as it cannot be stacked: %s", reason)
        return None
    return stacked


def _backward(offers: Sequence[_Offer]) -> list[StepResult]:
    """Compute the gradients of several networks; return the measurements of each."""
    if len(offers) == 1:
        offer = offers[0]
        loss, result = offer.step.loss(offer.step.model, offer.inputs, offer.targets, offer.phase)
        loss.backward()  # type: ignore[no-untyped-call]
        return [result]
    members = [offer.member for offer in offers]
    # The gradient of a stack goes to the tensors in it.
    parameters = {
        name: torch.stack([member.parameters[name] for member in members])
        for name in members[0].parameters
    }
    buffers = {
        name: torch.stack([member.buffers[name] for member in members])
        for name in members[0].buffers
    }
    inputs = torch.stack([offer.inputs for offer in offers])
    targets = torch.stack([offer.targets for offer in offers])
    loss, losses, *accuracies = _forward(offers[0], parameters, buffers, inputs, targets)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for name, values in buffers.items():
            for member, value in zip(members, values, strict=True):
                member.buffers[name].copy_(value)
    return [
        StepResult(losses[k], accuracies[0][k] if accuracies else None) for k in range(len(offers))
    ]


def _forward(
    first: _Offer,
    parameters: dict[str, Tensor],
    buffers: dict[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
) -> tuple[Tensor, ...]:
    """Return loss (k,), losses (k, b) and, with loss prediction, ranking accuracies (k,).

    Args:
        first: One of the k trainings, whose settings are those of all.
        parameters: Of all, (k, ...) each.
        buffers: Likewise; changed in place.
        inputs: (k, b, ...).
        targets: (k, b).
    """

    def one(weights: dict[str, Tensor], state: dict[str, Tensor], x: Tensor, y: Tensor) -> Any:
        model = partial(_called, first.member.template, (weights, state))
        loss, (losses, accuracy) = first.step.loss(model, x, y, first.phase)
        return (loss, losses) if accuracy is None else (loss, losses, accuracy)

    found: tuple[Tensor, ...] = vmap(one, randomness="error")(parameters, buffers, inputs, targets)
    return found


def _called(template: nn.Module, state: Any, inputs: Tensor, **more: Any) -> Any:
    return functional_call(template, state, (inputs,), more)
