"""One hourglass: residual modules on the way down to the coarsest map and up again.

Source: Newell, Yang and Deng, "Stacked Hourglass Networks for Human Pose Estimation" (arXiv
1603.06937, sections 3.1 and 3.2). Attribute names and their numbering are those of
bearpaw/pytorch-pose.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

EXPANSION = 2
"""Channels of a residual module's output, as a multiple of those of its 3x3 convolution."""


class ResidualModule(nn.Module):
    """Pre-activated convolutions 1x1, 3x3 and 1x1, added to the input (the paper's figure 4).

    The convolutions have biases, and the shortcut is a bare convolution where channels change.

    Args:
        in_channels: Channels of the input.
        width: Channels of the 3x3 convolution; the output has twice as many.
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, width, 1)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn3 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1)
        self.downsample = (
            None
            if in_channels == out_channels
            else nn.Sequential(nn.Conv2d(in_channels, out_channels, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, 2 * width, h, w)."""
        y = self.conv1(relu(self.bn1(x)))
        y = self.conv2(relu(self.bn2(y)))
        y = self.conv3(relu(self.bn3(y)))
        added: Tensor = y + (x if self.downsample is None else self.downsample(x))
        return added


def residual_modules(in_channels: int, width: int, count: int) -> nn.Sequential:
    """``count`` residual modules in a row."""
    modules = [ResidualModule(in_channels, width)]
    modules += [ResidualModule(EXPANSION * width, width) for _ in range(count - 1)]
    return nn.Sequential(*modules)


class Hourglass(nn.Module):
    """A map is halved ``depth`` times and enlarged again, with a skip connection at each size.

    ``hg[i]`` holds the layers of the level that has ``i`` levels below it: those of the skip
    connection, of the way down and of the way up, and for ``hg[0]`` also those at the bottom.

    Args:
        channels: Channels of the input, of all maps and of the output; even.
        depth: Number of halvings.
        count: Number of residual modules at each place.
    """

    def __init__(self, channels: int, *, depth: int, count: int) -> None:
        super().__init__()
        width = channels // EXPANSION
        self.hg = nn.ModuleList(
            nn.ModuleList(residual_modules(channels, width, count) for _ in range(places))
            for places in (4, *(3,) * (depth - 1))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """The bottom's map and the maps of the way up, ``depth + 1`` of them.

        Args:
            x: (b, channels, h, w) with sides that are multiples of 2^depth.

        Returns:
            Maps (b, channels, h / 2^i, w / 2^i) for i from ``depth`` to 0; the last one is the
            output.
        """
        skips = []
        for level in reversed(self.hg):
            skip, down, *_ = _layers(level)
            skips.append(skip(x))
            x = down(max_pool2d(x, 2))
        *_, bottom = _layers(self.hg[0])
        maps = [bottom(x)]
        for level in self.hg:
            up = _layers(level)[2]
            maps.append(skips.pop() + interpolate(up(maps[-1]), scale_factor=2, mode="nearest"))
        return maps


def _layers(level: nn.Module) -> list[nn.Module]:
    """The places of one level: skip, down, up and, at the lowest, bottom."""
    assert isinstance(level, nn.ModuleList)
    return list(level)
