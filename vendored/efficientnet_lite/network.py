"""EfficientNet-Lite0: mobile inverted bottlenecks without squeeze and excitation, with ReLU6.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(arXiv 1905.11946, table 1), in the variant of the TensorFlow authors for small devices. Attribute
names are those of the published PyTorch file, see `weights.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import dropout, pad, relu6

from vendored.checkpoints import fill
from vendored.efficientnet_lite.weights import imagenet_weights
from vendored.taps import TappedClassifier, global_average

IMAGE_SIZE = 224
"""Side of the images that the weights were trained on, pixels; resized bicubically."""

MEAN = STD = (0.5, 0.5, 0.5)
"""Normalization of RGB in 0..1 that the weights expect."""

STAGES = (
    (1, 16, 1, 3, 1),
    (6, 24, 2, 3, 2),
    (6, 40, 2, 5, 2),
    (6, 80, 3, 3, 2),
    (6, 112, 3, 5, 1),
    (6, 192, 4, 5, 2),
    (6, 320, 1, 3, 1),
)
"""Expansion, output channels, blocks, kernel and stride of each stage (the paper's table 1)."""

TAP_STRIDES = (2, 4, 8, 16, 32)
"""Pixels of the image per position of each map of ``forward_features``, in both directions."""

NUM_IMAGENET_CLASSES = 1000
EMBEDDING_CHANNELS = 1280
HEAD = ("_conv_head.", "_bn1.", "_fc.")
"""Prefixes of the weights that follow the last map."""
DROPOUT = 0.2
"""Before the classifier (the paper's section 5.2)."""


class SameConv2d(nn.Conv2d):
    """A convolution without bias that pads as TensorFlow's "SAME" does.

    The output has ceil(side / stride) positions. Where the padding is odd, which happens with
    stride 2 and even sides, the additional row and column are at the bottom and at the right.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        padding = kernel // 2 if stride == 1 else 0
        super().__init__(
            in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, ceil(h / stride), ceil(w / stride))."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            rows, columns = (_same_padding(side, kernel) for side in x.shape[2:])
            x = pad(x, (*columns, *rows))
        return super().forward(x)


def _same_padding(side: int, kernel: int) -> tuple[int, int]:
    """Zeros before and after a side, for stride 2 and an odd kernel.

    The sum is (ceil(side / 2) - 1) * 2 + kernel - side. This form stays simple when sides are
    symbols, in an export for images of any size.
    """
    return kernel // 2 - (side - 1) % 2, kernel // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    # TensorFlow's epsilon. Its momentum would be 0.01 in PyTorch's terms; 0.1 lets the statistics
    # follow a new data set within the few steps that a small labeled set gives.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)


class MobileBlock(nn.Module):
    """Expansion, depthwise convolution and linear projection, added to the input if it fits.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        expansion: Channels of the depthwise convolution, as a multiple of the input's. There is no
            expansion layer where it is 1.
        kernel: Side of the depthwise kernel.
        stride: Stride of the depthwise convolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        width = expansion * in_channels
        self.expanding = expansion > 1
        self.residual = stride == 1 and in_channels == out_channels
        if self.expanding:
            self._expand_conv = SameConv2d(in_channels, width, 1)
            self._bn0 = _norm(width)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride=stride, groups=width)
        self._bn1 = _norm(width)
        self._project_conv = SameConv2d(width, out_channels, 1)
        self._bn2 = _norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, out_channels, ceil(h / stride), ceil(w / stride))."""
        y = relu6(self._bn0(self._expand_conv(x)), inplace=True) if self.expanding else x
        y = relu6(self._bn1(self._depthwise_conv(y)), inplace=True)
        projected: Tensor = self._bn2(self._project_conv(y))
        return projected + x if self.residual else projected


class _Convolutional(nn.Module):
    """The layers up to the last feature map, under the names of the published file.

    Attributes:
        tapped_blocks: Indices of the blocks whose outputs are the five maps.
        tap_channels: Channels of these maps.
    """

    def _add_convolutions(self) -> None:
        self._conv_stem = SameConv2d(3, 32, 3, stride=2)
        self._bn0 = _norm(32)
        blocks, strides, widths = [], [], [32]
        for expansion, out_channels, count, kernel, first_stride in STAGES:
            for number in range(count):
                stride = 1 if number else first_stride
                block = MobileBlock(
                    widths[-1], out_channels, expansion=expansion, kernel=kernel, stride=stride
                )
                blocks.append(block)
                strides.append(stride)
                widths.append(out_channels)
        self._blocks = nn.ModuleList(blocks)
        # A map is the last of its resolution if a block with a stride, or none, follows.
        self.tapped_blocks = [i for i, after in enumerate([*strides[1:], 2]) if after > 1]
        self.tap_channels: Sequence[int] = [widths[i + 1] for i in self.tapped_blocks]

    def _draw_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, SameConv2d):
                fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))

    def forward_features(self, images: Tensor) -> list[Tensor]:
        """The last map of each resolution, for a detector or a segmenter.

        Returns:
            Five maps at ``TAP_STRIDES`` with 16, 24, 40, 112 and 320 channels. A side has
            ceil(side / stride) positions. The maps are not activated: each block ends in a
            linear projection.
        """
        x = relu6(self._bn0(self._conv_stem(images)), inplace=True)
        maps = []
        for index, block in enumerate(self._blocks):
            x = block(x)
            if index in self.tapped_blocks:
                maps.append(x)
        return maps


class EfficientNetLite0Trunk(_Convolutional):
    """The five feature maps of EfficientNet-Lite0, 3.4 million parameters.

    Its state_dict is the part of the classifier's up to the last map, under the same names.

    Args:
        pretrained: True starts from the installed ImageNet weights, a path from a copy of their
            file.

    Raises:
        FileNotFoundError: ``pretrained`` is the path of no file.
        ValueError: The weights are not installed, or the file does not fit.
    """

    def __init__(self, *, pretrained: bool | str | PathLike[str] = False) -> None:
        super().__init__()
        self._add_convolutions()
        self._draw_weights()
        if pretrained is not False:
            weights = imagenet_weights(None if pretrained is True else pretrained)
            self.fill_from_classifier(weights)

    def fill_from_classifier(self, weights: Mapping[str, Tensor]) -> None:
        """Load the part of a classifier's state_dict that belongs to the trunk.

        Raises:
            ValueError: It does not fit.
        """
        fill(self, {key: value for key, value in weights.items() if not key.startswith(HEAD)})

    def forward(self, images: Tensor) -> list[Tensor]:
        """The five maps of ``forward_features``."""
        return self.forward_features(images)


class EfficientNetLite0(_Convolutional, TappedClassifier):
    """A classifier of 4.7 million parameters.

    Images are (b, 3, h, w), RGB normalized with ``MEAN`` and ``STD``, of any size; the ImageNet
    weights were trained at 224 pixels.

    Args:
        num_classes: Number of class scores.
        pretrained: True starts from the installed ImageNet weights, a path from that copy of
            their file. The classifier starts from them only if ``num_classes`` is 1000; otherwise
            it is new.

    Raises:
        FileNotFoundError: ``pretrained`` is the path of no file.
        ValueError: ``num_classes`` is below 1, the weights are not installed, or the file does
            not fit.
    """

    classifier_name: ClassVar[str] = "_fc"

    def __init__(
        self,
        num_classes: int = NUM_IMAGENET_CLASSES,
        *,
        pretrained: bool | str | PathLike[str] = False,
    ) -> None:
        super().__init__(num_classes)
        self._add_convolutions()
        self._conv_head = SameConv2d(self.tap_channels[-1], EMBEDDING_CHANNELS, 1)
        self._bn1 = _norm(EMBEDDING_CHANNELS)
        self._fc = nn.Linear(EMBEDDING_CHANNELS, num_classes)
        self._draw_weights()
        if pretrained is not False:
            self._start_from(imagenet_weights(None if pretrained is True else pretrained))

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The five maps of ``forward_features``, and the embedding (b, 1280)."""
        maps = self.forward_features(images)
        head = relu6(self._bn1(self._conv_head(maps[-1])), inplace=True)
        return maps, global_average(head)

    def classify(self, embedding: Tensor) -> Tensor:
        """Class scores (b, k) of embeddings (b, 1280), with dropout in training."""
        return super().classify(dropout(embedding, DROPOUT, training=self.training))

    def _start_from(self, weights: dict[str, Tensor]) -> None:
        """Load all weights, or all but the classifier's where the number of classes differs."""
        if self._fc.out_features != NUM_IMAGENET_CLASSES:
            own = self.state_dict()
            weights = {**weights, **{key: own[key] for key in own if key.startswith("_fc.")}}
        fill(self, weights)
