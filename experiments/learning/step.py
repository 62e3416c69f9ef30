"""One step of training: augmentation, forward, both losses, backward, update.

On a GPU a step can be recorded once as a CUDA graph and replayed. A network of the size of
ResNet-18 launches several hundred kernels in a step; for small images launching them from Python
takes longer than running them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from al_core import LossPredictionLoss, LossPredictionMSELoss, RankNetLoss, ranking_accuracy
from experiments.engine.engine import Engine
from experiments.engine.recording import CudaRecording
from experiments.learning.optimizer import clip_gradients
from experiments.learning.pseudo_labels import UnlabeledBatch, augmented_twice
from experiments.settings.recipe import LossPredictionSettings
from experiments.tasks.base import Task

logger = logging.getLogger(__name__)

WARM_UP = 3
"""Steps of a kind before it is recorded: they choose algorithms and make the optimizer's state."""
WORTH_RECORDING = 50
"""Steps of a kind that must be left: recording one takes as long as a few dozen launches of it."""


class StepResult(NamedTuple):
    """The measurements of a step, on the device.

    Attributes:
        losses: (b,) losses of the task, before the update.
        ranking_accuracy: Scalar, or None without a loss-prediction module.
    """

    losses: Tensor
    ranking_accuracy: Tensor | None


def make_head_loss(settings: LossPredictionSettings) -> nn.Module | None:
    """Return the loss of the predicted losses; None for a model without loss prediction."""
    if not settings.enabled:
        return None
    if settings.loss == "mse":
        return LossPredictionMSELoss()
    if settings.loss == "ranknet":
        return RankNetLoss()
    return LossPredictionLoss(settings.margin, pairs=settings.pairs)  # type: ignore[arg-type]  # it checks


class Phase(NamedTuple):
    """How the predicted losses are trained in an epoch; steps of one phase do the same work.

    Attributes:
        detached: Whether the gradient of the predicted loss stops at the features.
        ranked: Whether the loss of the predicted losses is trained on.
    """

    detached: bool
    ranked: bool


class JointBackward(Protocol):
    """Computes gradients together with steps of other trainings."""

    def backward(
        self, step: TrainingStep, inputs: Tensor, targets: Tensor, phase: Phase
    ) -> StepResult:
        """Give the parameters of the step's model the gradients of its loss."""
        ...


class TrainingStep:
    """A step of a model's training.

    Args:
        task: Augmentation, normalization and loss.
        engine: Precision and memory layout.
        model: The model, wrapped for training.
        optimizer: Of the model's parameters.
        generator: Source of the augmentation, on the device.
        head_loss: Loss of the predicted losses; None for a model without loss prediction.
        head_weight: Its weight.
        max_grad_norm: As for `clip_gradients`.

    Attributes:
        stacked: Computes the gradients of labeled batches; None for this step by itself.
    """

    def __init__(
        self,
        task: Task,
        engine: Engine,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        *,
        head_loss: nn.Module | None,
        head_weight: float,
        max_grad_norm: float | None,
    ) -> None:
        self.task, self.engine, self.model = task, engine, model
        self.optimizer, self.generator = optimizer, generator
        self._head_loss, self._head_weight = head_loss, head_weight
        self._max_grad_norm = max_grad_norm
        self.stacked: JointBackward | None = None

    def __call__(
        self,
        images: Tensor,
        targets: Any,
        phase: Phase,
        *,
        share: float = 1.0,
        unlabeled: UnlabeledBatch | None = None,
    ) -> StepResult:
        """Take a step.

        Args:
            images: uint8 or float32 (b, 3, h, w) on the device.
            targets: Their labels, on the device.
            phase: How the predicted losses are trained.
            share: Weight of this process's part of the batch.
            unlabeled: Images that are trained on too.
        """
        task, engine = self.task, self.engine
        images, targets = task.augment(images, targets, self.generator)
        count = len(images)
        if unlabeled is not None:  # in one forward, as batch normalization needs
            more = engine.to_device(unlabeled.images)
            images = torch.cat([images, *augmented_twice(task, more, self.generator)])
        inputs = engine.laid_out(task.normalize(images))
        self.optimizer.zero_grad(set_to_none=True)
        if self.stacked is not None:
            result = self.stacked.backward(self, inputs, targets, phase)
        else:
            loss, result = self.loss(self.model, inputs, targets, phase, unlabeled, count)
            (loss * share if share != 1 else loss).backward()  # type: ignore[no-untyped-call]
        clip_gradients(self.optimizer, self._max_grad_norm)
        self.optimizer.step()
        return result

    def loss(
        self,
        model: Callable[..., Any],
        inputs: Tensor,
        targets: Any,
        phase: Phase,
        unlabeled: UnlabeledBatch | None = None,
        count: int | None = None,
    ) -> tuple[Tensor, StepResult]:
        """Return the scalar to minimize, and the measurements.

        Args:
            model: The model, or a function that computes what it does.
            inputs: Inputs of the model.
            targets: Labels of the first `count` of them.
            phase: How the predicted losses are trained.
            unlabeled: The images behind these.
            count: None for all.
        """
        task, predicted = self.task, None
        with self.engine.autocast():
            if self._head_loss is not None:
                outputs, predicted = model(inputs, detach_lp=phase.detached)
            else:
                outputs = model(inputs)
        of_labeled = outputs if unlabeled is None else outputs[:count]
        loss, losses = task.objective(of_labeled, targets)
        if unlabeled is not None:
            loss = loss + unlabeled.loss(task.log_probs(outputs[count:]))
            predicted = None if predicted is None else predicted[:count]
        accuracy: Tensor | None = None
        if predicted is not None:
            assert self._head_loss is not None
            accuracy = ranking_accuracy(predicted.detach(), losses.detach())
            if phase.ranked:
                loss = loss + self._head_weight * self._head_loss(predicted, losses)
        return loss, StepResult(losses.detach(), accuracy)


