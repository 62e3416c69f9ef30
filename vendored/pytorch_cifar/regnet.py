"""RegNet: Radosavovic et al., "Designing Network Design Spaces" (arXiv 2003.13678).

As in kuangliu/pytorch-cifar @ 49b7aa9 the stem is 3x3 with 64 channels and stride 1, the four
stages have strides 1, 1, 2 and 2, and ``RegNetY_400MF`` has the widths of ``RegNetX_400MF``.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from vendored.pytorch_cifar.blocks import Bottleneck, convolution, residual_stages
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = ["RegNet", "RegNetX_200MF", "RegNetX_400MF", "RegNetY_400MF"]


class RegNet(StagedNetwork):
    """Four stages of grouped bottlenecks without expansion; their outputs are the features.

    Args:
        num_blocks: Number of blocks in each of the four stages.
        widths: Channels of each stage.
        group_width: Channels of each group of a 3x3 convolution.
        excited: Add squeeze and excitation to the blocks, as in RegNetY. It has a quarter of the
            channels of a block's input.
        num_classes: Number of class scores.
    """

    def __init__(
        self,
        num_blocks: Sequence[int],
        widths: Sequence[int],
        *,
        group_width: int,
        excited: bool = False,
        num_classes: int = 10,
    ) -> None:
        def block(in_channels: int, width: int, stride: int) -> nn.Module:
            return Bottleneck(
                in_channels,
                width,
                stride,
                expansion=1,
                groups=width // group_width,
                squeezed=round(in_channels / 4) if excited else None,
            )

        stem = convolution(3, 64, 3)
        stages = residual_stages(block, 64, widths, num_blocks, (1, 1, 2, 2))
        super().__init__(stem, stages, num_classes=num_classes)


def RegNetX_200MF(num_classes: int = 10) -> RegNet:
    """2.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    widths = (24, 56, 152, 368)
    return RegNet((1, 1, 4, 7), widths, group_width=8, num_classes=num_classes)


def RegNetX_400MF(num_classes: int = 10) -> RegNet:
    """4.8 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    widths = (32, 64, 160, 384)
    return RegNet((1, 2, 7, 12), widths, group_width=16, num_classes=num_classes)


def RegNetY_400MF(num_classes: int = 10) -> RegNet:
    """5.7 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    widths = (32, 64, 160, 384)
    return RegNet((1, 2, 7, 12), widths, group_width=16, excited=True, num_classes=num_classes)
