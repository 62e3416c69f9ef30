"""PNASNet: Liu et al., "Progressive Neural Architecture Search" (arXiv 1712.00559).

There are two simple cells in the manner of the paper's figure 1, as in kuangliu/pytorch-cifar @
49b7aa9. There every stage has six cells, and a "separable" convolution is one grouped convolution.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from vendored.pytorch_cifar.blocks import convolution
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = ["PNASNet", "PNASNetA", "PNASNetB"]

NUM_CELLS = 6


class GroupedConvolution(nn.Module):
    """A convolution with a group for each input channel, and batch norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of the input's.
        kernel: Size of the convolution.
        stride: Its stride.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = convolution(
            in_channels, out_channels, kernel, stride=stride, groups=in_channels
        )
        self.bn1 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        y: Tensor = self.bn1(self.conv1(x))
        return y


def reduction(
    in_channels: int, out_channels: int, stride: int
) -> tuple[nn.Conv2d | None, nn.BatchNorm2d | None]:
    """The projection of max-pooled channels to those of the output; empty with stride 1."""
    if stride == 1:
        return None, None
    return convolution(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels)


def pooled(
    x: Tensor, stride: int, convolution: nn.Conv2d | None, norm: nn.BatchNorm2d | None
) -> Tensor:
    """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
    x = max_pool2d(x, 3, stride=stride, padding=1)
    return x if convolution is None or norm is None else norm(convolution(x))


class CellA(nn.Module):
    """A grouped 7x7 convolution plus 3x3 max pooling.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; different from the input's only with stride 2.
        stride: Stride of both branches.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.sep_conv1 = GroupedConvolution(in_channels, out_channels, 7, stride)
        self.conv1, self.bn1 = reduction(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        return relu(self.sep_conv1(x) + pooled(x, self.stride, self.conv1, self.bn1))


class CellB(nn.Module):
    """Grouped 7x7 plus 3x3 convolutions, beside 3x3 max pooling plus a grouped 5x5 convolution.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; different from the input's only with stride 2.
        stride: Stride of all branches.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.sep_conv1 = GroupedConvolution(in_channels, out_channels, 7, stride)
        self.sep_conv2 = GroupedConvolution(in_channels, out_channels, 3, stride)
        self.sep_conv3 = GroupedConvolution(in_channels, out_channels, 5, stride)
        self.conv1, self.bn1 = reduction(in_channels, out_channels, stride)
        self.conv2 = convolution(2 * out_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        left = relu(self.sep_conv1(x) + self.sep_conv2(x))
        right = relu(pooled(x, self.stride, self.conv1, self.bn1) + self.sep_conv3(x))
        return relu(self.bn2(self.conv2(torch.cat([left, right], 1))))


class PNASNet(StagedNetwork):
    """Three stages of six cells, with a cell of stride 2 between them.

    The features are the outputs of the stem and of the three stages.

    Args:
        cell: Builds a cell from the channels of its input and output and its stride.
        width: Channels of stem and first stage; they double from stage to stage.
        num_classes: Number of class scores.
    """

    def __init__(
        self, cell: Callable[[int, int, int], nn.Module], width: int, *, num_classes: int = 10
    ) -> None:
        def stage(channels: int) -> nn.Module:
            return nn.Sequential(*(cell(channels, channels, 1) for _ in range(NUM_CELLS)))

        stem = convolution(3, width, 3)
        stages = [
            (stage(width), width),
            (cell(width, 2 * width, 2), 2 * width),
            (stage(2 * width), 2 * width),
            (cell(2 * width, 4 * width, 2), 4 * width),
            (stage(4 * width), 4 * width),
        ]
        super().__init__(stem, stages, num_classes=num_classes, levels=(0, 1, 3, 5))


def PNASNetA(num_classes: int = 10) -> PNASNet:
    """131 thousand parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PNASNet(CellA, 44, num_classes=num_classes)


def PNASNetB(num_classes: int = 10) -> PNASNet:
    """452 thousand parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return PNASNet(CellB, 32, num_classes=num_classes)
