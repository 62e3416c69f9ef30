"""EfficientNet-B0: Tan and Le, "Rethinking Model Scaling for CNNs" (arXiv 1905.11946).

The stem has stride 1 for small images. As in kuangliu/pytorch-cifar @ 49b7aa9, connections are
never dropped, squeeze and excitation has a quarter of the channels of a block's input, there is no
convolution between the last block and the average pool, and the first block has an expansion that
is not used.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from vendored.pytorch_cifar.blocks import SqueezeExcitation, convolution
from vendored.pytorch_cifar.stages import ends_of_resolutions, run_keeping
from vendored.taps import TappedClassifier, global_average

__all__ = ["EfficientNet", "EfficientNetB0"]

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion, output channels, blocks, kernel, stride (the paper's table 1)."""

DROPOUT = 0.2
"""Before the classifier (the paper's section 5.2)."""


class MobileBlock(nn.Module):
    """Expansion, depthwise convolution, squeeze and excitation, and a linear projection.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Channels of the depthwise convolution, as a multiple of the input's.
        kernel: Size of the depthwise convolution.
        stride: Its stride. The input is added to the output if both have the same shape.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        width = expansion * in_channels
        self.expanding = expansion > 1
        self.residual = stride == 1 and in_channels == out_channels
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        if not self.expanding:
            # Differs: upstream leaves these two trainable. They get no gradient in either
            # implementation, and DistributedDataParallel refuses trainable parameters without one.
            self.conv1.requires_grad_(False)
            self.bn1.requires_grad_(False)
        self.conv2 = convolution(width, width, kernel, stride=stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width, in_channels // 4, silu)
        self.conv3 = convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        y = silu(self.bn1(self.conv1(x))) if self.expanding else x
        y = self.se(silu(self.bn2(self.conv2(y))))
        projected: Tensor = self.bn3(self.conv3(y))
        return projected + x if self.residual else projected


class EfficientNet(TappedClassifier):
    """Sixteen mobile blocks; the features are the last maps of the five resolutions.

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, *, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = convolution(3, 32, 3)
        self.bn1 = nn.BatchNorm2d(32)
        blocks, strides, widths = [], [], [32]
        for expansion, out_channels, count, kernel, first_stride in STAGES:
            for number in range(count):
                stride = 1 if number else first_stride
                block = MobileBlock(
                    widths[-1], out_channels, expansion=expansion, kernel=kernel, stride=stride
                )
                blocks.append(block)
                strides.append(stride)
                widths.append(out_channels)
        self.layers = nn.Sequential(*blocks)
        self.linear = nn.Linear(widths[-1], num_classes)
        self.levels = ends_of_resolutions(strides)
        self.tap_channels = [widths[level + 1] for level in self.levels]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The last map of each resolution, and the average over the last of them."""
        x = silu(self.bn1(self.conv1(images)))
        features, x = run_keeping(self.layers, x, self.levels)
        return features, global_average(x)

    def classify(self, embedding: Tensor) -> Tensor:
        """Class scores (b, k) of embeddings (b, d), with dropout in training."""
        return super().classify(dropout(embedding, DROPOUT, training=self.training))


def EfficientNetB0(num_classes: int = 10) -> EfficientNet:
    """3.6 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return EfficientNet(num_classes=num_classes)
