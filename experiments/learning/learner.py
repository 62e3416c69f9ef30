"""A task's model, trained and asked about samples: the `Learner` of al_core for all three tasks.

How it is trained is in `experiments.learning.training`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from al_core import (
    IndexArray,
    Prediction,
    entropy,
    kendall_tau,
    least_confidence,
    margin,
    stream_seed,
)
from al_core.errors import InvalidSetting, NonFiniteValue
from experiments.data.labels import Label
from experiments.data.loading import prefetched
from experiments.drawing.panel import Panel
from experiments.engine.engine import Engine
from experiments.engine.lockstep import current
from experiments.engine.memory import give_back_freed_memory
from experiments.learning.checkpointing import Moment, TrainingCheckpoint
from experiments.learning.observer import CycleObserver
from experiments.learning.pretrained_features import PoolFeatures
from experiments.learning.progress import Progress, shows_bars
from experiments.learning.training import Training
from experiments.metrics.evaluation import Evaluation
from experiments.settings.recipe import Recipe
from experiments.settings.wording import counted
from experiments.tasks.base import Task
from experiments.units.unit import Unit, WholeImages, images_of
from vendored.checkpoints import fill

SCORES = {"margin": margin, "entropy": entropy, "least_confidence": least_confidence}
"""Scores of a classifier's output, whose rank correlation with the true loss is measured."""
BATCHES_A_TRIM = 4
"""Batches of inference after which freed memory returns to the system."""


@runtime_checkable
class CanReside(Protocol):
    """A task whose image sets can be kept on a GPU."""

    def reside(self, engine: Engine) -> None:
        """Keep those that fit there."""
        ...


