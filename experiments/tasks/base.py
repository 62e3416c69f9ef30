"""The port between a task and the code that trains, scores and records.

A task defines its data, model, loss, metric, and the drawing of samples. Devices, cycles,
strategies and files are outside of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from al_core import IndexArray, Prediction
from experiments.data.labels import Label
from experiments.data.samples import Batch, Samples
from experiments.data.targets import Targets
from experiments.drawing.panel import Panel
from experiments.metrics.evaluation import Evaluation


class Metrics(Protocol):
    """Counts over a test set; counts of several processes can be merged."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Count one batch."""
        ...

    def merge(self, others: Sequence[Self]) -> None:
        """Add the counts of others."""
        ...

    def compute(self) -> Mapping[str, float]:
        """Return the metrics by name."""
        ...

    def evaluation(self, class_names: Sequence[str]) -> Evaluation:
        """Return the results class by class; images are places in the order of counting."""
        ...


class Task(Protocol):
    """Everything that is specific to classification, detection, segmentation or pose."""

    metric: str
    """Name of the primary metric, one of those that `metrics()` computes; larger is better."""
    eval_batch_size: int
    """Images in a batch of inference."""

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes, in the order of the labels."""
        ...

    @property
    def has_embedding(self) -> bool:
        """True if predictions have an embedding."""
        ...

    @property
    def targets(self) -> Targets:
        """Labels of whole images of `train`, which the oracle reveals."""
        ...

    @property
    def train(self) -> Samples:
        """The pool's images."""
        ...

    @property
    def test(self) -> Samples:
        """Images for evaluation only."""
        ...

    def build_model(self) -> nn.Module:
        """Return a model with fresh weights, drawn from torch's global generator."""
        ...

    def example(self) -> Tensor:
        """Return two inputs of the model, to determine shapes."""
        ...

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load labeled training samples, on the CPU or where they reside.

        Args:
            indices: Positions of images in `train`.
            targets: Their labels: the task's `targets`, or a view of them by parts of images.
            seed: Decides the augmentation of each sample.

        Raises:
            LabelHidden: One of them is not labeled.
        """
        ...

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load training images without labels: uint8 (b, 3, h, w), likewise."""
        ...

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load test samples, likewise."""
        ...

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Count the parts of these samples' labels by their noun in the plural, such as "boxes".

        The key "boxes" becomes the column `num_labeled_boxes` of `cycles.csv`. The mapping is empty
        if a label is one answer per image, since the number of images is known.

        Raises:
            LabelHidden: One of them is not labeled.
        """
        ...

    def augment(
        self, images: Tensor, targets: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Augment a whole batch on its device."""
        ...

    def normalize(self, images: Tensor) -> Tensor:
        """Turn uint8 images into the model's float inputs, on their device."""
        ...

    def losses(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss of each sample, (b,) float32, which the loss-prediction module learns."""
        ...

    def objective(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Return the scalar to minimize and `losses` from the same computation.

        The scalar need not be the mean of the losses: a detector's is per box of the batch.
        """
        ...

    def log_probs(self, outputs: Any) -> Tensor:
        """Return the log-probabilities (b, k, *positions) in outputs, in float32.

        A static method: the loss-prediction module keeps it as a plain function.
        """
        ...

    def predict(self, outputs: Any, model: nn.Module) -> Prediction:
        """Convert outputs, and the features that `model` kept of this batch, to a `Prediction`."""
        ...

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return log-probabilities (b, m, k, *positions) sampled from `model`.

        Random numbers come from torch's global generators. None if the task makes no samples.
        """
        ...

    def metrics(self) -> Metrics:
        """Return fresh counts."""
        ...

    def data_facts(self) -> dict[str, Any]:
        """Return the facts about the data that inference on other images needs.

        They are plain values, from which `experiments.data.blank` builds data again: for example
        mean and standard deviation, which may have been measured on the pool.
        """
        ...

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize an image (h, w, 3) to the size of the images of `pool_images`."""
        ...

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return the number of prepared images of this size in a batch of inference."""
        ...

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Describe pictures of training samples for people, with the model's predictions.

        Args:
            indices: The samples.
            prediction: The model's prediction of them.
            targets: Their annotations, shown where they are revealed.
        """
        ...

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Describe pictures of test samples, with predictions and annotations, like `draw`."""
        ...

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return (height, width) in pixels of the original training images."""
        ...

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return predictions as annotations for people to correct.

        Args:
            prediction: The prediction for some images.
            sizes: (height, width) in pixels of the original images, to which the labels refer.
        """
        ...


@runtime_checkable
class AugmentsStrongly(Protocol):
    """A task that can be trained on unlabeled images: its outputs are one prediction an image."""

    def augment_strongly(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change images that `augment` has changed further, without changing their classes.

        Args:
            images: As `augment` returned them.
            generator: Decides what is drawn; on the device of the images.
        """
        ...


@runtime_checkable
class MirrorsInTurns(Protocol):
    """A task whose augmentation of an image depends on the epoch."""

    def mirrored(self, images: Tensor, indices: IndexArray, *, epoch: int) -> Tensor:
        """Mirror the images whose turn it is.

        Args:
            images: Images of `training_batch`.
            indices: Their positions in `train`.
            epoch: The number of the epoch, from 0.
        """
        ...
