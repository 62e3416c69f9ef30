"""DLA: Yu et al., "Deep Layer Aggregation" (arXiv 1707.06484, section 3).

``DLA`` aggregates hierarchically (the paper's figure 2f), ``SimpleDLA`` with a binary tree.
Compatible with kuangliu/pytorch-cifar @ 49b7aa9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from vendored.pytorch_cifar.blocks import BasicBlock, convolution
from vendored.taps import TappedClassifier, global_average

__all__ = ["DLA", "SimpleDLA"]

PLAN = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 1, 2))
"""Channels, levels and stride of the four trees, layer3 to layer6."""


class Root(nn.Module):
    """Aggregation of feature maps: concatenation, 1x1 convolution, batch norm and ReLU.

    Args:
        in_channels: Channels of all inputs together.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = convolution(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Aggregate maps (b, c_i, h, w) to one (b, out_channels, h, w)."""
        return relu(self.bn(self.conv(torch.cat(list(maps), 1))))


class Tree(nn.Module):
    """Hierarchical aggregation: the root combines the outputs of subtrees and of two blocks.

    A tree of more than one level applies smaller trees, from the largest down to one level, and
    then two blocks. Its root combines the outputs of all of them. Another input of the root, the
    first one, is the output of the block ``prev_root`` on the tree's input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        level: Height of the tree.
        stride: Stride of the blocks and trees that are applied to the input.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int, stride: int) -> None:
        super().__init__()
        lower_levels = range(level - 1, 0, -1)
        self.subtree_names = [f"level_{lower}" for lower in lower_levels]
        # Two blocks and, in a tree of more than one level, the subtrees and prev_root.
        num_maps = 2 if level == 1 else level + 2
        self.root = Root(num_maps * out_channels, out_channels)
        self.prev_root: BasicBlock | None = None
        channels, first_stride = in_channels, stride
        for lower, name in zip(lower_levels, self.subtree_names, strict=True):
            self.add_module(name, Tree(channels, out_channels, lower, first_stride))
            channels, first_stride = out_channels, 1
        if level > 1:
            self.prev_root = BasicBlock(in_channels, out_channels, stride)
        self.left_node = BasicBlock(channels, out_channels, first_stride)
        self.right_node = BasicBlock(out_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        maps = [] if self.prev_root is None else [self.prev_root(x)]
        for name in (*self.subtree_names, "left_node", "right_node"):
            x = getattr(self, name)(x)
            maps.append(x)
        aggregated: Tensor = self.root(maps)
        return aggregated


class SimpleTree(nn.Module):
    """A binary tree of blocks: the right child is applied after the left, the root combines both.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        level: Height of the tree. The children are blocks at height 1, and trees above it.
        stride: Stride of the left child.
    """

    def __init__(self, in_channels: int, out_channels: int, level: int, stride: int) -> None:
        super().__init__()

        def child(channels: int, child_stride: int) -> nn.Module:
            if level == 1:
                return BasicBlock(channels, out_channels, child_stride)
            return SimpleTree(channels, out_channels, level - 1, child_stride)

        self.root = Root(2 * out_channels, out_channels)
        self.left_tree = child(in_channels, stride)
        self.right_tree = child(out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, h / stride, w / stride)."""
        left = self.left_tree(x)
        aggregated: Tensor = self.root([left, self.right_tree(left)])
        return aggregated


class AggregationNetwork(TappedClassifier):
    """Three convolutions and four trees, layer3 to layer6, whose outputs are the features.

    Args:
        tree: Builds a tree from channels of input and output, levels and stride.
        num_classes: Number of class scores.
    """

    def __init__(
        self, tree: Callable[[int, int, int, int], nn.Module], *, num_classes: int
    ) -> None:
        super().__init__(num_classes)
        self.base = activated(3, 16)
        self.layer1 = activated(16, 16)
        self.layer2 = activated(16, 32)
        channels = 32
        for number, (width, level, stride) in enumerate(PLAN, start=3):
            self.add_module(f"layer{number}", tree(channels, width, level, stride))
            channels = width
        self.linear = nn.Linear(channels, num_classes)
        self.tap_channels = [width for width, _, _ in PLAN]

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The outputs of the four trees, and the average over the last map."""
        x = self.layer2(self.layer1(self.base(images)))
        features = []
        for number in range(3, 3 + len(PLAN)):
            x = getattr(self, f"layer{number}")(x)
            features.append(x)
        return features, global_average(x)


def activated(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(
        convolution(in_channels, out_channels, 3), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


class DLA(AggregationNetwork):
    """Hierarchical aggregation, 16.3 million parameters: (b, 3, 32, 32) to scores (b, num_classes).

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(Tree, num_classes=num_classes)


class SimpleDLA(AggregationNetwork):
    """A binary tree, 15.1 million parameters: (b, 3, 32, 32) to scores (b, num_classes).

    Args:
        num_classes: Number of class scores.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(SimpleTree, num_classes=num_classes)
