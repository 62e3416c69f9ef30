"""The published networks for pose, stacked hourglasses and HRNet, as backbones."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from al_core.errors import InvalidSetting
from experiments.models.starting_weights import SCRATCH, weights_argument
from experiments.settings.checks import check_whole_number
from experiments.settings.input_format import InputFormat, expects
from vendored.hrnet import PoseHRNet
from vendored.stacked_hourglass import StackedHourglass

IMAGE_SIZE = 256
"""Side of the images in pixels, of both papers on MPII."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Channels of the images that the published weights of HRNet were trained on."""


def _hourglass_format(*, num_stacks: int = 2, image_size: int | None = None) -> InputFormat:
    return InputFormat(image_size or IMAGE_SIZE)


@expects(_hourglass_format)
def stacked_hourglass(
    num_classes: int, *, num_stacks: int = 2, image_size: int | None = None
) -> StackedHourglass:
    """Return stacked hourglasses: 6.7 million parameters with 2 of them, 25.6 with 8.

    Args:
        num_classes: Joints.
        num_stacks: Number of hourglasses.
        image_size: Side of the square input, a multiple of 64 pixels; None for 256.

    Raises:
        InvalidSetting: A number is out of range.
    """
    check_whole_number("backbone.pose.num_stacks", num_stacks, low=1, high=16)
    _check_multiple(image_size, 64)
    return StackedHourglass(num_stacks, num_classes)


class EmbeddingHRNet(PoseHRNet):
    """A `PoseHRNet` whose embedding is that of all four resolutions."""

    def get_discriminative_al_features(self) -> Tensor:
        """Return the embedding (b, d) of the latest forward pass."""
        return self.get_embedding()


def _hrnet_format(
    *, width: int = 32, weights: str = SCRATCH, image_size: int | None = None
) -> InputFormat:
    if weights == SCRATCH:
        return InputFormat(image_size or IMAGE_SIZE)
    return InputFormat(image_size or IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD)


@weights_argument("weights")
@expects(_hrnet_format)
def hrnet(
    num_classes: int, *, width: int = 32, weights: str = SCRATCH, image_size: int | None = None
) -> EmbeddingHRNet:
    """Return HRNet: 28.5 million parameters with a width of 32, 63.6 with 48.

    Args:
        num_classes: Joints.
        width: Channels of the branch of the highest resolution.
        weights: "scratch", or the path of a file such as hrnet_w32-36af842e.pth, whose entries
            other than those of the last layer the network starts from.
        image_size: Side of the square input, a multiple of 32 pixels; None for 256.

    Raises:
        InvalidSetting: A number is out of range, or the weights are missing or of another network.
    """
    check_whole_number("backbone.pose.width", width, low=8, high=128)
    _check_multiple(image_size, 32)
    network = EmbeddingHRNet(num_classes, width=width)
    if weights != SCRATCH:
        try:
            network.load_trunk_weights(Path(weights).expanduser())
        except (OSError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InvalidSetting(f"backbone.pose.weights={weights}: {reason}") from None
    return network


def _check_multiple(image_size: int | None, stride: int) -> None:
    if image_size is not None and (not isinstance(image_size, int) or image_size % stride):
        raise InvalidSetting(
            f"backbone.image_size must be a multiple of {stride} pixels, got {image_size!r}"
        )
