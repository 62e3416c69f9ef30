"""Trains a task's model and asks it about samples: the `Learner` of al_core for all three tasks.

Training follows Yoo & Kweon, CVPR 2019, section 3: the loss of the task plus lambda times the
ranking loss of the predicted losses, the gradient of which stops at the features late in training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from al_core import (
    ActiveLearning,
    IndexArray,
    LossPredictionLoss,
    LossPredictionMSELoss,
    Prediction,
    kendall_tau,
    ranking_accuracy,
    stream_seed,
)
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.config import CycleSettings, LossPredictionSettings, OptimizerSettings
from experiments.data.loading import prefetched
from experiments.engine import Engine
from experiments.handoff.labels import Label
from experiments.host_memory import give_back_freed_memory
from experiments.queried import Queried, WholeImages, images_of
from experiments.tasks.base import Panel, Task
from vendored.checkpoints import fill

BATCHES_A_TRIM = 4
"""Of inference: after so many, freed memory goes back to the system."""


class TaskLearner:
    """A model of `task`, trained on labeled samples, in every process alike.

    Args:
        task: Data, model, loss and metric.
        engine: What it computes on.
        cycle: Training length and schedule.
        optimizer: SGD.
        loss_prediction: Whether and how the model learns its own loss.
        queried: What is labeled and asked for; None for whole images.
    """

    def __init__(
        self,
        task: Task,
        engine: Engine,
        *,
        cycle: CycleSettings,
        optimizer: OptimizerSettings,
        loss_prediction: LossPredictionSettings,
        queried: Queried | None = None,
    ) -> None:
        self.task = task
        self.queried = WholeImages(task) if queried is None else queried
        self.engine = engine
        self._cycle = cycle
        self._optimizer = optimizer
        self._head = loss_prediction
        self._head_loss: nn.Module = LossPredictionMSELoss()
        if loss_prediction.loss == "ranking":
            self._head_loss = LossPredictionLoss(
                loss_prediction.margin,
                pairs=loss_prediction.pairs,  # type: ignore[arg-type]  # it checks
            )
        self._trained: nn.Module | None = None
        self.posterior_seed = 0
        """Decides what Monte-Carlo dropout drops: the networks that all samples are asked of."""

    @property
    def model(self) -> nn.Module:
        """The model of the last `fit`, unwrapped, on the device.

        Raises:
            InvalidSetting: There was none.
        """
        if self._trained is None:
            raise InvalidSetting("the model has not been trained: call fit first")
        return self._trained

    def load_state_dict(self, state: Mapping[str, Any], *, posterior_seed: int = 0) -> None:
        """Take over the weights of an earlier cycle.

        Raises:
            ValueError: They are those of another network; the text says in what they differ.
        """
        model = self._fresh_model(seed=0)
        fill(model, state)
        self._trained, self.posterior_seed = model, posterior_seed

    # -- training ---------------------------------------------------------------------------------

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Train on these samples from fresh weights (or the last ones, with `warm_start`).

        Returns:
            `train_loss` and `train_ranking_accuracy` of the last epoch, `optimizer_steps`, and
            `num_labeled_<what>` for what the task counts in the labels.

        Raises:
            NonFiniteValue: A loss is NaN or infinite; the text names the first such sample.
        """
        labeled, _ = images_of(self.queried, labeled)
        if self._trained is None or not self._cycle.warm_start:
            self._trained = self._fresh_model(seed=stream_seed(seed, 0, "weights"))
        self.posterior_seed = stream_seed(seed, 0, "posterior samples")
        model = self._trained.train()
        wrapped = self.engine.for_training(
            model, find_unused_parameters=self._head.enabled and self._head.warm_up_epochs > 0
        )
        epochs = self._num_epochs(labeled.size)
        steps_per_epoch = len(self._batches(labeled, np.arange(labeled.size)))
        own = getattr(model, "optim_parameters", model.parameters)
        optimizer = torch.optim.SGD(
            own(),
            lr=self._optimizer.lr,
            momentum=self._optimizer.momentum,
            weight_decay=self._optimizer.weight_decay,
            nesterov=self._optimizer.nesterov,
            # One pass over the weights, not four; it cannot take in the module's after warm-up.
            fused=self._head.warm_up_epochs == 0,
        )
        scheduler = self._scheduler(optimizer, epochs * steps_per_epoch)
        order = np.random.default_rng(stream_seed(seed, 0, "order"))
        generator = self.engine.generator(stream_seed(seed, 0, "augmentation"))
        sample_seeds = np.random.default_rng(stream_seed(seed, 0, "sample augmentation"))
        summary: Mapping[str, float] = {}
        bar = tqdm(
            total=epochs, desc="train", unit="epoch", mininterval=1, leave=False,
            disable=None if self.engine.is_main else True,
        )  # fmt: skip
        with bar, self.engine.seeded(stream_seed(seed, 0, "dropout")):
            for epoch in range(epochs):
                batches = self._batches(labeled, order.permutation(labeled.size))
                seeds = sample_seeds.integers(2**31, size=len(batches)).tolist()
                summary = self._epoch(
                    wrapped, optimizer, scheduler, batches, seeds, generator,
                    epoch=epoch, detached=epoch >= self._head.detach_at * epochs,
                )  # fmt: skip
                bar.update()
        counts = {f"num_labeled_{k}": n for k, n in self.task.label_counts(labeled).items()}
        return {**counts, "optimizer_steps": epochs * steps_per_epoch, **summary}

    def _epoch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: torch.optim.lr_scheduler.LRScheduler,
        batches: list[IndexArray],
        seeds: list[int],
        generator: torch.Generator,
        *,
        epoch: int,
        detached: bool,
    ) -> Mapping[str, float]:
        """One pass over the batches. The device is waited for once, at the end."""
        task, engine, head = self.task, self.engine, self._head
        losses_seen: list[Tensor] = []
        accuracies: list[Tensor] = []

        def load(k: int) -> Any:
            mine = batches[k][self._my_part(batches[k].size)]
            return task.training_batch(mine, seed=seeds[k])

        loaded = prefetched(load, range(len(batches)), ahead=not task.train.in_memory)
        for k, batch in enumerate(loaded):
            images, targets = engine.to_device(batch.images), engine.to_device(batch.targets)
            images, targets = task.augment(images, targets, generator)
            inputs = engine.laid_out(task.normalize(images))
            predicted: Tensor | None = None
            with engine.autocast():
                if head.enabled:
                    outputs, predicted = model(inputs, detach_lp=detached)
                else:
                    outputs = model(inputs)
            loss, losses = task.objective(outputs, targets)
            if predicted is not None:
                accuracies.append(ranking_accuracy(predicted.detach(), losses.detach()))
                if epoch >= head.warm_up_epochs:
                    loss = loss + head.weight * self._head_loss(predicted, losses)
            # Processes average their gradients; parts of different sizes must weigh accordingly.
            share = losses.shape[0] * engine.world_size / batches[k].size
            optimizer.zero_grad(set_to_none=True)
            (loss * share if share != 1 else loss).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            losses_seen.append(losses.detach())
        summary = {"train_loss": self._checked_mean(losses_seen, batches, epoch)}
        if accuracies:
            summary["train_ranking_accuracy"] = torch.stack(accuracies).nanmean().item()
        return summary

    def _checked_mean(
        self, losses_seen: list[Tensor], batches: list[IndexArray], epoch: int
    ) -> float:
        """Return the epoch's mean loss; stop the run if one is not finite, naming the sample."""
        losses = torch.cat(losses_seen).float()
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            order = np.concatenate([batch[self._my_part(batch.size)] for batch in batches])
            first = int(torch.nonzero(~finite)[0])
            raise NonFiniteValue(
                f"the loss of {self.task.train.names[order[first]]} became "
                f"{losses[first].item()} in epoch {epoch}: lower optimizer.lr "
                f"(now {self._optimizer.lr:g}) or look at this sample and its label"
            )
        return losses.mean().item()

    def _fresh_model(self, *, seed: int) -> nn.Module:
        """Build the model; all of its weights come from `seed`, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.task.build_model()
            if self._head.enabled:
                # After the backbone: its weights are the same with and without the module.
                model = ActiveLearning(model, self._head.pool_size, self._head.width)
        return self.engine.placed(model)

    def _num_epochs(self, num_labeled: int) -> int:
        steps = max(1, math.ceil(num_labeled / self._cycle.batch_size))
        return max(self._cycle.epochs, math.ceil(self._cycle.min_steps / steps))

    def _batches(self, labeled: IndexArray, order: NDArray[np.int64]) -> list[IndexArray]:
        """Cut the labeled samples, in this order, into batches.

        The last one is left out where a process would get fewer than two samples of it: batch
        normalization cannot train on one, and a ranking needs two.
        """
        size = self._cycle.batch_size
        batches = [labeled[order[i : i + size]] for i in range(0, order.size, size)]
        if len(batches) > 1 and batches[-1].size < 2 * self.engine.world_size:
            batches.pop()
        self.check_batch(batches[0].size)
        return batches

    def check_batch(self, num_labeled: int) -> None:
        """Raise InvalidSetting if so few labeled samples cannot be trained on."""
        size = min(num_labeled, self._cycle.batch_size)
        if size < 2 * self.engine.world_size:
            raise InvalidSetting(
                f"a batch of {size} labeled samples cannot be trained on by "
                f"{self.engine.world_size} processes: each needs 2; set cycle.initial_size and "
                f"cycle.batch_size to {2 * self.engine.world_size} or more"
            )

    def _my_part(self, batch_size: int) -> slice:
        part = self.engine.shard(batch_size)
        return slice(part.start, part.stop)

    def _scheduler(
        self, optimizer: torch.optim.Optimizer, steps: int
    ) -> torch.optim.lr_scheduler.LRScheduler:
        if self._cycle.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        # Differs: the reference makes a new optimizer at the milestone, which forgets momentum.
        return torch.optim.lr_scheduler.MultiStepLR(
            optimizer, [round(m * steps) for m in self._cycle.milestones], self._cycle.gamma
        )

    # -- inference --------------------------------------------------------------------------------

    def evaluate(self) -> Mapping[str, float]:
        """Measure the trained model on the readable test samples, each once.

        Returns:
            The task's metrics, and with a loss-prediction module `loss_ranking_tau`: Kendall's tau
            between predicted and true losses of the test samples, which were never trained on.
        """
        task = self.task
        readable = _readable(len(task.test), task.test.unreadable)
        metrics = task.metrics()
        losses: list[Tensor] = []
        predictions: list[Tensor] = []
        with torch.inference_mode():
            for batch in self._shard(readable, task.test_batch, task.test.in_memory, "evaluate"):
                outputs, predicted = self._forward(self._inputs(batch.images))
                targets = self.engine.to_device(batch.targets)
                metrics.update(outputs, targets)
                if predicted is not None:
                    losses.append(task.losses(outputs, targets))
                    predictions.append(predicted)
        every = self.engine.gather(metrics)
        merged = task.metrics()
        merged.merge(every)
        measured = dict(merged.compute())
        if self._head.enabled:
            both = torch.stack([torch.cat(losses), torch.cat(predictions)], 1) if losses else None
            rows = self.engine.gather_rows(both).numpy()
            measured["loss_ranking_tau"] = kendall_tau(rows[:, 0], rows[:, 1])
        return measured

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the rows of `extract` for training samples, without looking at any label.

        Batches are the same however many processes share them, so their rows are too.

        Raises:
            NonFiniteValue: A row is not finite; the text names the sample.
        """
        rows: list[Tensor] = []
        task = self.task
        asked = indices if self.queried.groups is None else np.sort(indices)

        def load(images: IndexArray) -> tuple[IndexArray, Tensor]:
            return images, task.pool_images(images)

        with torch.inference_mode():
            in_images, _ = images_of(self.queried, asked)
            batches = self._shard(in_images, load, task.train.in_memory, "score")
            for images, pixels in batches:
                rows.append(self.queried.rows(self.predict(pixels), images, asked, extract))
        result = self.engine.gather_rows(torch.cat(rows) if rows else None)
        finite = torch.isfinite(result.flatten(1).sum(1)) if result.ndim > 1 else result.isfinite()
        if not bool(finite.all()):
            name = self.queried.name(int(asked[int(torch.nonzero(~finite)[0])]))
            raise NonFiniteValue(f"the model's answer for {name} is not finite")
        if asked is indices or not indices.size:
            return result
        return result[torch.from_numpy(np.searchsorted(asked, indices))]

    def draw(self, indices: IndexArray) -> list[Panel]:
        """Draw training images with what the model says of them, in this process alone."""
        panels: list[Panel] = []
        size = self.task.eval_batch_size
        with torch.inference_mode():
            for i in range(0, indices.size, size):
                batch = indices[i : i + size]
                panels += self.task.draw(batch, self.predict(self.task.pool_images(batch)))
        return panels

    def drafts(self, indices: IndexArray) -> list[Label]:
        """Say what the model would annotate training samples with, in this process alone."""
        labels: list[Label] = []
        size = self.task.eval_batch_size
        with torch.inference_mode():
            for i in range(0, indices.size, size):
                batch = indices[i : i + size]
                prediction = self.predict(self.task.pool_images(batch))
                labels += self.task.drafts(prediction, self.task.sizes(batch))
        return labels

    def predict(self, images: Tensor) -> Prediction:
        """Ask the model about a batch of images, uint8 (b, 3, h, w) on the CPU."""
        inputs = self._inputs(images)
        outputs, predicted = self._forward(inputs)
        model = self.model.base_model if self._head.enabled else self.model
        assert isinstance(model, nn.Module)
        prediction = self.task.predict(outputs, model)
        # The same seed for every batch: all samples are asked of the same drawn networks, whichever
        # process asks.
        with self.engine.seeded(self.posterior_seed, alike=True), self.engine.autocast():
            samples = self.task.posterior_samples(model, inputs)
        return replace(prediction, predicted_loss=predicted, log_prob_samples=samples)

    def _inputs(self, images: Tensor) -> Tensor:
        engine = self.engine
        return engine.laid_out(self.task.normalize(engine.to_device(images)))

    def _forward(self, inputs: Tensor) -> tuple[Any, Tensor | None]:
        """Run the unwrapped model in eval mode: a process without samples need not take part."""
        model = self.model
        model.eval()
        with self.engine.autocast():
            result = model(inputs)
        return result if self._head.enabled else (result, None)

    def _shard(
        self, indices: IndexArray, load: Callable[[IndexArray], Any], in_memory: bool, what: str
    ) -> Iterator[Any]:
        """Load this process's contiguous part of the batches."""
        size = self.task.eval_batch_size
        batches = [indices[i : i + size] for i in range(0, indices.size, size)]
        mine = self.engine.shard(len(batches))
        loaded = prefetched(load, [batches[k] for k in mine], ahead=not in_memory)
        bar = tqdm(
            loaded, total=len(mine), desc=what, unit="batch", mininterval=1, leave=False,
            disable=None if self.engine.is_main else True,
        )  # fmt: skip
        for number, batch in enumerate(bar, start=1):
            yield batch
            if number % BATCHES_A_TRIM == 0:
                give_back_freed_memory()


def _readable(num_samples: int, unreadable: Mapping[int, str]) -> IndexArray:
    return np.setdiff1d(np.arange(num_samples), np.fromiter(unreadable, dtype=np.int64))
