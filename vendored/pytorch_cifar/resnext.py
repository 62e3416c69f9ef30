"""ResNeXt: Xie et al., "Aggregated Residual Transformations" (arXiv 1611.05431, section 5.3).

As in kuangliu/pytorch-cifar @ 49b7aa9, and unlike in the paper, the stem is 1x1 and a block has
twice as many output channels as its width.
"""

# The constructors have upstream's names.
# ruff: noqa: N802

from __future__ import annotations

from functools import partial

from vendored.pytorch_cifar.blocks import Bottleneck, convolution, residual_stages
from vendored.pytorch_cifar.stages import StagedNetwork

__all__ = [
    "ResNeXt",
    "ResNeXt29_2x64d",
    "ResNeXt29_4x64d",
    "ResNeXt29_8x64d",
    "ResNeXt29_32x4d",
]


class ResNeXt(StagedNetwork):
    """Three stages of three grouped bottlenecks; their outputs and the stem's are the features.

    Args:
        cardinality: Groups of every 3x3 convolution.
        group_width: Channels of a group in the first stage; they double from stage to stage.
        num_classes: Number of class scores.
    """

    def __init__(self, cardinality: int, group_width: int, *, num_classes: int = 10) -> None:
        width = cardinality * group_width
        stem = convolution(3, 64, 1)
        stages = residual_stages(
            partial(Bottleneck, expansion=2, groups=cardinality),
            64,
            (width, 2 * width, 4 * width),
            (3, 3, 3),
            (1, 2, 2),
            expansion=2,
        )
        super().__init__(stem, stages, num_classes=num_classes, levels=(0, 1, 2, 3))


def ResNeXt29_2x64d(num_classes: int = 10) -> ResNeXt:
    """2 groups of 64, 9.1 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNeXt(2, 64, num_classes=num_classes)


def ResNeXt29_4x64d(num_classes: int = 10) -> ResNeXt:
    """4 groups of 64, 27.1 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNeXt(4, 64, num_classes=num_classes)


def ResNeXt29_8x64d(num_classes: int = 10) -> ResNeXt:
    """8 groups of 64, 89.6 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNeXt(8, 64, num_classes=num_classes)


def ResNeXt29_32x4d(num_classes: int = 10) -> ResNeXt:
    """32 groups of 4, 4.8 million parameters: (b, 3, 32, 32) to scores (b, num_classes)."""
    return ResNeXt(32, 4, num_classes=num_classes)
