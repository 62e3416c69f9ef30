"""Semantic segmentation by dilated residual networks: pixel-wise cross-entropy, mean IoU.

Source: the recipe of fyu/drn @ d75db2e; learning loss and Monte-Carlo dropout on it as in
superannotateai/active_learning @ aa2b9ae. Training sees random crops; evaluation and scoring see
whole images at their own size.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from al_core import IndexArray, Prediction
from al_core.errors import InvalidSetting, require_positive
from experiments.data.labels import Label
from experiments.data.pictures import load_all
from experiments.data.resized import resized, scaled_size
from experiments.data.samples import Batch
from experiments.data.segmentation import IGNORED, Mask, SemanticSegmentation, WholeSamples
from experiments.data.segmentation_augmentation import augment, resize_image, resize_mask
from experiments.data.targets import HiddenTargets, Targets
from experiments.drawing.panel import Panel
from experiments.drawing.views import mask_view
from experiments.engine.constant import Constant
from experiments.metrics.segmentation import SegmentationMetrics
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.checks import check_flag, check_number, check_whole_number
from vendored.drn import DRNSeg

log = logging.getLogger(__name__)

Outputs = tuple[Tensor, Tensor]
"""Log-probabilities (b, k, h, w), and the scores at 1/8 of the size they come from."""

BATCH_PIXELS = 2**20
"""Pixels in a batch of inference if its size is not set: enough for a GPU, and small in memory."""


class Segmentation:
    """Semantic segmentation: one class per pixel.

    Args:
        data: Images and masks.
        backbone: Called with `num_classes` and `add_dropout`, returns a `DRNSeg` whose
            log-probabilities are of the size of its images.
        crop_size: Side in pixels of the square crops for training.
        image_scale: Factor by which images and masks are resized before anything else, those of the
            test set included: metrics refer to masks of that size.
        max_scale: Augmentation: sides are multiplied by a number in [1/s, s]; 1 for none.
        max_rotation: Augmentation: degrees to either side; 0 for none.
        reduction: The loss of an image, which the loss-prediction module learns and strategies rank
            by. "labeled_pixels": the mean over the pixels that have a class; the objective is the
            mean over those of the batch, as in fyu/drn. "all_pixels": the mean over all pixels,
            where those without a class count as 0; the objective is the mean of that, as in the
            superannotate fork. There an image with few annotated pixels has a small loss.
        dropout: Give the network dropout for every strategy, so that strategies with and without
            posterior samples are compared on one network.
        mc_dropout_passes: Posterior samples of a prediction: passes with dropout; 0 for none.
        eval_batch_size: Images in a batch of inference; null for about a megapixel. It is 1 if the
            images differ in size.

    Raises:
        InvalidSetting: A value is out of range, or the weights of the backbone are missing.
    """

    has_embedding = True
    metric = "miou"

    def __init__(
        self,
        data: SemanticSegmentation,
        backbone: Callable[..., nn.Module],
        *,
        crop_size: int = 896,
        image_scale: float = 1.0,
        max_scale: float = 1.0,
        max_rotation: int = 0,
        reduction: str = "labeled_pixels",
        dropout: bool = False,
        mc_dropout_passes: int = 0,
        eval_batch_size: int | None = None,
    ) -> None:
        check_whole_number("task.build.crop_size", crop_size, low=16, high=8192)
        check_number("task.build.image_scale", image_scale, low=0.01, high=16)
        check_number("task.build.max_scale", max_scale, low=1)
        check_whole_number("task.build.max_rotation", max_rotation, low=0, high=180)
        check_flag("task.build.dropout", dropout)
        check_whole_number("task.build.mc_dropout_passes", mc_dropout_passes, low=0, high=1000)
        if reduction not in ("labeled_pixels", "all_pixels"):
            raise InvalidSetting(
                f"loss.reduction must be labeled_pixels or all_pixels, got {reduction!r}"
            )
        self._pool_pictures, self._image_scale = data.train, image_scale
        self.size_on_disk = data.train.size
        """Returns (height, width) of a training image before `image_scale`."""
        if image_scale != 1:
            data = resized(data, image_scale)
        self.class_names: Sequence[str] = data.class_names
        self._backbone = backbone
        self._palette = np.array(data.palette, np.uint8)
        self._mean = Constant(torch.tensor(data.mean).view(1, 3, 1, 1))
        self._std = Constant(torch.tensor(data.std).view(1, 3, 1, 1))
        self._crop_size = crop_size
        self._augment = partial(
            augment,
            crop_size=crop_size,
            flip=data.flip,
            max_scale=max_scale,
            max_rotation=max_rotation,
        )
        self._reduction = reduction
        self._passes = mc_dropout_passes
        self._has_dropout = dropout or mc_dropout_passes > 0
        self.train, self.test = WholeSamples(data.train), WholeSamples(data.test)
        self._test_masks = data.test_masks
        # The targets are functions that read masks, so that those of a batch are read in parallel.
        self.targets = HiddenTargets(
            len(data.train),
            lambda indices: [partial(data.train_masks.mask, index) for index in indices.tolist()],
            data.train.names,
        )
        if eval_batch_size is not None:
            require_positive("task.build.eval_batch_size", eval_batch_size)
        self._wanted_batch_size = eval_batch_size
        self.eval_batch_size = self._batch_size()
        self._try_network()

    def build_model(self) -> DRNSeg:
        """Return a fresh network for the classes.

        Raises:
            InvalidSetting: The backbone is no `DRNSeg`, or its weights are missing.
        """
        model = self._backbone(num_classes=len(self.class_names), add_dropout=self._has_dropout)
        if not isinstance(model, DRNSeg):
            raise InvalidSetting(f"the backbone must be a DRNSeg, got {type(model).__name__}")
        return model

    def example(self) -> Tensor:
        """Return two black crops, normalized."""
        return self.normalize(torch.zeros(2, 3, *(self._crop_size,) * 2, dtype=torch.uint8))

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load labeled crops, augmented one by one, with their classes, uint8 (b, side, side).

        The augmentation of a sample depends only on `seed` and its index.
        """
        readers: list[Callable[[], Mask]] = targets.read(indices)
        side = self._crop_size
        images = np.empty((indices.size, side, side, 3), np.uint8)
        masks = np.empty((indices.size, side, side), np.uint8)

        def load(row: int) -> None:
            index = int(indices[row])
            images[row], masks[row] = self._augment(
                self.train.pictures.picture(index),
                readers[row](),
                rng=np.random.default_rng((seed, index)),
            )

        load_all(indices.size, load, in_memory=self.train.in_memory)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(masks))

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load whole images only."""
        return self.train.images(indices)

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Count the pixels for training: those that are labeled and have a class."""
        readers: list[Callable[[], Mask]] = targets.read(indices)
        counts = np.zeros(indices.size, np.int64)

        def count(row: int) -> None:
            counts[row] = np.count_nonzero(readers[row]() != IGNORED)

        load_all(indices.size, count, in_memory=self.train.in_memory)
        return {"pixels": int(counts.sum())}

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load whole test images with their classes, uint8 (b, h, w)."""
        masks: list[Mask] = [np.empty((0, 0), np.uint8)] * indices.size

        def load(row: int) -> None:
            masks[row] = self._test_masks.mask(int(indices[row]))

        load_all(indices.size, load, in_memory=self.test.in_memory)
        return Batch(self.test.images(indices), torch.from_numpy(np.stack(masks)))

    def augment(
        self, images: Tensor, targets: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Return the batch unchanged: `training_batch` augments each sample."""
        return images, targets

    def normalize(self, images: Tensor) -> Tensor:
        """Scale to 0..1, subtract the mean, divide by the standard deviation, per channel."""
        mean, std = self._mean.beside(images), self._std.beside(images)
        return (images - 255 * mean).div_(255 * std)

    def losses(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each image, reduced as `reduction` says.

        An image without a labeled pixel has a loss of 0.
        """
        return self.objective(outputs, targets)[1]

    def objective(self, outputs: Outputs, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scalar to minimize and the loss of each image, both as `reduction` says."""
        pixels = F.nll_loss(
            outputs[0].float(), targets.long(), ignore_index=IGNORED, reduction="none"
        )
        if self._reduction == "all_pixels":
            losses = pixels.mean((1, 2))
            return losses.mean(), losses
        sums, counts = pixels.sum((1, 2)), (targets != IGNORED).sum((1, 2))
        return sums.sum() / counts.sum().clamp(min=1), sums / counts.clamp(min=1)

    def predict(self, outputs: Outputs, model: nn.Module) -> Prediction:
        """Return log-probabilities (b, k, h, w) and the pooled last map (b, d) as embedding."""
        assert isinstance(model, DRNSeg)
        return Prediction(self.log_probs(outputs), embedding=model.get_embedding().float())

    @staticmethod
    def log_probs(outputs: Outputs) -> Tensor:
        """Return log-probabilities (b, k, h, w)."""
        return outputs[0].float()

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` passes with dropout, (b, m, k, h, w), or None for none."""
        if not self._passes:
            return None
        assert isinstance(model, DRNSeg)
        samples = inputs.new_empty(0)
        recording, model.record_features = model.record_features, False
        try:
            with model.dropout_sampling(True):
                for number in range(self._passes):
                    one = model(inputs)[0]
                    if not number:  # in place from then on: a list and its stack are twice as much
                        b, *rest = one.shape
                        samples = inputs.new_empty((b, self._passes, *rest))
                    samples[:, number] = one
        finally:
            model.record_features = recording
        return samples

    def metrics(self) -> SegmentationMetrics:
        """Return fresh counts."""
        return SegmentationMetrics(self.class_names)

    def data_facts(self) -> dict[str, Any]:
        """Return the mean and deviation of the channels, and the colors of the classes."""
        mean, std = self._mean.value.flatten().tolist(), self._std.value.flatten().tolist()
        return {"mean": mean, "std": std, "palette": self._palette.tolist()}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the image by `image_scale`; the network takes any size."""
        if self._image_scale == 1:
            return image
        height, width = image.shape[:2]
        return resize_image(image, scaled_size(height, width, self._image_scale))

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return `eval_batch_size`, or the number of images in about a megapixel."""
        pixels = height * width * max(1, self._passes)
        return self._wanted_batch_size or max(1, BATCH_PIXELS // pixels)

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return four tiles an image: itself, the uncertainty, the prediction, the annotation."""
        images = self.train.images(indices).permute(0, 2, 3, 1).contiguous().numpy()
        predicted = prediction.log_probs.argmax(1).byte().cpu().numpy()
        entropy = torch.special.entr(prediction.log_probs.exp()).sum(1).cpu().numpy()
        colors = [(red, green, blue) for red, green, blue in self._palette.tolist()]
        return [
            mask_view(
                image,
                mask,
                self.class_names,
                colors,
                entropy=uncertainty,
                truth=_truth(index, targets),
            )
            for image, mask, uncertainty, index in zip(
                images, predicted, entropy, indices.tolist(), strict=True
            )
        ]

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return the sizes of the files, before `image_scale`."""
        return [self._pool_pictures.size(index) for index in indices.tolist()]

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return the most probable class of each pixel, at the size of the file."""
        predicted = prediction.log_probs.argmax(1).byte().cpu().numpy()
        return [
            Label(mask=mask if mask.shape == size else resize_mask(mask, size))
            for mask, size in zip(predicted, sizes, strict=True)
        ]

    def _try_network(self) -> None:
        """Build a network once and try it on crops; it is convolutional, so any size works then."""
        num_classes, size = len(self.class_names), (self._crop_size,) * 2
        name = backbone_name(self._backbone)
        with torch.random.fork_rng(devices=[]):
            try_network(
                built(self.build_model, name=name, num_classes=num_classes),
                self.build_model,
                size,
                name=name,
                fits=lambda outputs: (
                    isinstance(outputs, tuple)
                    and getattr(outputs[0], "shape", None) == (2, num_classes, *size)
                ),
                wanted=f"log-probabilities {(2, num_classes, *size)} first",
            )

    def _batch_size(self) -> int:
        wanted = self._wanted_batch_size
        train, test = self.train.common_size(), self.test.common_size()
        if train is None or test is None:
            if wanted is not None and wanted > 1:
                log.info("the images differ in size: a batch of inference is one image")
            return 1
        return self.inference_batch_size(*max(train, test, key=lambda size: size[0] * size[1]))


def _truth(index: int, targets: Targets) -> Mask | None:
    """Return the annotated mask of an image, 255 for no class; None for no annotation."""
    if not targets.is_revealed(index):
        return None
    read: Callable[[], Mask] = targets.read(np.array([index]))[0]
    return read()
