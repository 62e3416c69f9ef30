"""Semantic segmentation: pixel-wise cross-entropy, mean IoU.

Source: the recipe of fyu/drn @ d75db2e; learning loss and Monte-Carlo dropout on it as in
superannotateai/active_learning @ aa2b9ae. Training sees random crops; evaluation and scoring see
whole images at their own size. Any network of `experiments.models.segmenter` serves.
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
from experiments.data.targets import HiddenTargets, OpenTargets, Targets
from experiments.drawing.panel import Panel
from experiments.drawing.views import mask_view
from experiments.metrics.segmentation import SegmentationMetrics
from experiments.models.dropout import LayerDropout
from experiments.models.normalizing import Normalization
from experiments.models.segmenter import Segmented, Segmenter, is_segmented
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.checks import check_number, check_whole_number

log = logging.getLogger(__name__)

AUXILIARY_WEIGHT = 0.5
"""Weight of the loss of an auxiliary head, that of torchvision's references."""

BATCH_PIXELS = 2**20
"""Pixels in a batch of inference if its size is not set: enough for a GPU, and small in memory."""


class Segmentation:
    """Semantic segmentation: one class per pixel.

    Args:
        data: Images and masks.
        backbone: Called with `num_classes`, returns a network as `experiments.models.segmenter`
            describes it.
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
            posterior samples are compared on one network. It is where the network says, as DRN
            does, or else before the layers that compute class scores.
        dropout_rate: Share of the elements that are dropped.
        mc_dropout_passes: Posterior samples of a prediction: passes with dropout; 0 for none. With
            any, the network is trained with dropout.
        eval_batch_size: Images in a batch of inference; null for about a megapixel. It is 1 if the
            images differ in size.

    Attributes:
        segmenter: Where the network computes its class scores, and what else is found in it.

    Raises:
        InvalidSetting: A value is out of range, the weights of the backbone are missing, it does
            not take the crops, or there is no place in it for dropout.
    """

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
        dropout_rate: float = 0.5,
        mc_dropout_passes: int = 0,
        eval_batch_size: int | None = None,
    ) -> None:
        check_whole_number("task.build.crop_size", crop_size, low=16, high=8192)
        check_number("task.build.image_scale", image_scale, low=0.01, high=16)
        check_number("task.build.max_scale", max_scale, low=1)
        check_whole_number("task.build.max_rotation", max_rotation, low=0, high=180)
        self.dropout = LayerDropout(dropout=dropout, rate=dropout_rate, passes=mc_dropout_passes)
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
        self._normalize = Normalization(backbone, data.mean, data.std)
        self._crop_size = crop_size
        self._augment = partial(
            augment,
            crop_size=crop_size,
            flip=data.flip,
            max_scale=max_scale,
            max_rotation=max_rotation,
        )
        self._reduction = reduction
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
        self.segmenter = self._tried_network()
        self.has_embedding = self.segmenter.has_embedding

    def build_model(self) -> nn.Module:
        """Return a fresh network for the classes."""
        model = self._backbone(num_classes=len(self.class_names))
        self.segmenter.install(model, self.dropout)
        return model

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers that are not of the backbone; none if they are not known."""
        return self.segmenter.head(model)

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
        """Scale to 0..1, subtract the mean, divide by the standard deviation, per channel.

        They are those that the network's weights expect, or else the data's.
        """
        return self._normalize(images)

    def losses(self, outputs: Segmented, targets: Tensor) -> Tensor:
        """Return the cross-entropy of each image, reduced as `reduction` says.

        An image without a labeled pixel has a loss of 0. An auxiliary head does not count.
        """
        return self._reduced(outputs.log_probs, targets)[1]

    def objective(self, outputs: Segmented, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scalar to minimize and the loss of each image, both as `reduction` says.

        The scalar contains half the loss of an auxiliary head, if there is one.
        """
        scalar, losses = self._reduced(outputs.log_probs, targets)
        if outputs.auxiliary is not None:
            scalar = scalar + AUXILIARY_WEIGHT * self._reduced(outputs.auxiliary, targets)[0]
        return scalar, losses

    def _reduced(self, log_probs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        pixels = F.nll_loss(
            log_probs.float(), targets.long(), ignore_index=IGNORED, reduction="none"
        )
        if self._reduction == "all_pixels":
            losses = pixels.mean((1, 2))
            return losses.mean(), losses
        sums, counts = pixels.sum((1, 2)), (targets != IGNORED).sum((1, 2))
        return sums.sum() / counts.sum().clamp(min=1), sums / counts.clamp(min=1)

    def predict(self, outputs: Segmented, model: nn.Module) -> Prediction:
        """Return log-probabilities (b, k, h, w) and a pooled map (b, d) as embedding."""
        return self.segmenter.prediction(outputs, model)

    @staticmethod
    def log_probs(outputs: Segmented) -> Tensor:
        """Return log-probabilities (b, k, h, w)."""
        return outputs.log_probs.float()

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` passes with dropout, (b, m, k, h, w), or None for none."""
        return self.segmenter.resampled(model, inputs, self.dropout, self.log_probs)

    def metrics(self) -> SegmentationMetrics:
        """Return fresh counts."""
        return SegmentationMetrics(self.class_names)

    def data_facts(self) -> dict[str, Any]:
        """Return the mean and deviation of the channels, and the colors of the classes."""
        return {**self._normalize.facts(), "palette": self._palette.tolist()}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize the image by `image_scale`; the network takes any size."""
        if self._image_scale == 1:
            return image
        height, width = image.shape[:2]
        return resize_image(image, scaled_size(height, width, self._image_scale))

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return `eval_batch_size`, or the number of images in about a megapixel."""
        pixels = height * width * max(1, self.dropout.passes)
        return self._wanted_batch_size or max(1, BATCH_PIXELS // pixels)

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return four tiles an image: itself, the uncertainty, the prediction, the annotation."""
        return self._panels(self.train, indices, prediction, targets)

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Return four tiles an image of the test set, likewise."""
        masks = OpenTargets(lambda chosen: [partial(self._test_masks.mask, int(k)) for k in chosen])
        return self._panels(self.test, indices, prediction, masks)

    def _panels(
        self, samples: WholeSamples, indices: IndexArray, prediction: Prediction, targets: Targets
    ) -> list[Panel]:
        images = samples.images(indices).permute(0, 2, 3, 1).contiguous().numpy()
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

    def _tried_network(self) -> Segmenter:
        """Try a network on crops, and on the images of the test set if they have one size."""
        num_classes, name = len(self.class_names), backbone_name(self._backbone)
        build = partial(self._backbone, num_classes=num_classes)
        crop, whole = (self._crop_size,) * 2, self.test.common_size()
        sizes = [crop] if whole is None or min(whole) < self._crop_size else [crop, whole]
        with torch.random.fork_rng(devices=[]):
            for size in sizes:
                network = built(build, name=name, num_classes=num_classes)
                try_network(
                    network, build, size, name=name,
                    fits=partial(is_segmented, num_classes=num_classes, size=size),
                    wanted=f"class scores (2, {num_classes}, h, w)",
                )  # fmt: skip
            segmenter = Segmenter.of(network, self._backbone, crop, num_classes=num_classes)
        if self.dropout.in_training and not segmenter.can_drop:
            raise InvalidSetting(
                f"dropout drops from the input of layers that compute class scores, and {name} has "
                "none: leave out task.build.dropout=true and strategies that sample by dropout, or "
                "use an ensemble"
            )
        return segmenter

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
