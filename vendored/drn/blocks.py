"""Building blocks of dilated residual networks: convolutions, residual blocks and stages.

Sources: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385, section 3.3
and figure 5) for the two blocks; Yu, Koltun and Funkhouser, "Dilated Residual Networks" (arXiv
1705.09914, sections 3 and 4) for the dilations and for blocks without their residual connection.
Attribute names follow the published checkpoints of fyu/drn @ d75db2e.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from vendored.drn.dropout import SamplingDropout


def convolution(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """An odd-sized convolution without bias, padded so that stride 1 keeps the size of the map."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        bias=False,
    )


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The projection of a block's input to the shape of its output; None for equal shapes."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(
        convolution(in_channels, out_channels, kernel=1, stride=stride),
        nn.BatchNorm2d(out_channels),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, both dilated, with an optional residual connection.

    A block without the connection (``residual=False``, section 4 of the DRN paper) still has the
    projection if the shapes differ, because published checkpoints contain it.

    Differs: upstream runs that unused projection in every forward pass. Here it runs in training
    only, where it updates its batch-norm statistics, and without autograd. Its gradients are None
    in both implementations.

    Args:
        in_channels: Channels of the input.
        channels: Channels of both convolutions and of the output.
        stride: Stride of the first convolution.
        dilation: Dilation (and padding) of both convolutions.
        residual: Add the block's input to its output.
    """

    expansion: ClassVar[int] = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(in_channels, channels, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, channels, stride)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, channels, ceil(h / stride), ceil(w / stride))."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out += x if self.downsample is None else self.downsample(x)
        elif self.training and self.downsample is not None:
            with torch.no_grad():
                self.downsample(x)
        return functional.relu(out, inplace=True)


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1 with a residual connection.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the first two convolutions; the output has ``4 * channels``.
        stride: Stride of the 3x3 convolution.
        dilation: Dilation (and padding) of the 3x3 convolution.
        residual: Ignored, as upstream: a bottleneck always has its residual connection. The
            argument exists so that both kinds of block take the same arguments.
    """

    expansion: ClassVar[int] = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        residual: bool = True,
    ) -> None:
        super().__init__()
        del residual
        out_channels = channels * self.expansion
        self.conv1 = convolution(in_channels, channels, kernel=1)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = convolution(channels, channels, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = convolution(channels, out_channels, kernel=1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, 4 * channels, ceil(h / stride), ceil(w / stride))."""
        out: Tensor = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return functional.relu(out, inplace=True)


BlockType = type[BasicBlock] | type[Bottleneck]


def conv_chain(
    in_channels: int, channels: int, depth: int, *, kernel: int = 3, stride: int, dilation: int
) -> nn.Sequential:
    """Convolution, batch norm and ReLU, ``depth`` times; the first convolution has the stride."""
    chain = nn.Sequential()
    for index in range(depth):
        chain.append(
            convolution(
                channels if index else in_channels,
                channels,
                kernel=kernel,
                stride=1 if index else stride,
                dilation=dilation,
            )
        )
        chain.append(nn.BatchNorm2d(channels))
        chain.append(nn.ReLU(inplace=True))
    return chain


def residual_stage(
    block: BlockType,
    in_channels: int,
    channels: int,
    depth: int,
    *,
    stride: int,
    dilation: int,
    first_dilation: int | None = None,
    residual: bool = True,
    add_dropout: bool = False,
) -> nn.Sequential:
    """``depth`` blocks in a row, the first with the stride, and sampling dropout if wanted.

    The first block has the dilation ``first_dilation`` if that is given.
    """
    stage = nn.Sequential()
    for index in range(depth):
        stage.append(
            block(
                channels * block.expansion if index else in_channels,
                channels,
                stride=1 if index else stride,
                dilation=first_dilation if index == 0 and first_dilation else dilation,
                residual=residual,
            )
        )
    if add_dropout:
        stage.append(SamplingDropout())
    return stage