class Recording(Protocol):
    """Work that was recorded and can be done again on whatever its buffers hold by then."""

    def replay(self) -> StepResult:
        """Do the work; the result is overwritten by the next replay."""
        ...


class RecordedSteps:
    """Steps that are recorded for each shape of batch, as far as that pays.

    The first steps of a kind are taken as usual, and all of them where recording fails. All must
    run in one stream other than the default one: see `Engine.recording_stream`.

    Differs: the learning rate is rounded to float32, in which the recorded update reads it.

    Args:
        step: The step; its optimizer must take learning rates from tensors.
        record: Records work.
    """

    def __init__(
        self,
        step: TrainingStep,
        *,
        record: Callable[[Callable[[], StepResult], torch.Generator], Recording] = CudaRecording,
    ) -> None:
        self._step, self._record = step, record
        self._seen: Counter[Any] = Counter()
        self._recorded: dict[Any, _RecordedStep] = {}
        self._phase: Phase | None = None
        self._is_possible = True

    def __call__(
        self, images: Tensor, targets: Tensor, phase: Phase, *, steps_left: int
    ) -> StepResult:
        """Take a step; arguments as for `TrainingStep`.

        Args:
            images: Images.
            targets: Labels.
            phase: Phase.
            steps_left: Steps of this kind that are still to come, this one included.
        """
        if phase != self._phase:
            self._recorded.clear()  # and with them the memory of their activations
            self._phase = phase
        kind = (images.shape, images.dtype, targets.shape, phase)
        self._seen[kind] += 1
        recorded = self._recorded.get(kind)
        if recorded is None:
            few = self._seen[kind] <= WARM_UP or steps_left < WORTH_RECORDING
            if few or not self._is_possible:
                return self._step(images, targets, phase)
            try:
                recorded = _RecordedStep(self._step, self._record, images, targets, phase)
            except RuntimeError as error:  # an operation that waits for the device, for example
                reason = str(error).partition("\n")[0]
                logger.warning("training steps cannot be recorded, they go on as usual: %s", reason)
                self._is_possible = False
                return self._step(images, targets, phase)
            self._recorded[kind] = recorded
        return recorded(images, targets)


class _RecordedStep:
    """A recorded step, the buffers that it reads, and the learning rates."""

    def __init__(
        self,
        step: TrainingStep,
        record: Callable[[Callable[[], StepResult], torch.Generator], Recording],
        images: Tensor,
        targets: Tensor,
        phase: Phase,
    ) -> None:
        self._images, self._targets = images.clone(), targets.clone()
        self._groups = step.optimizer.param_groups
        self._rates = [
            torch.full((), group["lr"], dtype=torch.float32, device=images.device)
            for group in self._groups
        ]

        def work() -> StepResult:
            with _learning_rates(self._groups, self._rates):
                return step(self._images, self._targets, phase)

        self._recording = record(work, step.generator)

    def __call__(self, images: Tensor, targets: Tensor) -> StepResult:
        self._images.copy_(images)
        self._targets.copy_(targets)
        for rate, group in zip(self._rates, self._groups, strict=True):
            rate.fill_(group["lr"])
        losses, accuracy = self._recording.replay()
        return StepResult(losses.clone(), None if accuracy is None else accuracy.clone())


@contextmanager
def _learning_rates(groups: Sequence[dict[str, Any]], rates: Sequence[Tensor]) -> Iterator[None]:
    """Let an optimizer read its learning rates from tensors, which may change later."""
    before = [group["lr"] for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        group["lr"] = rate
    try:
        yield
    finally:
        for group, value in zip(groups, before, strict=True):
            group["lr"] = value


def can_record(engine: Engine, optimizer: torch.optim.Optimizer, targets: Any) -> bool:
    """Return whether steps can be recorded: on one GPU, labels in one tensor, fused updates."""
    return (
        engine.records
        and isinstance(targets, Tensor)
        and all(group.get("fused") for group in optimizer.param_groups)
    )
