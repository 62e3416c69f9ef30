"""DPN: Chen et al., "Dual Path Networks" (arXiv 1707.01629).

Some channels are summed as in a residual network, the others concatenated as in a dense one.
Compatible with kuangliu/pytorch-cifar @ 49b7aa9.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.pytorch_cifar.blocks import convolution, projection
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = ["DPN", "DPN26", "DPN92"]

NUM_GROUPS = 32
WIDTHS = (96, 192, 384, 768)
RESIDUAL_CHANNELS = (256, 512, 1024, 2048)
DENSE_CHANNELS = (16, 32, 24, 128)
STRIDES = (1, 2, 2, 2)


class DualPathBlock(nn.Module):
    """Convolutions 1x1, grouped 3x3 and 1x1, with ReLU after both paths are joined.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolution.
        residual_channels: Number of channels, the first ones, that are summed.
        dense_channels: Number of channels that are concatenated to those of the shortcut.
        stride: Stride of the 3x3 convolution.
        projecting: Use a 1x1 convolution as shortcut, as in the first block of a stage. It adds
            ``dense_channels`` to the summed ones.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        residual_channels: int,
        dense_channels: int,
        stride: int,
        projecting: bool,
    ) -> None:
        super().__init__()
        out_channels = residual_channels + dense_channels
        self.residual_channels = residual_channels
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride, groups=NUM_GROUPS)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = (
            projection(in_channels, out_channels, stride) if projecting else nn.Sequential()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the sum, the shortcut's dense channels and the new ones."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        x = self.shortcut(x)
        split = self.residual_channels
        return relu(torch.cat([x[:, :split] + y[:, :split], x[:, split:], y[:, split:]], 1))


class DPN(StagedNetwork):
    """Four stages of dual-path blocks; their outputs are the features.

    Args:
        num_blocks: Number of blocks in each of the four stages.
        num_classes: Number of class scores.
    """

    def __init__(self, num_blocks: Sequence[int], *, num_classes: int = 10) -> None:
        stem = convolution(3, 64, 3)
        stages: list[tuple[nn.Module, int]] = []
        channels = 64
        plan = zip(num_blocks, WIDTHS, RESIDUAL_CHANNELS, DENSE_CHANNELS, STRIDES, strict=True)
        for count, width, residual, dense, stride in plan:
            blocks = []
            for number in range(count):
                block = DualPathBlock(
                    channels,
                    width,
                    residual_channels=residual,
                    dense_channels=dense,
                    stride=1 if number else stride,
                    projecting=not number,
                )
                blocks.append(block)
                channels = residual + (number + 2) * dense
            stages.append((nn.Sequential(*blocks), channels))
        super().__init__(stem, stages, num_classes=num_classes)


def DPN26(num_classes: int = 10) -> DPN:
    """26 layers, 11.6 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DPN((2, 2, 2, 2), num_classes=num_classes)


def DPN92(num_classes: int = 10) -> DPN:
    """92 layers, 34.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DPN((3, 4, 20, 3), num_classes=num_classes)
