"""Pose: the joints of one figure an image, by heatmaps; mean squared error, PCK, OKS.

Source: heatmap regression as in Newell et al., ECCV 2016 (arXiv 1603.06937); learning loss on it:
Yoo & Kweon, CVPR 2019, section 4.3. Any network of `experiments.models.heatmaps` serves. It sees
the whole image within a square.

Targets are float32 (b, j, 3) for training: x and y of each joint as fractions of the square, and 1
where it is annotated, else 0. Those for evaluation have one more row: size of the head, longer side
of the figure's box, and area, as fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from al_core import IndexArray, Prediction
from al_core.errors import InvalidSetting, require_positive
from experiments.data.labels import MISSING, VISIBLE, Keypoint, Label
from experiments.data.pictures import load_all
from experiments.data.pose import (
    UNIFORM_SIGMA,
    Figure,
    FramedSamples,
    PoseEstimation,
    framed,
    from_frame,
    mirrored_joints,
    to_frame,
)
from experiments.data.pose_augmentation import augment
from experiments.data.samples import Batch
from experiments.data.targets import HiddenTargets, OpenTargets, Targets
from experiments.drawing.panel import Panel
from experiments.drawing.views import figure_view
from experiments.metrics.pose import HEAD_FRACTION, PoseMetrics
from experiments.models.dropout import LayerDropout
from experiments.models.heatmaps import (
    Heatmaps,
    PoseNetwork,
    PosePrediction,
    gaussians,
    is_heatmaps,
    located,
    place_log_probs,
)
from experiments.models.normalizing import Normalization
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.checks import check_number
from experiments.settings.input_format import format_of

IMAGE_SIZE = 256
"""Side of the images in pixels where the network does not say: that of the hourglasses."""
DRAWN_SCORE = 0.2
"""Joints whose peak is lower are neither drawn nor handed out as drafts."""


class Pose:
    """The joints of one figure an image.

    Args:
        data: Images and figures.
        backbone: Called with `num_classes`, the number of joints; returns a network of heatmaps.
        sigma: Standard deviation of the bell around a joint, in cells of the heatmap.
        max_rotation: Augmentation: degrees to either side.
        max_scale: Augmentation: images are magnified by a random factor in [1/s, s]; 1 for none.
        color_jitter: Augmentation: largest relative change of the brightness of each channel.
        pck_fraction: PCK: distance to a joint that is right, as a fraction of the longer side of
            the box around the annotated joints.
        eval_batch_size: Images in a batch of inference.
        dropout: Drop from the input of the layers that compute heatmaps in training for every
            strategy, so that strategies with and without posterior samples are compared on one
            network.
        dropout_rate: The share of that input that is dropped.
        mc_dropout_passes: Posterior samples of a prediction: passes with dropout; 0 for none. With
            any, the network is trained with dropout.

    Attributes:
        network: Where the network computes its heatmaps, and what else is found in it.

    Raises:
        InvalidSetting: A value is out of range, or the backbone cannot be built, does not take the
            images, or has no place for dropout.
    """

    metric = "pck"

    def __init__(
        self,
        data: PoseEstimation,
        backbone: Callable[..., nn.Module],
        *,
        sigma: float = 1.0,
        max_rotation: float = 30.0,
        max_scale: float = 1.25,
        color_jitter: float = 0.2,
        pck_fraction: float = 0.1,
        eval_batch_size: int = 32,
        dropout: bool = False,
        dropout_rate: float = 0.2,
        mc_dropout_passes: int = 0,
    ) -> None:
        check_number("task.build.sigma", sigma, low=0.25, high=16)
        check_number("task.build.max_rotation", max_rotation, low=0, high=180)
        check_number("task.build.max_scale", max_scale, low=1, high=4)
        check_number("task.build.color_jitter", color_jitter, low=0, high=1)
        check_number("task.build.pck_fraction", pck_fraction, low=0.001, high=1)
        require_positive("task.build.eval_batch_size", eval_batch_size)
        self.dropout = LayerDropout(dropout=dropout, rate=dropout_rate, passes=mc_dropout_passes)
        self.class_names: Sequence[str] = data.class_names
        self.eval_batch_size = eval_batch_size
        self._backbone, self._sigma, self._fraction = backbone, sigma, pck_fraction
        self._skeleton = data.skeleton
        self._sigmas = data.sigmas or (UNIFORM_SIGMA,) * len(data.class_names)
        self._normalize = Normalization(backbone, data.mean, data.std)
        self._size = format_of(backbone).image_size or IMAGE_SIZE
        self._augment = partial(
            augment,
            mirrored=mirrored_joints(data.class_names) if data.flip else None,
            max_rotation=max_rotation,
            max_scale=max_scale,
            color_jitter=color_jitter,
        )
        self.train = FramedSamples(data.train, self._size)
        self.test = FramedSamples(data.test, self._size)
        self._test_figures = data.test_figures
        self._has_heads = any(math.isfinite(each.head) for each in data.test_figures)
        self.targets: Targets = HiddenTargets(
            len(data.train),
            lambda indices: [data.train_figures[index] for index in indices],
            data.train.names,
        )
        self.network = self._tried_network()
        self.has_embedding = self.network.has_embedding

    def build_model(self) -> nn.Module:
        """Return a fresh network for the joints."""
        model = self._backbone(num_classes=len(self.class_names))
        self.network.install(model, self.dropout)
        return model

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers that are not of the backbone; none if they are not known."""
        return self.network.head(model)

    def example(self) -> Tensor:
        """Return two black images, normalized."""
        return self.normalize(torch.zeros(2, 3, self._size, self._size, dtype=torch.uint8))

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load labeled images, augmented one by one, with their joints (b, j, 3).

        The augmentation of a sample depends only on `seed` and its index.
        """
        figures: list[Figure] = targets.read(indices)
        size = self._size
        images = np.empty((indices.size, size, size, 3), np.uint8)
        joints = np.empty((indices.size, len(self.class_names), 3), np.float32)

        def load(row: int) -> None:
            index, figure = int(indices[row]), figures[row]
            image = self.train.pictures.picture(index)
            points, visibility = to_frame(figure.points, image.shape[:2], size), figure.visibility
            images[row], points, visibility = self._augment(
                framed(image, size), points, visibility, rng=np.random.default_rng((seed, index))
            )
            joints[row] = np.column_stack([points, visibility != MISSING])

        load_all(indices.size, load, in_memory=self.train.in_memory)
        return Batch(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(joints))

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load images only."""
        return self.train.images(indices)

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Count the annotated joints."""
        figures: list[Figure] = targets.read(indices)
        return {"joints": sum(int((each.visibility != MISSING).sum()) for each in figures)}

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load test images and targets for evaluation, (b, j + 1, 3)."""
        rows = [
            self._evaluated(self._test_figures[index], self.test.pictures.size(index))
            for index in indices.tolist()
        ]
        return Batch(self.test.images(indices), torch.from_numpy(np.stack(rows)))

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

    def losses(self, outputs: Heatmaps, targets: Tensor) -> Tensor:
        """Return the mean squared error of each image's final heatmaps over its annotated joints.

        An image without an annotated joint has a loss of 0.
        """
        return self._errors(outputs.final, targets)

    def objective(self, outputs: Heatmaps, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scalar to minimize and the loss of each image.

        The scalar is the mean of the losses, plus that of the earlier heatmaps of a network that
        corrects them, each with the same weight (Newell et al., section 3.4).
        """
        losses = self._errors(outputs.final, targets)
        scalar = losses.mean()
        for heatmaps in outputs.earlier:
            scalar = scalar + self._errors(heatmaps, targets).mean()
        return scalar, losses

    def _errors(self, heatmaps: Tensor, targets: Tensor) -> Tensor:
        joints = targets[:, : heatmaps.shape[1]]
        wanted = gaussians(joints, heatmaps.shape[2:], self._sigma)
        annotated = (joints[..., 2] > 0).float()
        errors = (heatmaps - wanted).square().mean((2, 3)) * annotated
        return errors.sum(1) / annotated.sum(1).clamp(min=1)

    def predict(self, outputs: Heatmaps, model: nn.Module) -> PosePrediction:
        """Return distributions of the joints over places (b, places, j), and the embedding."""
        return self.network.prediction(outputs, model)

    @staticmethod
    def log_probs(outputs: Heatmaps) -> Tensor:
        """Return log-probabilities (b, places, j)."""
        return place_log_probs(outputs.final)

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` passes with dropout, (b, m, places, j), or None for none."""
        return self.network.resampled(model, inputs, self.dropout, self.log_probs)

    def metrics(self) -> PoseMetrics:
        """Return fresh counts."""
        return PoseMetrics(
            self.class_names,
            lambda outputs: located(outputs.final),
            fraction=self._fraction,
            sigmas=self._sigmas,
            has_heads=self._has_heads,
        )

    def data_facts(self) -> dict[str, Any]:
        """Return mean and deviation of the channels, the way images are resized, the skeleton."""
        bones = [list(bone) for bone in self._skeleton]
        return {**self._normalize.facts(), "resize": "letterbox", "skeleton": bones}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Fit a whole image into the network's square."""
        return framed(image, self._size)

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return `eval_batch_size`."""
        return self.eval_batch_size

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return the images with the joints of `drafts`, and the annotated ones where there are."""
        return self._panels(self.train, indices, prediction, targets)

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Return the images of the test set, likewise."""
        figures = OpenTargets(lambda chosen: [self._test_figures[k] for k in chosen.tolist()])
        return self._panels(self.test, indices, prediction, figures)

    def _panels(
        self, samples: FramedSamples, indices: IndexArray, prediction: Prediction, targets: Targets
    ) -> list[Panel]:
        sizes = [samples.pictures.size(index) for index in indices.tolist()]
        panels = []
        drafts = self.drafts(prediction, sizes)
        for index, draft, size in zip(indices.tolist(), drafts, sizes, strict=True):
            revealed = targets.is_revealed(index)
            figure: Figure | None = targets.read(np.array([index]))[0] if revealed else None
            panels.append(
                figure_view(
                    samples.pictures.picture(index),
                    draft.keypoints or (),
                    self.class_names,
                    self._skeleton,
                    truth=None if figure is None else self._keypoints(figure),
                    tolerance=0.0 if figure is None else self._tolerance(figure, size),
                )
            )
        return panels

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return the sizes of the files."""
        return [self.train.pictures.size(index) for index in indices.tolist()]

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return the joints that would be drawn, in pixels of the original images."""
        assert isinstance(prediction, PosePrediction)
        assert prediction.heatmaps is not None
        return [
            self._draft(joints, size)
            for joints, size in zip(located(prediction.heatmaps).cpu().numpy(), sizes, strict=True)
        ]

    def _draft(self, joints: NDArray[np.float32], size: tuple[int, int]) -> Label:
        height, width = size
        points = from_frame(joints[:, :2], size, self._size)
        points = points.clip(0, np.array([width, height], np.float32))
        keypoints = tuple(
            Keypoint(name, x, y, VISIBLE, min(peak, 1.0))
            for name, (x, y), peak in zip(
                self.class_names, points.tolist(), joints[:, 2].tolist(), strict=True
            )
            if peak >= DRAWN_SCORE
        )
        scores = [each.score or 0.0 for each in keypoints]
        return Label(keypoints=keypoints, score=float(np.mean(scores)) if scores else 0.0)

    def _evaluated(self, figure: Figure, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return the targets for evaluation of an image of (height, width) pixels."""
        scale = 1 / max(size)
        high, wide = figure.box_within(size)
        area = high * wide if math.isnan(figure.area) else figure.area
        joints = np.column_stack(
            [to_frame(figure.points, size, self._size), figure.visibility != MISSING]
        )
        measures = (scale * figure.head, scale * max(high, wide), scale**2 * area)
        return np.vstack([joints, measures]).astype(np.float32)

    def _keypoints(self, figure: Figure) -> list[Keypoint]:
        return [
            Keypoint(name, x, y, visibility)
            for name, (x, y), visibility in zip(
                self.class_names, figure.points.tolist(), figure.visibility.tolist(), strict=True
            )
            if visibility != MISSING
        ]

    def _tolerance(self, figure: Figure, size: tuple[int, int]) -> float:
        """Return up to which distance in pixels a joint is right, by the head if it is known."""
        if math.isfinite(figure.head):
            return HEAD_FRACTION * figure.head
        return self._fraction * max(figure.box_within(size))

    def _tried_network(self) -> PoseNetwork:
        num_joints, name = len(self.class_names), backbone_name(self._backbone)
        build = partial(self._backbone, num_classes=num_joints)
        size = (self._size,) * 2
        with torch.random.fork_rng(devices=[]):
            network = built(build, name=name, num_classes=num_joints)
            try_network(
                network, build, size, name=name,
                fits=partial(is_heatmaps, num_joints=num_joints),
                wanted=f"heatmaps (2, {num_joints}, h, w), or a list of them",
            )  # fmt: skip
            found = PoseNetwork.of(network, self._backbone, size, num_classes=num_joints)
        if self.dropout.in_training and not found.can_drop:
            raise InvalidSetting(
                f"dropout drops from the input of layers that compute heatmaps, and {name} has "
                "none: leave out task.build.dropout=true and strategies that sample by dropout, or "
                "use an ensemble"
            )
        return found
