"""A single-shot detector small enough to learn from scratch on a laptop's CPU.

This network is ours, not upstream's. It has the heads, the priors and the loss of SSD (Liu et al.,
arXiv 1512.02325) on a narrow trunk with batch norm, for tests, demonstrations and images of a few
large objects. The scales of the priors follow the paper's equation (4).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vendored.ssd_pytorch.config import SSDConfig
from vendored.ssd_pytorch.detector import MultiBoxDetector, Outputs

STEM_WIDTHS = (16, 32)
"""Channels at strides 2 and 4, before the first source map."""

SOURCE_WIDTHS = (64, 96, 128, 128)
"""Channels of the source maps at strides 8, 16, 32 and 64."""

SCALES = (0.15, 0.3, 0.5, 0.75, 1.0)
"""Sides of the square priors as fractions. Each map has two neighboring values."""

MIN_SIZE_PIXELS = 64
"""In smaller images the smallest priors are under ten pixels, close to the first map's cells."""


def light_config(size: int, scales: Sequence[float] = SCALES) -> SSDConfig:
    """Priors for the source maps of `LightSSD` at an image side of `size` pixels.

    Raises:
        ValueError: the scales are not five increasing fractions.
    """
    cells, side = [], size
    for _ in STEM_WIDTHS:
        side = _halved(side)
    for _ in SOURCE_WIDTHS:
        side = _halved(side)
        cells.append(side)
    return SSDConfig.from_scales(size, cells, scales, ((2,), (2, 3), (2, 3), (2,)))


class LightSSD(MultiBoxDetector):
    """A detector with a million parameters and four source maps.

    An image of 128 pixels has 1520 priors.

    Args:
        num_classes: number of classes with background.
        size: side of the images, pixels, at least 64.
        in_channels: channels of the images.
        scales: sides of the square priors as fractions of the image; each map has two neighboring
            values. Objects that are much smaller than the first value are rarely found.

    Raises:
        ValueError: an argument is out of range; the message names it.
    """

    def __init__(
        self,
        num_classes: int,
        size: int = 128,
        *,
        in_channels: int = 3,
        scales: Sequence[float] = SCALES,
    ) -> None:
        if size < MIN_SIZE_PIXELS:
            raise ValueError(f"size must be at least {MIN_SIZE_PIXELS} pixels, got {size}")
        if in_channels < 1:
            raise ValueError(f"in_channels must be positive, got {in_channels}")
        super().__init__(light_config(size, scales), num_classes, embedding_source=2)
        stem = pairwise((in_channels, *STEM_WIDTHS))
        self.stem = nn.Sequential(*(layer for pair in stem for layer in _conv(*pair, stride=2)))
        stages = pairwise((STEM_WIDTHS[-1], *SOURCE_WIDTHS))
        self.stages = nn.ModuleList(_stage(*pair) for pair in stages)
        self._add_heads(SOURCE_WIDTHS)

    def forward(self, images: Tensor) -> Outputs:
        """Compute the predictions for a batch, which `detections` converts to boxes.

        Args:
            images: (b, in_channels, size, size), of about zero mean and unit deviation.

        Returns:
            (b, p, 4) offsets, (b, p, num_classes) logits, (p, 4) priors.

        Raises:
            ValueError: the images have another size.
        """
        self._check_images(images)
        self.forget_features()
        features: list[Tensor] = []
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        self._keep_maps(features)
        return self._predict(features)


def _halved(side: int) -> int:
    """Side of a map after a 3x3 convolution of stride 2 and padding 1."""
    return (side + 1) // 2


def _conv(channels: int, width: int, *, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    ]


def _stage(channels: int, width: int) -> nn.Sequential:
    """Two 3x3 convolutions, the first of which halves the map."""
    return nn.Sequential(*_conv(channels, width, stride=2), *_conv(width, width, stride=1))
