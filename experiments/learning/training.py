"""How a task's model is trained on labeled samples: batches, optimizer, schedule and both losses.

Source: Yoo & Kweon, CVPR 2019, section 3: the loss of the task plus lambda times the ranking loss
of the predicted losses, the gradient of which stops at the features late in training.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from al_core import ActiveLearning, IndexArray, find_stages, stream_seed
from al_core.errors import InvalidSetting, NonFiniteValue, TapError
from al_core.taps import MethodTaps
from experiments.data.loading import prefetched
from experiments.data.samples import Batch
from experiments.data.targets import Targets
from experiments.engine.engine import Engine
from experiments.learning.checkpointing import Moment, TrainingCheckpoint, TrainingState
from experiments.learning.freezing import Freezing
from experiments.learning.observer import EpochEnd
from experiments.learning.optimizer import make_optimizer, make_scheduler
from experiments.learning.progress import Progress, shows_bars
from experiments.learning.pseudo_labels import FlexMatch, UnlabeledBatch, check_semi_supervised
from experiments.learning.stacking import stacked_with_others
from experiments.learning.step import Phase, RecordedSteps, TrainingStep, can_record, make_head_loss
from experiments.settings.recipe import Recipe
from experiments.tasks.base import MirrorsInTurns, Task

logger = logging.getLogger(__name__)

UNFITTED_SHARE = 0.2
"""Share of the loss of a network's first batch: a last epoch above it has not fitted its labels."""


