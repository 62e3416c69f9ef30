"""The port between detection and its networks.

A `Detector` says how the outputs of one kind of network are trained and read. Single-shot detectors
of `vendored.ssd_pytorch` and networks of torchvision have one; a network of another kind brings its
own, as the result of its method `detector()`.

Boxes are corners (x_min, y_min, x_max, y_max) as fractions of the image. Classes are counted
without background in targets and detections; class probabilities have background first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.data.detection_augmentation import PIXEL_MEAN
from experiments.settings.input_format import Channels, InputFormat
from vendored.ssd_pytorch import MultiBoxDetector, MultiBoxLoss, Outputs, decode


class DetectionLosses(NamedTuple):
    """The losses of a batch."""

    objective: Tensor
    """(), the scalar that training minimizes."""
    means: Tensor
    """(b,), the loss of each image, per object that the network was to find."""
    sums: Tensor
    """(b,), the same, summed over these objects."""


class Detector(Protocol):
    """How networks of one kind are trained and read; it keeps no weights.

    Attributes:
        image_size: Side of the square images, pixels.
        mean: Subtracted from the channels of an image, RGB in 0..255.
        std: By which they are divided then.
        outputs_form: The form of the outputs for two images in words, for messages.
    """

    image_size: int
    mean: Channels
    std: Channels
    outputs_form: str

    def fits(self, outputs: Any) -> bool:
        """Return whether outputs for two images have the form that the other methods need."""
        ...

    def losses(self, outputs: Any, targets: Sequence[Tensor]) -> DetectionLosses:
        """Return the losses of a batch.

        Args:
            outputs: The network's, in training or in evaluation mode.
            targets: For each image (n, 5): corners and class; (0, 5) without objects.
        """
        ...

    def detections(self, outputs: Any) -> list[Tensor]:
        """Return the detections of each image, thinned out by non-maximum suppression.

        Returns:
            Tensors (m, 6) without gradient: corners, which may lie outside of the image, score in
            0..1, and class; best first within each class.
        """
        ...

    def candidates(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Return all boxes, from which `detections` chooses, for use outside of this project.

        Returns:
            Corners (b, positions, 4), and scores (b, positions, k) in 0..1, background first.

        Raises:
            ActiveLearningError: Which boxes there are depends on the image.
        """
        ...

    def log_probs(self, outputs: Any) -> Tensor:
        """Return log-probabilities (b, k, positions) of classes, background first, float32."""
        ...

    def embedding(self, network: nn.Module) -> Tensor:
        """Return the embedding (b, d) of the latest forward."""
        ...

    def class_layers(self, network: nn.Module) -> list[nn.Module]:
        """Return the layers that put out class scores, whose input Monte-Carlo dropout drops."""
        ...

    def scored(self, network: nn.Module, scores: Sequence[Tensor]) -> Tensor:
        """Return what `log_probs` would for other outputs of the class layers.

        Args:
            network: The others are those of its latest forward.
            scores: An output for each call of each layer of `class_layers`, in their order.
        """
        ...

    def head(self, network: nn.Module) -> list[nn.Module]:
        """Return the network's own layers for detection; all else is the backbone."""
        ...


@runtime_checkable
class BringsDetector(Protocol):
    """A network with a `Detector` of its own."""

    def detector(self, expected: InputFormat) -> Detector:
        """Return how this kind of network is trained and read.

        Args:
            expected: The images that the configuration gives it, as far as that says.
        """
        ...


def detector_of(network: nn.Module, expected: InputFormat) -> Detector:
    """Return how a network is trained and read.

    Args:
        network: A detection network with its classes and background.
        expected: The images that the configuration gives it, as far as that says.

    Raises:
        InvalidSetting: It is no detection network, or not one for these images.
    """
    if isinstance(network, MultiBoxDetector):
        return MultiBox(network, expected)
    if isinstance(network, BringsDetector):
        return network.detector(expected)
    raise InvalidSetting(f"the backbone must be a detector, got {type(network).__name__}")


