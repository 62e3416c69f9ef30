"""SENet: Hu et al., "Squeeze-and-Excitation Networks" (arXiv 1709.01507).

As in kuangliu/pytorch-cifar @ 49b7aa9, it has pre-activation blocks (arXiv 1603.05027) with squeeze
and excitation before the sum, and batch norm and ReLU after the stem.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from vendored.pytorch_cifar.blocks import convolution, excite, residual_stages
from vendored.pytorch_cifar.preact_resnet import PreActBlock
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = ["SENet", "SENet18"]

REDUCTION = 16
"""Ratio of the channels to the squeezed channels: r in the paper, and its value."""


class ExcitedPreActBlock(PreActBlock):
    """A pre-activation block whose residual is scaled channel by channel.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.fc1 = nn.Conv2d(out_channels, out_channels // REDUCTION, 1)
        self.fc2 = nn.Conv2d(out_channels // REDUCTION, out_channels, 1)

    def residual(self, activated: Tensor) -> Tensor:
        """The term that is added to the shortcut, computed from the activated input."""
        return excite(super().residual(activated), self.fc1, self.fc2)


class SENet(StagedNetwork):
    """A residual network with squeeze and excitation; its four stages' outputs are the features.

    Args:
        num_blocks: Number of blocks in each of the four stages.
        num_classes: Number of class scores.
    """

    def __init__(self, num_blocks: Sequence[int], *, num_classes: int = 10) -> None:
        stem = convolution(3, 64, 3)
        stages = residual_stages(
            ExcitedPreActBlock, 64, (64, 128, 256, 512), num_blocks, (1, 2, 2, 2)
        )
        super().__init__(stem, stages, num_classes=num_classes)


def SENet18(num_classes: int = 10) -> SENet:
    """18 layers, 11.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return SENet((2, 2, 2, 2), num_classes=num_classes)
