"""A light decoder on EfficientNet-Lite0, for segmentation and pose on a CPU in minutes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from experiments.models.pretrained import DEFAULT, lite0_format, lite0_trunk
from experiments.models.starting_weights import weights_argument
from experiments.settings.input_format import expects

CHANNELS, GROUPS = 64, 8
"""Channels of every map of the decoder, and groups of its normalization."""
FINEST = 1
"""Index of the trunk's first map that is decoded: stride 4."""


class LightSegmenter(nn.Module):
    """A feature pyramid of depthwise convolutions on maps of a trunk, for scores of any kind.

    Source: lateral 1 x 1 convolutions and a top-down sum as in feature pyramids (Lin et al., CVPR
    2017, arXiv 1612.03144), and the coarsest map gated by the whole image's average as in LR-ASPP
    (Howard et al., ICCV 2019, arXiv 1905.02244, section 6.3). Ours: depthwise separable
    convolutions after each sum, and group normalization (Wu & He, ECCV 2018), so that the
    statistics of small batches of crops decide nothing.

    Args:
        trunk: Returns maps of decreasing resolution, with the channels `tap_channels`.
        num_classes: Classes of a pixel, or joints with a heatmap each.
    """

    def __init__(self, trunk: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = trunk
        channels = cast("Sequence[int]", trunk.tap_channels)[FINEST:]
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, CHANNELS, 1, bias=False), nn.GroupNorm(GROUPS, CHANNELS))
            for c in channels
        )
        self.gate = nn.Conv2d(channels[-1], CHANNELS, 1)
        self.smooth = nn.ModuleList(_separable(CHANNELS) for _ in channels)
        self.classifier = nn.Conv2d(CHANNELS, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return class scores (b, k, h / 4, w / 4), sides rounded up, of images (b, 3, h, w)."""
        maps = self.backbone(images)[FINEST:]
        gate = self.gate(maps[-1].mean((2, 3), keepdim=True)).sigmoid()
        x: Tensor = self.smooth[-1](self.lateral[-1](maps[-1]) * gate)
        for level in range(len(maps) - 2, -1, -1):
            finer = self.lateral[level](maps[level])
            x = F.interpolate(x, size=finer.shape[2:], mode="bilinear", align_corners=False)
            x = self.smooth[level](finer + x)
        scores: Tensor = self.classifier(x)
        return scores


def _separable(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.GroupNorm(GROUPS, channels),
        nn.ReLU(),
    )


@weights_argument("weights")
@expects(lite0_format)
def efficientnet_lite0_segmenter(
    num_classes: int, *, weights: str | None = DEFAULT
) -> LightSegmenter:
    """Return a segmenter of 3.0 million parameters on EfficientNet-Lite0.

    Args:
        num_classes: Classes of a pixel, or joints with a heatmap each.
        weights: Those of the trunk, as for `efficientnet_lite0`.

    Raises:
        InvalidSetting: The weights are not there, or are those of another network.
    """
    return LightSegmenter(lite0_trunk(weights=weights), num_classes)
