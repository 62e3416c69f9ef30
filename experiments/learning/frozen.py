"""Classification by a head on the features of a pretrained network whose weights do not change.

The features of the pool and of the test set are computed once and kept in a folder that all runs of
an output folder share. A cycle then trains and asks the head alone, which takes about a second.
Images are not augmented, since each has one feature.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from al_core import IndexArray, Prediction
from al_core.errors import InvalidSetting
from experiments.data.identity import decoded, identities
from experiments.data.labels import Label
from experiments.data.loading import prefetched
from experiments.data.samples import Batch, Samples
from experiments.data.targets import Targets
from experiments.drawing.panel import Panel
from experiments.engine.engine import Engine
from experiments.metrics.classification import ClassificationMetrics
from experiments.models.classifier import Classifier
from experiments.models.feature_head import FeatureHead
from experiments.models.feature_store import Features, FeatureStore, Rows
from experiments.models.trunk import Trunk
from experiments.settings.run_config import Backbone
from experiments.settings.wording import counted
from experiments.tasks.classification import Classification

logger = logging.getLogger(__name__)

FOLDER = ".features"
"""Folder of the feature stores in an output folder."""
EMBEDDED_BATCH = 16  # images that the network is run on at once; with 64 a CPU is half as fast
HEAD_BATCH = 4096  # features in a batch of inference
MEASURED_ROWS = 10_000  # of the pool, evenly spaced, that mean and deviation are measured on
MIN_STD = 0.1  # of the mean deviation: features that hardly vary are not blown up to 1
DROPPED = 0.5  # of the features that strong augmentation drops; ours
HEAD = Classifier("scores", is_last=True, has_method=True)


@dataclass(frozen=True, eq=False)
class EmbeddedSamples:
    """Images whose features are known, and which of them cannot be read, as `Samples`."""

    source: Samples
    unreadable: Mapping[int, str]
    in_memory: bool = True

    @property
    def names(self) -> Sequence[str]:
        return self.source.names

    @property
    def paths(self) -> Sequence[Path] | None:
        return self.source.paths

    def __len__(self) -> int:
        return len(self.source)

    def images(self, indices: IndexArray) -> Tensor:
        return self.source.images(indices)


class FrozenClassification:
    """A `Task`: that of `inner`, by a head on the features of its network.

    Inputs are features (b, d); images, uint8 (b, 3, h, w), are embedded when they are normalized.

    Args:
        inner: Data, metric and drawing, with the network as its backbone.
        engine: What the network runs on.
        folder: Where features are kept; None to keep and to compute none beforehand.
        trunk: What a checkpoint tells of the weights that its features were computed with.

    Raises:
        InvalidSetting: The network has no embeddings, random weights, an unknown normalization, or
            other weights than those of the checkpoint.
    """

    metric = "accuracy"
    has_embedding = True
    eval_batch_size = HEAD_BATCH

    def __init__(
        self,
        inner: Classification,
        engine: Engine,
        *,
        folder: Path | None = None,
        trunk: Mapping[str, str] | None = None,
    ) -> None:
        self.inner, self.engine = inner, engine
        self.class_names = inner.class_names
        self.targets: Targets = inner.targets
        assert isinstance(inner.backbone, Backbone)
        self._backbone: Backbone = inner.backbone
        self._trunk = frozen_trunk(inner, engine)
        self.train: Samples = inner.train
        self.test: Samples = inner.test
        if trunk is not None and trunk["sha256"] != self._trunk.sha256:
            raise InvalidSetting(
                f"the checkpoint's head was trained on features of {trunk['source']}, weights "
                f"{trunk['sha256'][:12]}, and {self._trunk.source} has other ones here, "
                f"{self._trunk.sha256[:12]}: the same weights are needed"
            )
        if folder is None:
            width = self._trunk.embed(engine.to_device(inner.example())).shape[1]
            self._mean, self._std = torch.zeros(width), torch.ones(width)  # the checkpoint has them
        else:
            self._prepare(folder)

    @property
    def backbone_name(self) -> str:
        """The choice of `backbone`."""
        return self._backbone.name

    @property
    def pool_features(self) -> Features:
        """The features of the pool, by position."""
        return self._features[0]

    def build_model(self) -> nn.Module:
        """Return a fresh head."""
        hidden = self._backbone.head == "mlp"
        head = FeatureHead(
            self._mean.clone(), self._std.clone(), len(self.class_names), hidden=hidden
        )
        self.inner.dropout.install([head.scores])
        return head

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the whole model: all of it depends on the classes."""
        return [model]

    def example(self) -> Tensor:
        """Return two features that are all zero."""
        return torch.zeros(2, self._mean.numel())

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load features and labels."""
        return Batch(self.pool_images(indices), targets.read(indices))

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load features of the pool: float32 (b, d)."""
        return self._features[0].rows(indices)

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load features and labels of the test set."""
        return Batch(self._features[1].rows(indices), self.inner.test_labels(indices))

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Return nothing: a label is one answer per image."""
        return {}

    def augment(
        self, images: Tensor, targets: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Return the features as they are."""
        return images, targets

    def augment_strongly(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Replace a share `DROPPED` of each image's features by their means over the pool."""
        drawn = torch.rand(images.shape, generator=generator, device=images.device)
        return torch.where(drawn < DROPPED, self._mean.to(images.device), images)

    def normalize(self, images: Tensor) -> Tensor:
        """Return features as they are, and the features of images."""
        if images.ndim == 2:
            return images
        parts = [
            self._trunk.embed(self.inner.normalize(p)) for p in torch.split(images, EMBEDDED_BATCH)
        ]
        return torch.cat(parts)

    def completed(self, head: nn.Module) -> nn.Module:
        """Return the whole network: normalized images (b, 3, h, w) to class scores (b, k).

        Raises:
            InvalidSetting: Its own classifier is not its last layer.
        """
        return self._trunk.completed(head)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each sample."""
        return self.inner.losses(outputs, targets)

    def objective(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean cross-entropy and the cross-entropy of each sample."""
        return self.inner.objective(outputs, targets)

    def log_probs(self, outputs: Tensor) -> Tensor:
        """Return log-probabilities (b, k)."""
        return self.inner.log_probs(outputs)

    def predict(self, outputs: Tensor, model: nn.Module) -> Prediction:
        """Return log-probabilities (b, k), and as embedding what the last layer was given."""
        return HEAD.prediction(outputs, model)

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` samples (b, m, k), or None for none."""
        return HEAD.resampled(model, self.inner.dropout)

    def metrics(self) -> ClassificationMetrics:
        """Return fresh counts."""
        return self.inner.metrics()

    def data_facts(self) -> dict[str, Any]:
        """Return those of the images, and what identifies the network's weights."""
        return {**self.inner.data_facts(), "trunk": self._trunk.facts()}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring an image to the size that the network takes."""
        return self.inner.prepare(image)

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return how many images the network is run on at once."""
        return EMBEDDED_BATCH

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return the images with the predicted class and its probability."""
        return self.inner.draw(indices, prediction, targets)

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Return images of the test set, likewise."""
        return self.inner.draw_test(indices, prediction)

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return the one size of all images."""
        return self.inner.sizes(indices)

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return the most probable class of each image."""
        return self.inner.drafts(prediction, sizes)

    def _prepare(self, folder: Path) -> None:
        """Load or compute the features of both sets, and measure those of the pool."""
        facts = {"weights": self._trunk.facts(), "images": self.inner.data_facts()}
        facts["images"]["precision"] = self.engine.precision
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        store = FeatureStore(folder / f"{self._backbone.name}-{key}")
        if not store.exists:
            self._trunk.check()
        start = time.perf_counter()
        parts = [("the pool", self.inner.train), ("the test set", self.inner.test)]
        self._features: list[Features] = [
            store.of(identities(samples), partial(self._rows, samples), label=label)
            for label, samples in parts
        ]
        self._trunk.release()
        pool, test = self._features
        for (label, samples), features in zip(parts, self._features, strict=True):
            if len(samples) and len(features.unreadable) == len(samples):
                reason = next(iter(features.unreadable.values()))
                raise InvalidSetting(f"data.root: no image of {label} can be read ({reason})")
        self.train = EmbeddedSamples(self.inner.train, pool.unreadable)
        self.test = EmbeddedSamples(self.inner.test, test.unreadable)
        readable = np.setdiff1d(np.arange(len(self.train)), np.fromiter(pool.unreadable, np.int64))
        count = min(MEASURED_ROWS, readable.size)
        measured = pool.rows(readable[np.arange(count) * readable.size // count]).double()
        self._mean = measured.mean(0).float()
        std = measured.std(0, correction=0)
        self._std = std.clamp_min(max(MIN_STD * float(std.mean()), 1e-12)).float()
        logger.info(
            "%s of %s in %.1f s, kept in %s",
            counted(pool.dim, "feature"),
            counted(len(self.train) + len(self.test), "image"),
            time.perf_counter() - start, store.folder,
        )  # fmt: skip

    def _rows(self, samples: Samples, indices: IndexArray) -> Rows:
        """Embed images, loading the next ones meanwhile."""
        rows: list[Tensor] = []
        reasons: dict[int, str] = {}
        starts = range(0, indices.size, EMBEDDED_BATCH)
        parts = [indices[start : start + EMBEDDED_BATCH] for start in starts]
        with torch.inference_mode():
            loaded = prefetched(partial(decoded, samples), parts, ahead=not samples.in_memory)
            for start, batch in zip(starts, loaded, strict=True):
                images = self.inner.normalize(self.engine.to_device(batch.images))
                rows.append(self._trunk.embed(images).cpu())
                reasons |= {start + row: reason for row, reason in batch.unreadable.items()}
        return torch.cat(rows).numpy(), reasons


def frozen_trunk(task: Classification, engine: Engine) -> Trunk:
    """Return the network of a task as a trunk.

    Raises:
        InvalidSetting: It has no embeddings, or it is not known how its images were normalized.
    """
    backbone = task.backbone
    assert isinstance(backbone, Backbone)
    if not task.classifier.has_embedding:
        raise InvalidSetting(
            f"backbone.frozen=true needs the input of a last linear layer, and "
            f"backbone={backbone.name} has none: leave it at false"
        )
    if task.normalization_is_measured:
        raise InvalidSetting(
            "backbone.frozen=true needs the normalization that the weights were trained with: give "
            "backbone.mean and backbone.std, '[0.485,0.456,0.406]' and '[0.229,0.224,0.225]' for "
            "most ImageNet weights, and choose weights other than none"
        )
    return Trunk(backbone, len(task.class_names), task.classifier, engine, backbone.source)
