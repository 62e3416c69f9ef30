"""Building blocks of several of the networks: convolutions, residual blocks, stages.

Sources: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385, figure 5) for
the two residual blocks, Xie et al. (arXiv 1611.05431) and Radosavovic et al. (arXiv 2003.13678)
for their grouped forms, and Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507, section
3). Attribute names follow the checkpoints of kuangliu/pytorch-cifar @ 49b7aa9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu


def convolution(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """An odd-sized convolution without bias, padded so that stride 1 keeps the size of the map."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=kernel // 2,
        groups=groups,
        bias=False,
    )


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A shortcut: 1x1 convolution and batch norm, or nothing if the block keeps the shape."""
    if stride == 1 and in_channels == out_channels:
        return nn.Sequential()
    return nn.Sequential(
        convolution(in_channels, out_channels, 1, stride=stride), nn.BatchNorm2d(out_channels)
    )


def excite(
    x: Tensor, squeeze: nn.Module, expand: nn.Module, activation: Callable[[Tensor], Tensor] = relu
) -> Tensor:
    """Scale each channel by a gate that is computed from the means of all channels."""
    gate = expand(activation(squeeze(x.mean((2, 3), keepdim=True))))
    return x * torch.sigmoid(gate)


class SqueezeExcitation(nn.Module):
    """Squeeze and excitation by two 1x1 convolutions with bias.

    Args:
        channels: Channels of input and output.
        squeezed: Channels between the two convolutions.
        activation: Function between the two convolutions.
    """

    def __init__(
        self, channels: int, squeezed: int, activation: Callable[[Tensor], Tensor] = relu
    ) -> None:
        super().__init__()
        self.se1 = nn.Conv2d(channels, squeezed, 1)
        self.se2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) to the same shape."""
        return excite(x, self.se1, self.se2, self.activation)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, a shortcut, ReLU after the sum.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of both convolutions and of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, out_channels, 3, stride=stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = convolution(out_channels, out_channels, 3)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        residual = relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return relu(residual + self.shortcut(x))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with batch norm, a shortcut, ReLU after the sum.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolution.
        stride: Stride of the 3x3 convolution.
        expansion: Channels of the output, as a multiple of the width.
        groups: Groups of the 3x3 convolution.
        squeezed: Channels between the two layers of squeeze and excitation, which follows the 3x3
            convolution; None leaves it out.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        *,
        expansion: int = 4,
        groups: int = 1,
        squeezed: int | None = None,
    ) -> None:
        super().__init__()
        out_channels = width * expansion
        self.conv1 = convolution(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = convolution(width, width, 3, stride=stride, groups=groups)
        self.bn2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcitation(width, squeezed) if squeezed is not None else nn.Identity()
        self.conv3 = convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, width * expansion, h / stride, w / stride)."""
        residual = relu(self.bn1(self.conv1(x)))
        residual = self.se(relu(self.bn2(self.conv2(residual))))
        residual = self.bn3(self.conv3(residual))
        return relu(residual + self.shortcut(x))


def residual_stages(
    block: Callable[[int, int, int], nn.Module],
    in_channels: int,
    widths: Sequence[int],
    num_blocks: Sequence[int],
    strides: Sequence[int],
    *,
    expansion: int = 1,
) -> list[tuple[nn.Module, int]]:
    """Build stages of equal blocks; the first has the stage's stride and changes the channels.

    Args:
        block: Builds a block from its input's channels, its width and its stride.
        in_channels: Channels of the first stage's input.
        widths: Width of the blocks of each stage.
        num_blocks: Number of blocks of each stage.
        strides: Stride of each stage.
        expansion: Output channels of a block, as a multiple of its width.

    Returns:
        Each stage with its number of output channels.
    """
    stages: list[tuple[nn.Module, int]] = []
    for width, count, stride in zip(widths, num_blocks, strides, strict=True):
        out_channels = width * expansion
        blocks = [block(in_channels, width, stride)]
        blocks += [block(out_channels, width, 1) for _ in range(count - 1)]
        stages.append((nn.Sequential(*blocks), out_channels))
        in_channels = out_channels
    return stages
