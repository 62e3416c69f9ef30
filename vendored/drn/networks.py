"""The two families of dilated residual classification networks, built from the blocks.

Sources: Yu, Koltun and Funkhouser, "Dilated Residual Networks" (arXiv 1705.09914: DRN-A in
section 2, DRN-C in section 4; D is C with plain convolutions in place of its outer residual
blocks) and Yu and Koltun, "Multi-scale context aggregation by dilated convolutions" (1511.07122).
Constructor options, module names and initialization are compatible with fyu/drn @ d75db2e.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from vendored.drn.blocks import BasicBlock, BlockType, conv_chain, convolution, residual_stage

CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)
"""Channels of layer1 to layer8 in upstream's networks, before a bottleneck's factor of four."""

STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)


def is_stage(child_name: str) -> bool:
    """Return True for layer1, layer2, ..., the children that learning loss taps."""
    return child_name.startswith("layer") and child_name != "layer0"


def initialize(network: nn.Module) -> None:
    """Initialize as upstream: He-normal convolutions by fan-out, batch norm with one and zero.

    Biases of convolutions and linear layers keep torch's defaults.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


class DRN(nn.Module):
    """DRN-C and DRN-D: a stem and eight stages with output stride 8, then scores or a class map.

    Layers 3 to 6 are residual stages of ``block``. Layers 1, 2, 7 and 8 are stages of basic
    blocks in C (7 and 8 without residual connections) and chains of plain convolutions in D.
    The last two children are ``avgpool`` and ``fc``; the children before them are the backbone.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`, for layers 3 to 6.
        layers: Blocks or convolutions of each of the eight stages.
        num_classes: Scores per image.
        channels: Channels of the eight stages (the stem has those of the first).
        out_map: Return the class map (b, num_classes, h / 8, w / 8) instead of pooled scores.
        out_middle: Also return the list of the eight stage outputs.
        pool_size: Side of the average pooling, in positions of the stride-8 map. Images of 224
            pixels need 28.
        arch: ``"C"`` or ``"D"``.
        add_dropout: Append :class:`SamplingDropout` to every residual stage: layers 1 to 8 of
            C, 3 to 6 of D. The keys of the state_dict stay the same.

    Attributes:
        stage_channels: Output channels of layer1 to layer8.
        out_dim: Channels of the last of them.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """

    def __init__(
        self,
        block: BlockType,
        layers: Sequence[int],
        num_classes: int = 1000,
        channels: Sequence[int] = CHANNELS,
        out_map: bool = False,
        out_middle: bool = False,
        pool_size: int = 28,
        arch: str = "D",
        *,
        add_dropout: bool = False,
    ) -> None:
        super().__init__()
        if arch not in ("C", "D"):
            raise ValueError(f"arch must be 'C' or 'D', not {arch!r}")
        for name, values in (("layers", layers), ("channels", channels)):
            if len(values) != len(STRIDES) or min(values) < 1:
                raise ValueError(f"{name} must be eight positive numbers, not {tuple(values)}")
        if min(num_classes, pool_size) < 1:
            raise ValueError(
                f"num_classes and pool_size must be positive, not {num_classes} and {pool_size}"
            )
        self.out_map = out_map
        self.out_middle = out_middle

        width = channels[0]
        if arch == "C":
            self.conv1 = convolution(3, width, kernel=7)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
        else:
            self.layer0 = conv_chain(3, width, 1, kernel=7, stride=1, dilation=1)
        stage_channels: list[int] = []
        for index, (depth, stride, dilation) in enumerate(
            zip(layers, STRIDES, DILATIONS, strict=True)
        ):
            is_outer = index in (0, 1, 6, 7)
            kind = BasicBlock if is_outer else block
            if is_outer and arch == "D":
                stage = conv_chain(width, channels[index], depth, stride=stride, dilation=dilation)
                width = channels[index]
            else:
                stage = residual_stage(
                    kind,
                    width,
                    channels[index],
                    depth,
                    stride=stride,
                    dilation=dilation,
                    residual=index < 6,
                    add_dropout=add_dropout,
                )
                width = channels[index] * kind.expansion
            self.add_module(f"layer{index + 1}", stage)
            stage_channels.append(width)
        self.stage_channels = tuple(stage_channels)
        self.out_dim = width
        self.avgpool = nn.AvgPool2d(pool_size)
        self.fc = nn.Conv2d(width, num_classes, 1)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Compute the class scores of float images (b, 3, h, w).

        Returns:
            Scores before softmax: (b, num_classes) for images of ``8 * pool_size`` pixels, or
            the map (b, num_classes, ceil(h / 8), ceil(w / 8)) with ``out_map``. With
            ``out_middle``, a pair of these and the list of the stage outputs.
        """
        middle: list[Tensor] = []
        for name, child in list(self.named_children())[:-2]:
            x = child(x)
            if self.out_middle and is_stage(name):
                middle.append(x)
        x = self.fc(x) if self.out_map else self.fc(self.avgpool(x)).flatten(1)
        return (x, middle) if self.out_middle else x


class DRNA(nn.Module):
    """DRN-A: a ResNet whose last two stages are dilated instead of strided (output stride 8).

    The first block of a dilated stage is not dilated.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        layers: Blocks of each of the four stages.
        num_classes: Scores per image.
        add_dropout: Append :class:`SamplingDropout` to every stage. Differs: upstream and its
            fork have no dropout here.

    Attributes:
        stage_channels: Output channels of layer1 to layer4.
        out_dim: Channels of the last of them.

    Raises:
        ValueError: An argument is out of range; the message names it.
    """

    def __init__(
        self,
        block: BlockType,
        layers: Sequence[int],
        num_classes: int = 1000,
        *,
        add_dropout: bool = False,
    ) -> None:
        super().__init__()
        if len(layers) != 4 or min(layers) < 1:
            raise ValueError(f"layers must be four positive numbers, not {tuple(layers)}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be positive, not {num_classes}")
        width = 64
        self.conv1 = convolution(3, width, kernel=7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        stage_channels: list[int] = []
        for index, (depth, stride, dilation) in enumerate(
            zip(layers, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)
        ):
            channels = 64 * 2**index
            stage = residual_stage(
                block,
                width,
                channels,
                depth,
                stride=stride,
                dilation=dilation,
                first_dilation=1,
                add_dropout=add_dropout,
            )
            self.add_module(f"layer{index + 1}", stage)
            width = channels * block.expansion
            stage_channels.append(width)
        self.stage_channels = tuple(stage_channels)
        self.out_dim = width
        self.avgpool = nn.AvgPool2d(28, stride=1)
        self.fc = nn.Linear(width, num_classes)
        initialize(self)

    def forward(self, x: Tensor) -> Tensor:
        """Scores before softmax (b, num_classes) of float images (b, 3, 224, 224)."""
        for child in list(self.children())[:-2]:
            x = child(x)
        scores: Tensor = self.fc(self.avgpool(x).flatten(1))
        return scores
