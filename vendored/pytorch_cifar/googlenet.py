"""GoogLeNet: Szegedy et al., "Going Deeper with Convolutions" (arXiv 1409.4842, table 1).

It has no auxiliary classifiers, and a 3x3 stem of 192 channels for small images. As in
kuangliu/pytorch-cifar @ 49b7aa9, two 3x3 convolutions replace each 5x5 convolution, and all
convolutions have a bias although batch norm follows.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from vendored.taps import TappedClassifier, global_average

__all__ = ["GoogLeNet"]


def activated(in_channels: int, out_channels: int, kernel: int) -> list[nn.Module]:
    """A convolution with bias, batch norm and ReLU."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


class Inception(nn.Module):
    """Four branches side by side: 1x1, 3x3, two of 3x3, and max pooling.

    Args:
        in_channels: Channels of the input.
        single: Channels of the 1x1 branch.
        double: Channels of the 1x1 and of the 3x3 convolution of the second branch.
        triple: Channels of the 1x1 and of the 3x3 convolutions of the third branch.
        pooled: Channels of the 1x1 convolution after max pooling.
    """

    def __init__(
        self,
        in_channels: int,
        single: int,
        double: tuple[int, int],
        triple: tuple[int, int],
        pooled: int,
    ) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*activated(in_channels, single, 1))
        self.b2 = nn.Sequential(*activated(in_channels, double[0], 1), *activated(*double, 3))
        self.b3 = nn.Sequential(
            *activated(in_channels, triple[0], 1),
            *activated(*triple, 3),
            *activated(triple[1], triple[1], 3),
        )
        pooling = nn.MaxPool2d(3, stride=1, padding=1)
        self.b4 = nn.Sequential(pooling, *activated(in_channels, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, sum of the branches' channels, h, w)."""
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


class GoogLeNet(TappedClassifier):
    """Nine inception modules in three stages; their outputs and the stem's are the features.

    6.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes).

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.pre_layers = nn.Sequential(*activated(3, 192, 3))
        self.a3 = Inception(192, 64, (96, 128), (16, 32), 32)
        self.b3 = Inception(256, 128, (128, 192), (32, 96), 64)
        self.a4 = Inception(480, 192, (96, 208), (16, 48), 64)
        self.b4 = Inception(512, 160, (112, 224), (24, 64), 64)
        self.c4 = Inception(512, 128, (128, 256), (24, 64), 64)
        self.d4 = Inception(512, 112, (144, 288), (32, 64), 64)
        self.e4 = Inception(528, 256, (160, 320), (32, 128), 128)
        self.a5 = Inception(832, 256, (160, 320), (32, 128), 128)
        self.b5 = Inception(832, 384, (192, 384), (48, 128), 128)
        self.linear = nn.Linear(1024, num_classes)
        self.tap_channels = (192, 480, 832, 1024)

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The outputs of the stem and of the three stages, and the average over the last map."""
        stem = self.pre_layers(images)
        third = self.b3(self.a3(stem))
        x = halve(third)
        for module in (self.a4, self.b4, self.c4, self.d4, self.e4):
            x = module(x)
        fourth = x
        fifth = self.b5(self.a5(halve(fourth)))
        return [stem, third, fourth, fifth], global_average(fifth)


def halve(x: Tensor) -> Tensor:
    """Max-pool (b, c, h, w) to (b, c, h / 2, w / 2)."""
    return max_pool2d(x, 3, stride=2, padding=1)
