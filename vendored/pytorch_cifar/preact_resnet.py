"""Pre-activation ResNet: He et al., "Identity Mappings in Deep Residual Networks".

The paper is arXiv 1603.05027. Batch norm and ReLU come before each convolution (its figure 4e). As
in kuangliu/pytorch-cifar @ 49b7aa9, and unlike in the paper, there are none after the stem and
after the last block, and a projecting shortcut is a bare 1x1 convolution of the activated input.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.pytorch_cifar.blocks import convolution, residual_stages
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = [
    "PreActBlock",
    "PreActResNet",
    "PreActResNet18",
    "PreActResNet34",
    "PreActResNet50",
    "PreActResNet101",
    "PreActResNet152",
]


class PreActBlock(nn.Module):
    """Two activated 3x3 convolutions and a shortcut, with nothing after the sum.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions and of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, out_channels, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.shortcut = bare_projection(in_channels, out_channels, stride)

    def residual(self, activated: Tensor) -> Tensor:
        """The term that is added to the shortcut, computed from the activated input."""
        x = self.conv1(activated)
        y: Tensor = self.conv2(relu(self.bn2(x)))
        return y

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        activated = relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return self.residual(activated) + shortcut


class PreActBottleneck(nn.Module):
    """Activated convolutions 1x1, 3x3 and 1x1 and a shortcut, with nothing after the sum.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolution; the output has four times as many.
        stride: Stride of the 3x3 convolution.
    """

    def __init__(self, in_channels: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = convolution(in_channels, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, 4 * width, 1)
        self.shortcut = bare_projection(in_channels, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, 4 * width, h / stride, w / stride)."""
        activated = relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        y: Tensor = self.conv1(activated)
        y = self.conv2(relu(self.bn2(y)))
        y = self.conv3(relu(self.bn3(y)))
        return y + shortcut


def bare_projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """A 1x1 convolution without batch norm, or None if the block keeps the shape."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(convolution(in_channels, out_channels, 1, stride=stride))


class PreActResNet(StagedNetwork):
    """A pre-activation residual network of four stages; their outputs are the features.

    Args:
        num_blocks: Number of blocks in each of the four stages.
        bottleneck: Use bottlenecks instead of basic blocks.
        num_classes: Number of class scores.
    """

    def __init__(
        self, num_blocks: Sequence[int], *, bottleneck: bool, num_classes: int = 10
    ) -> None:
        stem = convolution(3, 64, 3)
        stages = residual_stages(
            PreActBottleneck if bottleneck else PreActBlock,
            64,
            (64, 128, 256, 512),
            num_blocks,
            (1, 2, 2, 2),
            expansion=4 if bottleneck else 1,
        )
        super().__init__(stem, stages, num_classes=num_classes, normalized_stem=False)


def PreActResNet18(num_classes: int = 10) -> PreActResNet:
    """18 layers, 11.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PreActResNet((2, 2, 2, 2), bottleneck=False, num_classes=num_classes)


def PreActResNet34(num_classes: int = 10) -> PreActResNet:
    """34 layers, 21.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PreActResNet((3, 4, 6, 3), bottleneck=False, num_classes=num_classes)


def PreActResNet50(num_classes: int = 10) -> PreActResNet:
    """50 layers, 23.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PreActResNet((3, 4, 6, 3), bottleneck=True, num_classes=num_classes)


def PreActResNet101(num_classes: int = 10) -> PreActResNet:
    """101 layers, 42.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PreActResNet((3, 4, 23, 3), bottleneck=True, num_classes=num_classes)


def PreActResNet152(num_classes: int = 10) -> PreActResNet:
    """152 layers, 58.1 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PreActResNet((3, 8, 36, 3), bottleneck=True, num_classes=num_classes)