class MultiBox:
    """The detector of `MultiBoxDetector` networks: SSD300 and its relatives.

    Args:
        network: One of them, of which no weights are kept.
        expected: The images that it takes; by default as published for SSD, RGB in 0..255 minus
            (123, 117, 104).
    """

    std: Channels

    def __init__(self, network: MultiBoxDetector, expected: InputFormat) -> None:
        config = network.config
        self.image_size = config.image_size
        if expected.image_size not in (None, self.image_size):
            raise InvalidSetting(
                f"backbone.image_size={expected.image_size}: this network is built for images of "
                f"{self.image_size} pixels"
            )
        self.mean, self.std = pixel_normalization(expected) or (PIXEL_MEAN, (1.0, 1.0, 1.0))
        self.num_classes = network.num_classes
        self.loss = MultiBoxLoss(network.num_classes, variances=config.variance)
        self.detect = network.detect
        num = config.num_priors
        self._shapes = [(2, num, 4), (2, num, self.num_classes), (num, 4)]
        self.outputs_form = "offsets {}, logits {} and priors {}".format(*self._shapes)

    def fits(self, outputs: Any) -> bool:
        """Return whether these are offsets, logits and priors of two images."""
        shapes = [getattr(each, "shape", None) for each in outputs]
        return isinstance(outputs, tuple) and shapes == self._shapes

    def losses(self, outputs: Outputs, targets: Sequence[Tensor]) -> DetectionLosses:
        """Return the multi-box losses; the objective is per matched box of the batch.

        An image without objects has a loss of 0: negatives are mined for positives.
        """
        found = self.loss.per_image(outputs, targets)
        sums = found.localization + found.confidence
        counts = found.num_positives
        return DetectionLosses(
            sums.sum() / counts.sum().clamp(min=1), sums / counts.clamp(min=1), sums
        )

    def detections(self, outputs: Outputs) -> list[Tensor]:
        """Return the detections of `vendored.ssd_pytorch.Detect`."""
        offsets, logits, priors = outputs
        detected: Tensor = self.detect(offsets, logits.float().softmax(-1), priors)
        return [_listed(image[1:]) for image in detected]

    def candidates(self, outputs: Outputs) -> tuple[Tensor, Tensor]:
        """Return the boxes and probabilities of all priors."""
        offsets, logits, priors = outputs
        return decode(offsets, priors, self.detect.variance), logits.softmax(-1)

    def log_probs(self, outputs: Outputs) -> Tensor:
        """Return log-probabilities (b, k, priors)."""
        return outputs[1].float().log_softmax(-1).transpose(1, 2)

    def embedding(self, network: nn.Module) -> Tensor:
        """Return the average over one of the maps that feed the heads."""
        assert isinstance(network, MultiBoxDetector)
        return network.get_embedding()

    def class_layers(self, network: nn.Module) -> list[nn.Module]:
        """Return the convolutions for classes, one a map."""
        assert isinstance(network, MultiBoxDetector)
        return list(network.conf)

    def scored(self, network: nn.Module, scores: Sequence[Tensor]) -> Tensor:
        """Return log-probabilities (b, k, priors)."""
        rows = torch.cat([each.permute(0, 2, 3, 1).flatten(1) for each in scores], 1).float()
        logits = rows.reshape(len(rows), -1, self.num_classes)
        return logits.log_softmax(-1).transpose(1, 2)

    def head(self, network: nn.Module) -> list[nn.Module]:
        """Return what the network says, and else the convolutions for offsets and classes."""
        assert isinstance(network, MultiBoxDetector)
        own = getattr(network, "detection_layers", None)
        return [*network.loc, *network.conf] if own is None else list(own())


def pixel_normalization(expected: InputFormat) -> tuple[Channels, Channels] | None:
    """Return mean and deviation in 0..255, or None where they are not known."""
    if expected.normalization is None:
        return None
    (r, g, b), (r_std, g_std, b_std) = expected.normalization
    return (255 * r, 255 * g, 255 * b), (255 * r_std, 255 * g_std, 255 * b_std)


def _listed(detected: Tensor) -> Tensor:
    """Turn (k, top, 5) rows of score and corners, padded with zeros, into (m, 6)."""
    label, row = (detected[..., 0] > 0).nonzero(as_tuple=True)
    best = detected[label, row]
    return torch.cat([best[:, 1:], best[:, :1], label[:, None].to(best.dtype)], 1)
