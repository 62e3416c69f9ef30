"""ResNet: He et al., "Deep Residual Learning for Image Recognition" (arXiv 1512.03385).

These are the ImageNet networks of the paper's table 1, not the thinner CIFAR networks of its
section 4.2. The stem is for small images, 3x3 with stride 1 and no pooling, as in
kuangliu/pytorch-cifar @ 49b7aa9.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from vendored.pytorch_cifar.blocks import BasicBlock, Bottleneck, convolution, residual_stages
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = ["ResNet", "ResNet18", "ResNet34", "ResNet50", "ResNet101", "ResNet152"]


class ResNet(StagedNetwork):
    """A residual network of four stages; their outputs are the features.

    Args:
        num_blocks: Number of blocks in each of the four stages.
        bottleneck: Use bottlenecks, which have four times as many output channels.
        num_classes: Number of class scores.
    """

    def __init__(
        self, num_blocks: Sequence[int], *, bottleneck: bool, num_classes: int = 10
    ) -> None:
        expansion = 4 if bottleneck else 1
        stem = convolution(3, 64, 3)
        stages = residual_stages(
            partial(Bottleneck, expansion=expansion) if bottleneck else BasicBlock,
            64,
            (64, 128, 256, 512),
            num_blocks,
            (1, 2, 2, 2),
            expansion=expansion,
        )
        super().__init__(stem, stages, num_classes=num_classes)


def ResNet18(num_classes: int = 10) -> ResNet:
    """18 layers, 11.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNet((2, 2, 2, 2), bottleneck=False, num_classes=num_classes)


def ResNet34(num_classes: int = 10) -> ResNet:
    """34 layers, 21.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNet((3, 4, 6, 3), bottleneck=False, num_classes=num_classes)


def ResNet50(num_classes: int = 10) -> ResNet:
    """50 layers, 23.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNet((3, 4, 6, 3), bottleneck=True, num_classes=num_classes)


def ResNet101(num_classes: int = 10) -> ResNet:
    """101 layers, 42.5 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNet((3, 4, 23, 3), bottleneck=True, num_classes=num_classes)


def ResNet152(num_classes: int = 10) -> ResNet:
    """152 layers, 58.2 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNet((3, 8, 36, 3), bottleneck=True, num_classes=num_classes)
