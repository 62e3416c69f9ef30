"""ShuffleNet and ShuffleNetV2: Zhang et al. (arXiv 1707.01083) and Ma et al. (arXiv 1807.11164).

The stem has no pooling, for small images, as in kuangliu/pytorch-cifar @ 49b7aa9. In the first
version it is 1x1, and ReLU also follows depthwise convolutions.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, channel_shuffle, relu

from vendored.pytorch_cifar.blocks import convolution
from vendored.pytorch_cifar.stages import StagedNetwork
from vendored.taps import TappedClassifier, global_average

__all__ = ["ShuffleNet", "ShuffleNetG2", "ShuffleNetG3", "ShuffleNetV2"]

NUM_BLOCKS = (4, 8, 4)
"""Blocks of the three stages, in both versions; the first block of a stage halves the size."""

V2_WIDTHS: dict[float, tuple[int, int, int, int]] = {
    0.5: (48, 96, 192, 1024),
    1: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2: (224, 488, 976, 2048),
}
"""Channels of the three stages and of the last convolution (arXiv 1807.11164, table 5).

The 224 is upstream's value; the paper has 244.
"""


class ShuffleBlock(nn.Module):
    """Grouped 1x1, shuffle, depthwise 3x3 and grouped 1x1 convolutions, and a shortcut.

    The shortcut is added with stride 1, and concatenated after pooling with stride 2.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, pooled input included.
        stride: Stride of the depthwise convolution.
        groups: Groups of the 1x1 convolutions.
        first_groups: Groups of the first 1x1 convolution and of the shuffle after it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int, groups: int, first_groups: int
    ) -> None:
        super().__init__()
        new_channels = out_channels if stride == 1 else out_channels - in_channels
        # Differs: upstream divides to a float, which Python 3 refuses as a number of channels.
        width = new_channels // 4
        self.stride = stride
        self.first_groups = first_groups
        self.conv1 = convolution(in_channels, width, 1, groups=first_groups)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride, groups=width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, new_channels, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(new_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        y = relu(self.bn1(self.conv1(x)))
        y = channel_shuffle(y, self.first_groups)
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.stride == 1:
            return relu(y + x)
        return relu(torch.cat([y, avg_pool2d(x, 3, stride=2, padding=1)], 1))


class ShuffleNet(StagedNetwork):
    """Three stages of shuffling blocks; their outputs and the stem's are the features.

    Args:
        widths: Channels of each stage.
        groups: Groups of the 1x1 convolutions, except for the first one, which is not grouped.
        num_classes: Number of class scores.
    """

    def __init__(self, widths: Sequence[int], *, groups: int, num_classes: int = 10) -> None:
        stem = convolution(3, 24, 1)
        stages: list[tuple[nn.Module, int]] = []
        channels = 24
        for width, count in zip(widths, NUM_BLOCKS, strict=True):
            blocks: list[nn.Module] = []
            for number in range(count):
                block = ShuffleBlock(
                    channels,
                    width,
                    stride=1 if number else 2,
                    groups=groups,
                    first_groups=groups if stages or blocks else 1,
                )
                blocks.append(block)
                channels = width
            stages.append((nn.Sequential(*blocks), width))
        super().__init__(stem, stages, num_classes=num_classes, levels=(0, 1, 2, 3))


def ShuffleNetG2(num_classes: int = 10) -> ShuffleNet:
    """2 groups, 888 thousand parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ShuffleNet((200, 400, 800), groups=2, num_classes=num_classes)


def ShuffleNetG3(num_classes: int = 10) -> ShuffleNet:
    """3 groups, 863 thousand parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ShuffleNet((240, 480, 960), groups=3, num_classes=num_classes)


class SplitBlock(nn.Module):
    """Convolutions of the second half of the channels, shuffled together with the first half.

    Args:
        channels: Channels of input and output.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_kept = half = channels // 2
        self.conv1 = convolution(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = convolution(half, half, 3, groups=half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        y = relu(self.bn1(self.conv1(x[:, self.num_kept :])))
        y = self.bn2(self.conv2(y))
        y = relu(self.bn3(self.conv3(y)))
        return channel_shuffle(torch.cat([x[:, : self.num_kept], y], 1), 2)


class DownBlock(nn.Module):
    """Two branches of stride 2 on all channels, shuffled together.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, half of them from each branch.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = convolution(in_channels, in_channels, 3, stride=2, groups=in_channels)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = convolution(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = convolution(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = convolution(half, half, 3, stride=2, groups=half)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = convolution(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / 2, w / 2)."""
        left = self.bn1(self.conv1(x))
        left = relu(self.bn2(self.conv2(left)))
        right = relu(self.bn3(self.conv3(x)))
        right = self.bn4(self.conv4(right))
        right = relu(self.bn5(self.conv5(right)))
        return channel_shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV2(TappedClassifier):
    """Three stages and a last convolution; their outputs are the features.

    Args:
        net_size: Relative width: 0.5, 1, 1.5 or 2.
        num_classes: Number of class scores.

    Raises:
        ValueError: The width is unknown, or ``num_classes`` is below 1.
    """

    def __init__(self, net_size: float, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        if net_size not in V2_WIDTHS:
            raise ValueError(f"net_size is {net_size!r}; it must be one of {[*V2_WIDTHS]}")
        *widths, last = V2_WIDTHS[net_size]
        self.conv1 = convolution(3, 24, 3)
        self.bn1 = nn.BatchNorm2d(24)
        channels = 24
        for stage, (width, count) in enumerate(zip(widths, NUM_BLOCKS, strict=True), start=1):
            blocks = [SplitBlock(width) for _ in range(count - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(DownBlock(channels, width), *blocks))
            channels = width
        self.conv2 = convolution(channels, last, 1)
        self.bn2 = nn.BatchNorm2d(last)
        self.linear = nn.Linear(last, num_classes)
        self.tap_channels = V2_WIDTHS[net_size]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The outputs of the stages and of the last convolution, and the average over the last."""
        x = relu(self.bn1(self.conv1(images)))
        features = []
        for stage in range(1, len(NUM_BLOCKS) + 1):
            x = getattr(self, f"layer{stage}")(x)
            features.append(x)
        x = relu(self.bn2(self.conv2(x)))
        return [*features, x], global_average(x)
