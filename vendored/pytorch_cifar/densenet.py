"""DenseNet: Huang et al., "Densely Connected Convolutional Networks" (arXiv 1608.06993).

This is DenseNet-BC, with bottlenecks and compression, and with a bare 3x3 stem. New channels come
before the old ones, as in kuangliu/pytorch-cifar @ 49b7aa9, whose checkpoints depend on that order.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from vendored.pytorch_cifar.blocks import convolution
from vendored.taps import TappedClassifier, global_average

__all__ = [
    "DenseNet",
    "DenseNet121",
    "DenseNet161",
    "DenseNet169",
    "DenseNet201",
    "densenet_cifar",
]


class DenseLayer(nn.Module):
    """Activated convolutions 1x1 and 3x3, whose output is concatenated to the input.

    Args:
        in_channels: Channels of the input.
        growth_rate: Number of new channels.
    """

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, 4 * growth_rate, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth_rate)
        self.conv2 = convolution(4 * growth_rate, growth_rate, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to (b, growth_rate + c, h, w), the new channels first."""
        new = self.conv1(relu(self.bn1(x)))
        new = self.conv2(relu(self.bn2(new)))
        return torch.cat([new, x], 1)


class Transition(nn.Module):
    """An activated 1x1 convolution and pooling to half the size, between two dense stages.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_channels)
        self.conv = convolution(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / 2, w / 2)."""
        return avg_pool2d(self.conv(relu(self.bn(x))), 2)


class DenseNet(TappedClassifier):
    """Four dense stages with transitions between them; the stages' outputs are the features.

    Args:
        num_layers: Number of dense layers in each of the four stages.
        growth_rate: Number of new channels of each dense layer; the stem has twice as many.
        num_classes: Number of class scores.
    """

    def __init__(
        self, num_layers: Sequence[int], *, growth_rate: int, num_classes: int = 10
    ) -> None:
        super().__init__(num_classes)
        channels = 2 * growth_rate
        self.conv1 = convolution(3, channels, 3)
        self.num_stages = len(num_layers)
        tap_channels = []
        for stage, count in enumerate(num_layers, start=1):
            layers = [DenseLayer(channels + i * growth_rate, growth_rate) for i in range(count)]
            self.add_module(f"dense{stage}", nn.Sequential(*layers))
            channels += count * growth_rate
            tap_channels.append(channels)
            if stage < self.num_stages:
                self.add_module(f"trans{stage}", Transition(channels, channels // 2))
                channels //= 2
        self.bn = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)
        self.tap_channels = tap_channels

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The output of each dense stage, and the average over the last activated map."""
        x = self.conv1(images)
        features = []
        for stage in range(1, self.num_stages + 1):
            if stage > 1:
                x = getattr(self, f"trans{stage - 1}")(x)
            x = getattr(self, f"dense{stage}")(x)
            features.append(x)
        return features, global_average(relu(self.bn(x)))


def DenseNet121(num_classes: int = 10) -> DenseNet:
    """121 layers, 7.0 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DenseNet((6, 12, 24, 16), growth_rate=32, num_classes=num_classes)


def DenseNet169(num_classes: int = 10) -> DenseNet:
    """169 layers, 12.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DenseNet((6, 12, 32, 32), growth_rate=32, num_classes=num_classes)


def DenseNet201(num_classes: int = 10) -> DenseNet:
    """201 layers, 18.1 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DenseNet((6, 12, 48, 32), growth_rate=32, num_classes=num_classes)


def DenseNet161(num_classes: int = 10) -> DenseNet:
    """161 layers, 26.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DenseNet((6, 12, 36, 24), growth_rate=48, num_classes=num_classes)


def densenet_cifar(num_classes: int = 10) -> DenseNet:
    """A thin DenseNet121, 1.0 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return DenseNet((6, 12, 24, 16), growth_rate=12, num_classes=num_classes)