class Training:
    """The recipe of a model, and its execution; it keeps nothing of a model.

    Args:
        task: Data, model and loss.
        engine: Devices and processes.
        recipe: Training length, optimizer, and how the model learns its own loss.
    """

    def __init__(self, task: Task, engine: Engine, recipe: Recipe) -> None:
        self.task = task
        self.engine = engine
        self._cycle, self._optimizer = recipe.cycle, recipe.optimizer
        check_semi_supervised(self._cycle.semi_supervised, task)
        self._head = head = recipe.loss_prediction
        self._freezing = Freezing(recipe.freezing)
        self._stages: list[str] = []  # of networks without features of their own; found once
        self._head_loss = make_head_loss(head)

    def fresh_model(self, *, seed: int) -> nn.Module:
        """Build the model; all of its weights come from `seed`, whatever was drawn before."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.task.build_model()
            self._freezing.fix_weights(model, self.task.example)
            if self._head.enabled:
                # After the backbone: its weights are the same with and without the module.
                model = self._with_module(model)
        return self.engine.placed(model)

    def _with_module(self, model: nn.Module) -> ActiveLearning:
        """Add a loss-prediction module to a fresh model on the CPU."""
        sizes, layers = (self._head.pool_size, self._head.width), self._head.layers
        example = self.task.example()
        tap = self.task.log_probs if self._head.output_tap else None
        if layers is None and MethodTaps.offered_by(model):
            return ActiveLearning(model, *sizes, example=example, output_tap=tap)
        try:
            if layers is None and not self._stages:
                self._stages = find_stages(model, example)
            return ActiveLearning(
                model,
                *sizes,
                layers=list(layers or self._stages),
                example=example,
                layout=layers if isinstance(layers, Mapping) else "auto",
                output_tap=tap,
            )
        except (InvalidSetting, TapError) as error:
            raise InvalidSetting(f"loss_prediction.layers: {error}") from error

    def run(
        self,
        model: nn.Module,
        labeled: IndexArray,
        targets: Targets,
        *,
        seed: int,
        moment: Moment | None = None,
        checkpoint: TrainingCheckpoint | None = None,
        announce: Callable[[str], None] = logger.info,
        on_epoch: Callable[[EpochEnd], None] = lambda end: None,
    ) -> Mapping[str, float]:
        """Train a model.

        Args:
            model: Lies on the device; trained in place.
            labeled: Positions of images in the pool.
            targets: Their labels, as far as the oracle has given them.
            seed: Decides order, augmentation and dropout.
            moment: Keeps the weights of an earlier moment.
            checkpoint: Keeps the state of the training every few minutes, and restores it.
            announce: Receives a line of progress every 30 s.
            on_epoch: Follows the training, epoch by epoch.

        Returns:
            `train_loss` and `train_ranking_accuracy` of the last epoch, `optimizer_steps`, and a
            `num_labeled_<x>` for everything that the task counts in the labels.

        Raises:
            NonFiniteValue: A loss is NaN or infinite; the text names the first such sample.
        """
        model.train()
        self._freezing.fix_modes(model)
        wrapped = self.engine.for_training(
            model, find_unused_parameters=self._head.enabled and self._head.warm_up_epochs > 0
        )
        epochs = self.num_epochs(labeled.size)
        steps_per_epoch = len(self._batches(labeled, np.arange(labeled.size)))
        optimizer = make_optimizer(
            self._optimizer, model, self.task,
            # One pass over the weights, not four; it cannot take in the module's after warm-up.
            fused=self._head.warm_up_epochs == 0,
            capturable=self.engine.records,
        )  # fmt: skip
        scheduler = make_scheduler(
            optimizer, self._optimizer, self._cycle, steps=epochs * steps_per_epoch
        )
        state = TrainingState(
            model, optimizer, scheduler,
            order=np.random.default_rng(stream_seed(seed, 0, "order")),
            sample_seeds=np.random.default_rng(stream_seed(seed, 0, "sample augmentation")),
            augmentation=self.engine.generator(stream_seed(seed, 0, "augmentation")),
            moment=moment,
            pseudo_labels=self._pseudo_labels(labeled, seed=stream_seed(seed, 0, "unlabeled")),
        )  # fmt: skip
        step = TrainingStep(
            self.task, self.engine, wrapped, optimizer, state.augmentation,
            head_loss=self._head_loss, head_weight=self._head.weight,
            max_grad_norm=self._optimizer.max_grad_norm,
        )  # fmt: skip
        if state.pseudo_labels is None:
            step.stacked = stacked_with_others(step, model)
        with (
            self.engine.seeded(stream_seed(seed, 0, "dropout")),
            self.engine.recording_stream(),
        ):
            if checkpoint is not None and checkpoint.resume(state, self.engine):
                announce(f"resuming in epoch {min(state.epoch + 1, epochs)} of {epochs}")
            self._epochs(
                step, state, labeled, targets,
                epochs=epochs, checkpoint=checkpoint, announce=announce, on_epoch=on_epoch,
            )  # fmt: skip
        summary = state.summary
        if not self._cycle.warm_start:  # which begins with what the cycle before has fitted
            self._warn_if_unfitted(
                summary["train_loss"], state.untrained_loss, labeled.size, epochs
            )
        counted = self.task.label_counts(labeled, targets)
        counts = {f"num_labeled_{k}": n for k, n in counted.items()}
        return {**counts, "optimizer_steps": epochs * steps_per_epoch, **summary}

    def _epochs(
        self,
        step: TrainingStep,
        state: TrainingState,
        labeled: IndexArray,
        targets: Targets,
        *,
        epochs: int,
        checkpoint: TrainingCheckpoint | None,
        announce: Callable[[str], None],
        on_epoch: Callable[[EpochEnd], None],
    ) -> None:
        """Train all epochs that are left."""
        recorded = RecordedSteps(step)
        phases = [self._phase(epoch, epochs) for epoch in range(epochs)]
        bar = tqdm(
            total=epochs, initial=state.epoch, desc="train", unit="epoch", mininterval=1,
            leave=False, disable=None if shows_bars(self.engine) else True,
        )  # fmt: skip
        sizes = [batch.size for batch in self._batches(labeled, np.arange(labeled.size))]
        done = state.epoch * sum(sizes) + sum(sizes[: state.batch])
        progress = Progress(announce, total=epochs * sum(sizes), done=done)

        def after_step(num_images: int) -> None:
            progress.advance(
                num_images,
                lambda: (
                    f"epoch {state.epoch + 1} of {epochs}, "
                    f"loss {state.losses[-1].mean().item():.3g}"
                ),
            )
            if checkpoint is not None:
                checkpoint.after_step(state, self.engine)

        with bar:
            while state.epoch < epochs:
                started = time.perf_counter()
                order, seeds = state.begin_epoch(labeled.size, len(sizes))
                batches = self._batches(labeled, order)
                phase = phases[state.epoch]
                self._epoch(
                    step, recorded, state, batches, targets, seeds,
                    phase=phase, epochs_left=phases[state.epoch :].count(phase),
                    after_step=after_step,
                )  # fmt: skip
                if state.moment is not None:
                    state.moment.look(state.epoch, state.model)
                state.end_epoch(self._summary(state, batches))
                bar.set_postfix(loss=f"{state.summary['train_loss']:.3g}", refresh=False)
                bar.update()
                on_epoch(EpochEnd(
                    epoch=state.epoch - 1, num_epochs=epochs, step=state.epoch * len(sizes),
                    loss=state.summary["train_loss"],
                    learning_rate=float(state.optimizer.param_groups[0]["lr"]),
                    images_per_second=sum(sizes) / (time.perf_counter() - started),
                    ranking_accuracy=state.summary.get("train_ranking_accuracy"),
                ))  # fmt: skip
        if checkpoint is not None:
            checkpoint.after_training(state, self.engine)

    def _epoch(
        self,
        step: TrainingStep,
        recorded: RecordedSteps,
        state: TrainingState,
        batches: list[IndexArray],
        labels: Targets,
        seeds: list[int],
        *,
        phase: Phase,
        epochs_left: int,
        after_step: Callable[[int], None],
    ) -> None:
        """Train on the batches of an epoch that are left, without waiting for the device."""
        task, engine, epoch = self.task, self.engine, state.epoch
        ahead = not task.train.in_memory

        pseudo_labels = state.pseudo_labels
        parts = [batch[self._my_part(batch.size)] for batch in batches]
        drawn = [None if pseudo_labels is None else pseudo_labels.draw(p.size) for p in parts]

        def in_turn(images: Tensor, indices: IndexArray) -> Tensor:
            if isinstance(task, MirrorsInTurns):
                return task.mirrored(images, indices, epoch=epoch)
            return images

        def load(k: int) -> tuple[Batch, UnlabeledBatch | None]:
            batch, rows = task.training_batch(parts[k], labels, seed=seeds[k]), drawn[k]
            batch = Batch(in_turn(batch.images, parts[k]), batch.targets)
            if ahead:
                batch = Batch(engine.pinned(batch.images), engine.pinned(batch.targets))
            if pseudo_labels is None or rows is None:
                return batch, None
            unlabeled = pseudo_labels.unlabeled[rows]
            images = in_turn(task.pool_images(unlabeled), unlabeled)
            return batch, UnlabeledBatch(pseudo_labels, rows, images)

        sizes = Counter(batch.size for batch in batches)
        left = range(state.batch, len(batches))
        loaded = prefetched(load, left, ahead=ahead)
        for k, (batch, unlabeled) in zip(left, loaded, strict=True):
            images, targets = engine.to_device(batch.images), engine.to_device(batch.targets)
            if unlabeled is None and can_record(engine, step.optimizer, targets):
                steps_left = sizes[batches[k].size] * epochs_left
                result = recorded(images, targets, phase, steps_left=steps_left)
            else:
                # Processes average their gradients; parts of different sizes weigh accordingly.
                share = images.shape[0] * engine.world_size / batches[k].size
                result = step(images, targets, phase, share=share, unlabeled=unlabeled)
            state.scheduler.step()
            state.losses.append(result.losses)
            if result.ranking_accuracy is not None:
                state.accuracies.append(result.ranking_accuracy)
            state.batch += 1
            after_step(batches[k].size)

    def _pseudo_labels(self, labeled: IndexArray, *, seed: int) -> FlexMatch | None:
        """Return the pseudo-labels of a training, or None where it is by labeled images alone.

        Images of the test set that are in the pool's folder too, as those that people label for
        testing, are left out.
        """
        if self._cycle.semi_supervised is None:
            return None
        pool, tested = self.task.train, set(self.task.test.paths or ())
        left_out = [k for k, path in enumerate(pool.paths or ()) if path in tested]
        unlabeled = np.setdiff1d(np.arange(len(pool)), [*labeled, *pool.unreadable, *left_out])
        if not unlabeled.size:
            return None
        return FlexMatch(unlabeled, len(self.task.class_names), seed=seed + self.engine.rank)

    def _summary(self, state: TrainingState, batches: list[IndexArray]) -> dict[str, float]:
        """Return an epoch's means; stop the run if a loss is not finite, naming the sample."""
        losses = torch.cat(state.losses).float()
        finite = torch.isfinite(losses)
        numbers = [finite.all().float(), losses.mean(), state.losses[0].mean().float()]
        if state.accuracies:
            numbers.append(torch.stack(state.accuracies).nanmean().float())
        all_finite, mean, first_mean, *accuracy = torch.stack(numbers).tolist()
        if not all_finite:
            order = np.concatenate([batch[self._my_part(batch.size)] for batch in batches])
            first = int(torch.nonzero(~finite)[0])
            raise NonFiniteValue(
                f"the loss of {self.task.train.names[order[first]]} became "
                f"{losses[first].item()} in epoch {state.epoch}: lower optimizer.lr "
                f"(now {self._optimizer.lr:g}) or look at this sample and its label"
            )
        if not state.epoch:
            state.untrained_loss = first_mean
        summary = {"train_loss": mean}
        if accuracy:
            summary["train_ranking_accuracy"] = accuracy[0]
        return summary

    def _warn_if_unfitted(
        self, loss: float, untrained: float, num_labeled: int, epochs: int
    ) -> None:
        """Warn where the last epoch's mean loss is above `UNFITTED_SHARE` of the first batch's."""
        if loss > UNFITTED_SHARE * untrained:
            logger.warning(
                "training ended at %.0f %% of the loss of an untrained network (%.3g of %.3g), "
                "%d epochs over %d labels: a fair comparison of strategies needs fitted networks "
                "(below %.0f %%); raise cycle.epochs or cycle.min_steps",
                100 * loss / untrained, loss, untrained, epochs, num_labeled, 100 * UNFITTED_SHARE,
            )  # fmt: skip

    def _phase(self, epoch: int, epochs: int) -> Phase:
        """Return how the predicted losses are trained in an epoch, of so many."""
        head = self._head
        return Phase(epoch >= head.detach_at * epochs, epoch >= head.warm_up_epochs)

    def num_epochs(self, num_labeled: int) -> int:
        """Return how often `run` goes over so many labeled images."""
        steps = max(1, len(self._batch_starts(num_labeled)))
        return max(self._cycle.epochs, math.ceil(self._cycle.min_steps / steps))

    def _batch_starts(self, num_labeled: int) -> list[int]:
        """Return where the batches of an epoch begin, in its order of samples."""
        size = self._cycle.batch_size
        starts = list(range(0, num_labeled, size))
        if self._cycle.merge_remainder and len(starts) > 1 and num_labeled - starts[-1] < size / 2:
            starts.pop()
        return starts

    def _batches(self, labeled: IndexArray, order: NDArray[np.int64]) -> list[IndexArray]:
        """Cut the labeled samples, in this order, into batches.

        The last one is left out where a process would get fewer than two samples of it: batch
        normalization cannot train on one, and a ranking needs two.
        """
        starts = self._batch_starts(order.size)
        ends = [*starts[1:], order.size]
        batches = [labeled[order[i:end]] for i, end in zip(starts, ends, strict=True)]
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
