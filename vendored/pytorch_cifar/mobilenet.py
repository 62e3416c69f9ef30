"""MobileNet by Howard et al. (arXiv 1704.04861), MobileNetV2 by Sandler et al. (arXiv 1801.04381).

Both have fewer strides, for small images, as in kuangliu/pytorch-cifar @ 49b7aa9. There, in the
second version, blocks that change the number of channels have a projecting shortcut.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.pytorch_cifar.blocks import convolution, projection
from vendored.pytorch_cifar.stages import ends_of_resolutions, run_keeping
from vendored.taps import TappedClassifier, global_average

__all__ = ["MobileNet", "MobileNetV2"]

V1_BLOCKS = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2),
    (512, 1), (512, 1), (512, 1), (512, 1), (512, 1), (1024, 2), (1024, 1),
)  # fmt: skip
"""Output channels and stride of each block (arXiv 1704.04861, table 1)."""

V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, output channels, blocks, stride (arXiv 1801.04381, table 2, where 24 has stride 2)."""


class SeparableBlock(nn.Module):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the depthwise convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = convolution(in_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        x = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(x)))


class MobileNet(TappedClassifier):
    """Thirteen separable blocks; the features are the last maps of the five resolutions.

    3.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes).

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = convolution(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        blocks, channels = [], 32
        for out_channels, stride in V1_BLOCKS:
            blocks.append(SeparableBlock(channels, out_channels, stride))
            channels = out_channels
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(channels, num_classes)
        self.levels = ends_of_resolutions([stride for _, stride in V1_BLOCKS])
        self.tap_channels = [V1_BLOCKS[level][0] for level in self.levels]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The last map of each resolution, and the average over the last of them."""
        x = relu(self.bn1(self.conv1(images)))
        features, x = run_keeping(self.layers, x, self.levels)
        return features, global_average(x)


class InvertedResidual(nn.Module):
    """Convolutions 1x1, depthwise 3x3 and 1x1; the last has no ReLU and is added to the shortcut.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Channels of the depthwise convolution, as a multiple of the input's.
        stride: Stride of the depthwise convolution; there is a shortcut if it is 1.
    """

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * in_channels
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, 1) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        projected: Tensor = self.bn3(self.conv3(y))
        return projected if self.shortcut is None else projected + self.shortcut(x)


class MobileNetV2(TappedClassifier):
    """Seventeen inverted residuals; the features are the last maps of the four resolutions.

    2.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes).

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = convolution(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        blocks, strides, widths = [], [], [32]
        for expansion, out_channels, count, first_stride in V2_STAGES:
            for number in range(count):
                strides.append(1 if number else first_stride)
                blocks.append(InvertedResidual(widths[-1], out_channels, expansion, strides[-1]))
                widths.append(out_channels)
        self.layers = nn.Sequential(*blocks)
        self.conv2 = convolution(widths[-1], 1280, 1)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)
        self.levels = ends_of_resolutions(strides)
        self.tap_channels = [widths[level + 1] for level in self.levels]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The last map of each resolution, and the average over the final convolution's map."""
        x = relu(self.bn1(self.conv1(images)))
        features, x = run_keeping(self.layers, x, self.levels)
        return features, global_average(relu(self.bn2(self.conv2(x))))
