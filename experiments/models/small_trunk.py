"""A small residual trunk that learns from scratch on a laptop's CPU."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from experiments.models.light_segmenter import LightSegmenter
from experiments.settings.input_format import InputFormat, expects

WIDTHS = (16, 32, 64, 96, 128)
"""Channels of the maps at strides 2, 4, 8, 16 and 32."""
IMAGE_SIZE = 64
"""Side of the images in pixels; a training step of 16 takes 0.04 seconds of one core."""


class SmallTrunk(nn.Module):
    """Five maps of 2 to 32 pixels a position, 0.5 million parameters; this network is ours.

    A convolution halves the resolution before each map, and a residual one follows from stride 4
    on, all with batch normalization.

    Attributes:
        tap_channels: Channels of the maps.
    """

    tap_channels = WIDTHS

    def __init__(self) -> None:
        super().__init__()
        self.halving = nn.ModuleList(
            _normalized(before, after, stride=2)
            for before, after in zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        )
        self.residual = nn.ModuleList(_normalized(width, width, stride=1) for width in WIDTHS[1:])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps of images (b, 3, h, w), the finest first."""
        x = relu(self.halving[0](images))
        maps = [x]
        for halving, residual in zip(self.halving[1:], self.residual, strict=True):
            x = relu(halving(x))
            x = relu(x + residual(x))
            maps.append(x)
        return maps


def _normalized(before: int, after: int, *, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False), nn.BatchNorm2d(after)
    )


def _format(*, image_size: int | None = None) -> InputFormat:
    return InputFormat(image_size or IMAGE_SIZE)


@expects(_format)
def light_pose(num_classes: int, *, image_size: int | None = None) -> LightSegmenter:
    """Return a network of 0.5 million parameters: the small trunk with the light decoder.

    Args:
        num_classes: Joints, each with a heatmap of a quarter of the image's sides.
        image_size: Side of its square input in pixels; None for 64.
    """
    return LightSegmenter(SmallTrunk(), num_classes)
