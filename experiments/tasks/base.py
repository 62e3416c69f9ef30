"""The port between a task and the code that trains, scores and records.

A task knows its data, its model, its loss, its metric and how to show a sample to a person. It
knows nothing of devices, cycles, strategies or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from al_core import IndexArray, Prediction
from experiments.data.labels import Label
from experiments.data.samples import Batch, Samples
from experiments.data.targets import Targets


class Metrics(Protocol):
    """Counts over a test set; the parts that several processes counted can be merged."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Count one batch."""
        ...

    def merge(self, others: Sequence[Self]) -> None:
        """Add what others counted."""
        ...

    def compute(self) -> Mapping[str, float]:
        """Return the metrics by name."""
        ...


@dataclass(frozen=True)
class Panel:
    """A sample drawn for people: RGB uint8 (h, w, 3) and one line about it."""

    image: NDArray[np.uint8]
    caption: str


class Task(Protocol):
    """Everything that is particular to classification, detection or segmentation."""

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
        """Whether predictions have an embedding."""
        ...

    @property
    def targets(self) -> Targets:
        """Labels of whole images of `train`, readable once the oracle has given them."""
        ...

    @property
    def train(self) -> Samples:
        """The pool's images."""
        ...

    @property
    def test(self) -> Samples:
        """Images that are only evaluated on."""
        ...

    def build_model(self) -> nn.Module:
        """Return the model with fresh weights, drawn from torch's global generator."""
        ...

    def example(self) -> Tensor:
        """Return two inputs as the model takes them, to find out shapes with."""
        ...

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load labeled training samples on the CPU.

        Args:
            indices: Positions of images in `train`.
            targets: Their labels: `targets`, or a view of it that shows parts of an image.
            seed: Decides the augmentation that is drawn for each sample.

        Raises:
            LabelHidden: One of them is not labeled.
        """
        ...

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load training images without labels: uint8 (b, 3, h, w) on the CPU."""
        ...

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load test samples on the CPU."""
        ...

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Count what people made to label these samples, by what it is, in the plural.

        Where a label is one answer per image there is nothing to add to the number of images, and
        the mapping is empty. "boxes" becomes the column `num_labeled_boxes` of `cycles.csv`.

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
        """Return the loss of each sample, (b,) float32: what the loss-prediction module learns."""
        ...

    def objective(self, outputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
        """Return the scalar to minimize and, of the same computation, `losses`.

        The scalar need not be the mean of the losses: a detector's is per box of the batch.
        """
        ...

    def log_probs(self, outputs: Any) -> Tensor:
        """Return the log-probabilities (b, k, *positions) in outputs, in float32.

        A static method: the loss-prediction module keeps it as a plain function.
        """
        ...

    def predict(self, outputs: Any, model: nn.Module) -> Prediction:
        """Turn outputs, and the features `model` kept of the same batch, into a `Prediction`."""
        ...

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return log-probabilities (b, m, k, *positions) sampled from `model`, if asked for.

        What is random draws from torch's global generators.
        """
        ...

    def metrics(self) -> Metrics:
        """Return fresh counts."""
        ...

    def data_facts(self) -> dict[str, Any]:
        """Return what asking the model about other images takes, beside its class names.

        Plain values, which `experiments.data.blank` makes data of again: mean and standard
        deviation, for example, which may have been measured on the pool.
        """
        ...

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image (h, w, 3) of any size to that in which `pool_images` has images."""
        ...

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return how many prepared images of this size are a batch of inference."""
        ...

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Draw training samples for people, with what the model says of them."""
        ...

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return (height, width) in pixels of training images, as they are."""
        ...

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return what the model makes of images as annotations, for people to correct.

        Args:
            prediction: Of the images.
            sizes: (height, width) in pixels of each as it is, which boxes refer to.
        """
        ...
