"""Image classification: cross-entropy, accuracy, and the augmentation of the CIFAR recipe.

Source: the recipe of kuangliu/pytorch-cifar @49b7aa9, which Yoo & Kweon, CVPR 2019, section 4.1
use too: random crop with 4 pixels of zero padding, horizontal flip, normalization. Photographs have
an augmentation of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import IndexArray, Prediction
from al_core.errors import InvalidSetting, require_positive
from experiments.data import classification_augmentation
from experiments.data.classification import ImageClassification
from experiments.data.labels import Label
from experiments.data.photographs import fit_square, whole_image
from experiments.data.resident import ResidentImages, can_reside
from experiments.data.samples import Batch, Samples
from experiments.data.targets import HiddenTargets, OpenTargets, Targets
from experiments.drawing.panel import Panel
from experiments.drawing.views import class_view
from experiments.engine.engine import Engine
from experiments.metrics.classification import ClassificationMetrics
from experiments.models.classifier import Classifier, FitsInputs, logits_of
from experiments.models.dropout import LayerDropout
from experiments.models.normalizing import Normalization
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.checks import check_number
from experiments.settings.input_format import normalization

NUM_SHOWN = 3
"""The most probable classes of an image, of which a caption names the likely ones."""

LARGE_PIXELS, BATCH_PIXELS = 128**2, 2**20
"""Larger images are evaluated in batches of so many pixels: activations of 256 photographs would
take gigabytes, and a CPU is twice as fast with fewer."""


class Classification:
    """One class per image.

    Args:
        data: Images and labels.
        backbone: Called with `num_classes`, returns any model: (b, 3, h, w) to logits (b, k), or to
            an object with these as `logits`.
        augmentation: "cifar", "photographs" or "none".
        crop_padding: Of "cifar": pixels of zero padding around which a random crop moves; 0 for
            none.
        mirroring: Of "cifar": "random", or "alternating" to show every image in each pair of epochs
            once as it is and once mirrored.
        min_area: Of "photographs": smallest area of a random crop, as a share of the image's.
        color_jitter: Of "photographs": largest relative change of brightness, contrast and
            saturation; 0 for none.
        randaugment: Of "photographs": operations of RandAugment for each image; 0 for none.
        label_smoothing: Share of a label that is spread over all classes, in [0, 1). The network is
            trained on such labels; its losses, which a loss-prediction module learns, are those of
            the labels themselves.
        eval_batch_size: Images in a batch of inference; of images above 128 pixels, as many as
            make a megapixel.
        dropout: Whether the classifier's input is dropped from in training, whatever the strategy:
            to compare strategies that sample with others on one network.
        dropout_rate: The share of that input that is dropped.
        mc_dropout_passes: Posterior samples of a prediction, by dropping from the classifier's
            input; 0 for none. With any the network is trained with dropout.

    Attributes:
        classifier: Where the network computes its class scores and keeps its embeddings.

    Raises:
        InvalidSetting: An augmentation that is unknown or out of range, such as a padding as large
            as the image, a backbone that cannot be built or does not take the images, or dropout
            without a last linear layer.
    """

    metric = "accuracy"

    def __init__(
        self,
        data: ImageClassification,
        backbone: Callable[..., nn.Module],
        *,
        augmentation: str = "cifar",
        crop_padding: int = 4,
        mirroring: str = "random",
        min_area: float = 0.35,
        color_jitter: float = 0.0,
        randaugment: int = 0,
        label_smoothing: float = 0.0,
        eval_batch_size: int = 256,
        dropout: bool = False,
        dropout_rate: float = 0.5,
        mc_dropout_passes: int = 0,
    ) -> None:
        require_positive("task.build.eval_batch_size", eval_batch_size)
        check_number("task.build.label_smoothing", label_smoothing, low=0.0, high=0.99)
        self.label_smoothing = label_smoothing
        self.dropout = LayerDropout(dropout=dropout, rate=dropout_rate, passes=mc_dropout_passes)
        self.train, self.test = data.train, data.test
        self.class_names: Sequence[str] = data.class_names
        self.backbone = backbone
        self._resize, self._interpolation = data.resize, data.interpolation
        self._normalize = Normalization(backbone, data.mean, data.std)
        self._pool_images, self._test_images = data.train.images, data.test.images
        labels = torch.as_tensor(data.train_targets)
        self._test_labels = torch.as_tensor(data.test_targets)
        self.targets: Targets = HiddenTargets(
            len(data.train), lambda indices: labels[torch.from_numpy(indices)], data.train.names
        )
        self._size = height, width = self._image_size()
        self.eval_batch_size = eval_batch_size
        if height * width > LARGE_PIXELS:
            self.eval_batch_size = min(eval_batch_size, max(1, BATCH_PIXELS // (height * width)))
        alternates = classification_augmentation.alternates(mirroring, augmentation)
        self._augment = classification_augmentation.augmentation(
            augmentation, size=self._size, flip=data.flip and not alternates,
            crop_padding=crop_padding, min_area=min_area, color_jitter=color_jitter,
            randaugment=randaugment,
        )  # fmt: skip
        self._mirrors_alternately = data.flip and alternates
        self.classifier = self._tried_network()
        self.has_embedding = self.classifier.has_embedding
        self._check_dropout()

    @property
    def normalization_is_measured(self) -> bool:
        """True if mean and deviation are those of the pool, not those of the network's weights."""
        return normalization(self.backbone) is None

    def reside(self, engine: Engine) -> None:
        """Keep the sets that fit on a GPU, where batches are gathered from now on."""
        if can_reside(self.train, engine):
            self._pool_images = ResidentImages(self.train, engine).images
        if can_reside(self.test, engine):
            self._test_images = ResidentImages(self.test, engine).images

    def build_model(self) -> nn.Module:
        """Return a fresh model with one output a class."""
        model = self.backbone(num_classes=len(self.class_names))
        self.classifier.install(model)
        if self.classifier.head is not None:
            self.dropout.install([self.classifier.classifying_layer(model)])
        if isinstance(model, FitsInputs):
            model.fit_inputs(self._sample_of_inputs())
        return model

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the layer that computes the class scores; none if it is not known."""
        return [] if self.classifier.head is None else [self.classifier.classifying_layer(model)]

    def example(self) -> Tensor:
        """Return two black images, normalized."""
        return self.normalize(torch.zeros(2, 3, *self._size, dtype=torch.uint8))

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load images and labels; all that is random happens in `augment`."""
        return Batch(self._pool_images(indices), targets.read(indices))

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load images only."""
        return self._pool_images(indices)

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Return nothing: a label is one answer per image."""
        return {}

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load test images and labels."""
        return Batch(self._test_images(indices), self.test_labels(indices))

    def test_labels(self, indices: IndexArray) -> Tensor:
        """Return labels of the test set, int64 (b,)."""
        return self._test_labels[torch.from_numpy(indices)]

    def augment(
        self, images: Tensor, targets: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Change every image of the batch on its own, as `classification_augmentation` says."""
        return self._augment(images, generator), targets

    def mirrored(self, images: Tensor, indices: IndexArray, *, epoch: int) -> Tensor:
        """Mirror the half of the images whose turn it is, where mirroring is alternating."""
        if not self._mirrors_alternately:
            return images
        return classification_augmentation.mirrored_alternately(images, indices, epoch=epoch)

    def augment_strongly(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change every image of the batch by RandAugment and a gray square."""
        return classification_augmentation.strongly_augmented(images, generator)

    def normalize(self, images: Tensor) -> Tensor:
        """Scale to 0..1, subtract the mean, divide by the standard deviation, per channel."""
        return self._normalize(images)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each sample."""
        return F.cross_entropy(outputs.float(), targets, reduction="none")

    def objective(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy of smoothed labels and the cross-entropy of each sample."""
        losses = self.losses(outputs, targets)
        if not self.label_smoothing:
            return losses.mean(), losses
        smoothed = F.cross_entropy(outputs.float(), targets, label_smoothing=self.label_smoothing)
        return smoothed, losses

    @staticmethod
    def log_probs(outputs: Tensor) -> Tensor:
        """Return log-probabilities (b, k)."""
        return outputs.float().log_softmax(1)

    def predict(self, outputs: Tensor, model: nn.Module) -> Prediction:
        """Return log-probabilities (b, k) and the classifier's input (b, d) as embedding."""
        return self.classifier.prediction(outputs, model)

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` samples (b, m, k), or None for none."""
        return self.classifier.resampled(model, self.dropout)

    def metrics(self) -> ClassificationMetrics:
        """Return fresh counts."""
        return ClassificationMetrics()

    def data_facts(self) -> dict[str, Any]:
        """Return size and resizing of the images, and mean and deviation of their channels."""
        facts = {"image_size": self._size[0], "resize": self._resize, **self._normalize.facts()}
        return {**facts, "interpolation": self._interpolation}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image to the square that one of the pool would become."""
        return fit_square(image, self._size[0], self._resize, self._interpolation)

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return `eval_batch_size`."""
        return self.eval_batch_size

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return whole images, captioned with the most probable classes and their probabilities."""
        return self._panels(self.train, indices, prediction, targets)

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Return whole images of the test set, likewise."""
        return self._panels(self.test, indices, prediction, OpenTargets(self.test_labels))

    def _panels(
        self, samples: Samples, indices: IndexArray, prediction: Prediction, targets: Targets
    ) -> list[Panel]:
        images = [whole_image(samples, index) for index in indices.tolist()]
        best = prediction.log_probs.exp().cpu().topk(min(NUM_SHOWN, len(self.class_names)))
        panels = []
        for index, image, classes, values in zip(
            indices.tolist(), images, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            truth = None
            if targets.is_revealed(index):
                truth = self.class_names[int(targets.read(np.array([index]))[0])]
            names = [self.class_names[k] for k in classes]
            panels.append(class_view(image, list(zip(names, values, strict=True)), truth=truth))
        return panels

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return the one size of all images."""
        return [self._size] * indices.size

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return the most probable class of each image."""
        best = prediction.log_probs.max(1)
        return [
            Label(class_name=self.class_names[int(k)], score=float(log_p.exp()))
            for k, log_p in zip(best.indices, best.values, strict=True)
        ]

    def _sample_of_inputs(self) -> Tensor:
        """Return inputs of the network from all over the pool, the same at every call."""
        height, width = self._size
        pool = np.setdiff1d(np.arange(len(self.train)), list(self.train.unreadable))
        count = min(pool.size, max(1, BATCH_PIXELS // (height * width)))
        chosen = pool[np.linspace(0, pool.size - 1, count).astype(np.int64)]
        return self.normalize(self.train.images(chosen))

    def _tried_network(self) -> Classifier:
        num_classes = len(self.class_names)
        name = backbone_name(self.backbone)

        def build() -> nn.Module:
            return self.backbone(num_classes=num_classes)

        def fits(outputs: Any) -> bool:
            logits = logits_of(outputs)
            return logits is not None and logits.shape == (2, num_classes)

        with torch.random.fork_rng(devices=[]):
            network = built(build, name=name, num_classes=num_classes)
            try_network(
                network,
                build,
                self._size,
                name=name,
                fits=fits,
                wanted=f"logits (2, {num_classes})",
            )
            return Classifier.of(network, build, self._size)

    def _check_dropout(self) -> None:
        if self.dropout.in_training and not self.classifier.can_resample:
            raise InvalidSetting(
                f"dropout drops from the input of a last linear layer that computes the class "
                f"scores, and {backbone_name(self.backbone)} has none: leave out "
                "task.build.dropout=true and strategies that sample by dropout, or use an ensemble"
            )

    def _image_size(self) -> tuple[int, int]:
        side = getattr(self.train, "image_size", None)
        if side is not None:
            return side, side
        readable = next(i for i in range(len(self.train)) if i not in self.train.unreadable)
        height, width = self.train.images(np.array([readable])).shape[2:]
        return height, width