class TaskLearner:
    """A model of `task`, trained on labeled samples, in every process alike.

    Args:
        task: Data, model, loss and metric.
        engine: Devices and processes.
        recipe: How the model is trained.
        unit: The samples of the pool; None for whole images.
        observer: Told about training and inference; None for one of the learner's own.
        checkpoint: Keeps the state of a training every few minutes; None for never.
        pretrained: Features of the pool that predictions are to have beside the model's own.
    """

    def __init__(
        self,
        task: Task,
        engine: Engine,
        recipe: Recipe,
        *,
        unit: Unit | None = None,
        observer: CycleObserver | None = None,
        checkpoint: TrainingCheckpoint | None = None,
        pretrained: PoolFeatures | None = None,
    ) -> None:
        self.task = task
        self._pretrained = pretrained
        self.unit = WholeImages(task) if unit is None else unit
        self.engine = engine
        self.training = Training(task, engine, recipe)
        if engine.resident and isinstance(task, CanReside):
            task.reside(engine)
        self._observer = CycleObserver(engine) if observer is None else observer
        self._checkpoint = checkpoint
        self._warm_start = recipe.cycle.warm_start
        self._predicts_loss = recipe.loss_prediction.enabled
        self._trained: nn.Module | None = None
        self.evaluation: Evaluation | None = None
        """Results of the last `evaluate`, class by class; None before it."""
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
        model = self.training.fresh_model(seed=0)
        fill(model, state)
        self._trained, self.posterior_seed = model, posterior_seed

    def fit(self, labeled: IndexArray, *, seed: int) -> Mapping[str, float]:
        """Train on these samples from fresh weights (or the last ones, with `warm_start`).

        Returns:
            What `Training.run` measures.

        Raises:
            NonFiniteValue: A loss is NaN or infinite; the text names the first such sample.
        """
        images, _ = images_of(self.unit, labeled)
        self._observer.announce(
            f"training on {counted(images.size, 'image')} for "
            f"{counted(self.training.num_epochs(images.size), 'epoch')}"
        )
        if self._checkpoint is not None:
            self._checkpoint.begin([self.unit.name(i) for i in labeled.tolist()], seed=seed)
        return self._fit(images, seed=seed)

    def _fit(
        self,
        images: IndexArray,
        *,
        seed: int,
        moment: Moment | None = None,
        checkpoint: TrainingCheckpoint | None = None,
        prefix: str = "",
    ) -> Mapping[str, float]:
        if self._trained is None or not self._warm_start:
            self._trained = self.training.fresh_model(seed=stream_seed(seed, 0, "weights"))
        self.posterior_seed = stream_seed(seed, 0, "posterior samples")
        checkpoint = self._checkpoint if checkpoint is None else checkpoint
        measured = self.training.run(
            self._trained, images, self.unit.targets, seed=seed, moment=moment,
            checkpoint=checkpoint,
            announce=lambda text: self._observer.announce(f"{prefix}{text}"),
            on_epoch=self._observer.end_epoch,
        )  # fmt: skip
        if checkpoint is not None:
            self._observer.credit("fit", checkpoint.seconds)
        if (lockstep := current()) is not None:
            self._observer.credit("fit", -lockstep.take_idle_seconds())
        return measured

    def evaluate(self) -> Mapping[str, float]:
        """Measure the trained model on the readable test samples, each once.

        Returns:
            The task's metrics, and with a loss-prediction module `loss_ranking_tau`: Kendall's tau
            between predicted and true losses of the test samples, which were never trained on. Of a
            classifier also `tau_margin`, `tau_entropy` and `tau_least_confidence`: the same between
            these scores and the true losses.
        """
        task = self.task
        readable = _readable(len(task.test), task.test.unreadable)
        metrics = task.metrics()
        scores: list[Tensor] = []
        with torch.inference_mode():
            for batch in self._shard(readable, task.test_batch, task.test.in_memory, "evaluate"):
                outputs, predicted = self._forward(self._inputs(batch.images))
                targets = self.engine.to_device(batch.targets)
                metrics.update(outputs, targets)
                if columns := self._scores(outputs, predicted):
                    scores.append(torch.stack([task.losses(outputs, targets), *columns], 1))
        every = self.engine.gather(metrics)
        merged = task.metrics()
        merged.merge(every)
        measured = dict(merged.compute())
        by_class = merged.evaluation(task.class_names)
        self.evaluation = by_class.with_images(readable, task.test.names)
        rows = self.engine.gather_rows(torch.cat(scores) if scores else None).double().numpy()
        return measured | self._taus(rows)

    def _scores(self, outputs: Any, predicted: Tensor | None) -> list[Tensor]:
        """Return what is compared with the true losses: predicted ones, and scores of a class."""
        found = [] if predicted is None else [predicted]
        if isinstance(outputs, Tensor) and outputs.ndim == 2:
            prediction = Prediction(self.task.log_probs(outputs))
            found += [score(prediction) for score in SCORES.values()]
        return found

    def _taus(self, rows: NDArray[np.float64]) -> dict[str, float]:
        """Return Kendall's tau of the first column with each of the others, by name."""
        if rows.ndim < 2:
            return {}
        own = ["loss_ranking_tau"] if self._predicts_loss else []
        names = [*own, *(f"tau_{name}" for name in SCORES)][: rows.shape[1] - 1]
        return {name: kendall_tau(rows[:, 0], rows[:, 1 + k]) for k, name in enumerate(names)}

    def infer(self, indices: IndexArray, extract: Callable[[Prediction], Tensor]) -> Tensor:
        """Return the rows of `extract` for training samples, without looking at any label.

        Batches are the same however many processes share them, so their rows are too.

        Raises:
            NonFiniteValue: A row is not finite; the text names the sample.
        """
        with self._observer.phase("score"):
            rows: list[Tensor] = []
            task = self.task
            asked = indices if self.unit.groups is None else np.sort(indices)

            def load(images: IndexArray) -> tuple[IndexArray, Tensor]:
                return images, task.pool_images(images)

            with torch.inference_mode():
                in_images, _ = images_of(self.unit, asked)
                batches = self._shard(in_images, load, task.train.in_memory, "score")
                for images, pixels in batches:
                    prediction = self.predict(pixels)
                    if self._pretrained is not None:
                        prediction = self._pretrained.beside(prediction, images)
                    rows.append(self.unit.rows(prediction, images, asked, extract))
            result = self.engine.gather_rows(torch.cat(rows) if rows else None)
            finite = (
                torch.isfinite(result.flatten(1).sum(1)) if result.ndim > 1 else result.isfinite()
            )
            if not bool(finite.all()):
                name = self.unit.name(int(asked[int(torch.nonzero(~finite)[0])]))
                raise NonFiniteValue(f"the model's answer for {name} is not finite")
            if asked is indices or not indices.size:
                return result
            return result[torch.from_numpy(np.searchsorted(asked, indices))]

    def draw(self, indices: IndexArray) -> list[Panel]:
        """Draw training images with what the model says of them, in this process alone."""
        panels: list[Panel] = []
        with torch.inference_mode():
            for batch, prediction in self.predictions(indices):
                panels += self.task.draw(batch, prediction, self.unit.targets)
        return panels

    def draw_test(self, indices: IndexArray) -> list[Panel]:
        """Draw test images with predictions and annotations, in this process alone."""
        panels: list[Panel] = []
        with torch.inference_mode():
            for index in indices:  # test images may differ in size
                batch = self.task.test_batch(np.array([index]))
                prediction = self._prediction(self._inputs(batch.images))
                panels += self.task.draw_test(np.array([index]), prediction)
        return panels

    def drafts(self, indices: IndexArray) -> list[Label]:
        """Say what the model would annotate training samples with, in this process alone."""
        labels: list[Label] = []
        with torch.inference_mode():
            for batch, prediction in self.predictions(indices):
                labels += self.task.drafts(prediction, self.task.sizes(batch))
        return labels

    def predictions(self, indices: IndexArray) -> Iterator[tuple[IndexArray, Prediction]]:
        """Ask the model about training images batch by batch, in this process alone.

        Its predictions have no posterior samples: only strategies need them, and they may come
        from networks that a checkpoint does not hold.
        """
        size = self.task.eval_batch_size
        for i in range(0, indices.size, size):
            batch = indices[i : i + size]
            yield batch, self._prediction(self._inputs(self.task.pool_images(batch)))

    def predict(self, images: Tensor) -> Prediction:
        """Ask the model about a batch of images, uint8 (b, 3, h, w) on the CPU."""
        inputs = self._inputs(images)
        prediction = self._prediction(inputs)
        # The same seed for every batch: all samples are asked of the same drawn networks, whichever
        # process asks.
        with self.engine.seeded(self.posterior_seed, alike=True), self.engine.autocast():
            samples = self.task.posterior_samples(self._network, inputs)
        return replace(prediction, log_prob_samples=samples)

    @property
    def _network(self) -> nn.Module:
        """The task's network, without a loss-prediction module."""
        network = self.model.base_model if self._predicts_loss else self.model
        assert isinstance(network, nn.Module)
        return network

    def _prediction(self, inputs: Tensor) -> Prediction:
        outputs, predicted = self._forward(inputs)
        return replace(self.task.predict(outputs, self._network), predicted_loss=predicted)

    def _inputs(self, images: Tensor) -> Tensor:
        engine = self.engine
        return engine.laid_out(self.task.normalize(engine.to_device(images)))

    def _forward(self, inputs: Tensor) -> tuple[Any, Tensor | None]:
        """Run the unwrapped model in eval mode: a process without samples need not take part."""
        model = self.model
        model.eval()
        with self.engine.autocast():
            result = model(inputs)
        return result if self._predicts_loss else (result, None)

    def _shard(
        self, indices: IndexArray, load: Callable[[IndexArray], Any], in_memory: bool, what: str
    ) -> Iterator[Any]:
        """Load this process's contiguous part of the batches."""
        size = self.task.eval_batch_size
        batches = [indices[i : i + size] for i in range(0, indices.size, size)]
        mine = self.engine.shard(len(batches))
        loaded = prefetched(load, [batches[k] for k in mine], ahead=not in_memory)
        share = sum(batches[k].size for k in mine)
        progress = Progress(self._observer.announce, total=share)
        bar = tqdm(
            loaded, total=len(mine), desc=what, unit="batch", mininterval=1, leave=False,
            disable=None if shows_bars(self.engine) else True,
        )  # fmt: skip
        for number, batch in enumerate(bar, start=1):
            yield batch
            progress.advance(
                batches[mine[number - 1]].size,
                lambda: f"{what}, {progress.percent:.0f} % of {counted(indices.size, 'image')}",
            )
            if number % BATCHES_A_TRIM == 0:
                give_back_freed_memory()


def _readable(num_samples: int, unreadable: Mapping[int, str]) -> IndexArray:
    return np.setdiff1d(np.arange(num_samples), np.fromiter(unreadable, dtype=np.int64))
