"""A light detector on EfficientNet-Lite0, which fine-tunes on a CPU in minutes.

It has the default boxes, the heads and the loss of SSD (Liu et al., arXiv 1512.02325) on a feature
pyramid (Lin et al., arXiv 1612.03144, section 3) of the trunk's maps. The pyramid is narrow and
normalized by groups, because batch normalization with frozen statistics would not normalize new
layers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting
from experiments.models.pretrained import DEFAULT, lite0_format, lite0_trunk
from experiments.models.starting_weights import weights_argument
from experiments.settings.checks import check_whole_number
from experiments.settings.input_format import InputFormat, expects
from vendored.efficientnet_lite import TAP_STRIDES, EfficientNetLite0Trunk
from vendored.ssd_pytorch import MultiBoxDetector, Outputs, SSDConfig

IMAGE_SIZE = 256
"""Side of the images, pixels: a training step of 8 takes about 2 seconds on one core."""
SCALES = (0.04, 0.08, 0.16, 0.32, 0.6, 1.0)
"""Sides of the square default boxes as fractions of the image; a map has two neighboring ones."""
NUM_TRUNK_MAPS = 4
"""The trunk's maps at strides 4, 8, 16 and 32 are used; one at 64 is added."""
RATIOS = ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,))
"""Aspect ratios of the other default boxes of each map."""
WIDTH = 96  # channels of the pyramid
GROUPS = 8  # of channels that are normalized together


def _format(
    *,
    weights: str | None = DEFAULT,
    image_size: int | None = None,
    scales: Sequence[float] = SCALES,
) -> InputFormat:
    own = lite0_format(weights=weights)
    return InputFormat(image_size or IMAGE_SIZE, own.mean, own.std)


def _config(size: int, scales: Sequence[float]) -> SSDConfig:
    cells = [math.ceil(size / stride) for stride in (*TAP_STRIDES[-NUM_TRUNK_MAPS:], 64)]
    return SSDConfig.from_scales(size, cells, scales, RATIOS)


class Lite0SSD(MultiBoxDetector):
    """A detector of 3.2 million parameters with five source maps.

    Args:
        num_classes: With background.
        trunk: Its maps are the input of the pyramid.
        size: Side of the square images, pixels.
        scales: Sides of the square default boxes, six increasing fractions of the image.

    Raises:
        ValueError: The scales are out of range.
    """

    def __init__(
        self,
        num_classes: int,
        trunk: EfficientNetLite0Trunk,
        size: int = IMAGE_SIZE,
        scales: Sequence[float] = SCALES,
    ) -> None:
        super().__init__(_config(size, scales), num_classes, embedding_source=3)
        self.trunk = trunk
        channels = trunk.tap_channels[-NUM_TRUNK_MAPS:]
        self.lateral = nn.ModuleList(nn.Conv2d(each, WIDTH, 1) for each in channels)
        self.smooth = nn.ModuleList(_separable(1) for _ in channels)
        self.extra = _separable(2)
        self._add_heads([WIDTH] * (NUM_TRUNK_MAPS + 1))
        for layer in (*self.loc, *self.conf):
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def detection_layers(self) -> list[nn.Module]:
        """Return everything but the trunk."""
        return [self.lateral, self.smooth, self.extra, self.loc, self.conf]

    def forward(self, images: Tensor) -> Outputs:
        """Compute offsets, logits and priors, as `LightSSD` does.

        Args:
            images: (b, 3, size, size), normalized as the trunk expects.

        Raises:
            ValueError: The images have another size.
        """
        self._check_images(images)
        self.forget_features()
        maps = self.trunk(images)[-NUM_TRUNK_MAPS:]
        x = self.lateral[-1](maps[-1])
        merged = [x]
        for lateral, given in zip(self.lateral[-2::-1], maps[-2::-1], strict=True):
            x = lateral(given) + F.interpolate(x, given.shape[2:], mode="nearest")
            merged.insert(0, x)
        sources = [smooth(each) for smooth, each in zip(self.smooth, merged, strict=True)]
        sources.append(self.extra(sources[-1]))
        self._keep_maps(sources)
        return self._predict(sources)


def _separable(stride: int) -> nn.Sequential:
    """A depthwise convolution of 3 x 3 positions and one of single positions."""
    return nn.Sequential(
        nn.Conv2d(WIDTH, WIDTH, 3, stride, padding=1, groups=WIDTH, bias=False),
        nn.Conv2d(WIDTH, WIDTH, 1, bias=False),
        nn.GroupNorm(GROUPS, WIDTH),
        nn.ReLU(inplace=True),
    )


@weights_argument("weights")
@expects(_format)
def lite0_ssd(
    num_classes: int,
    *,
    weights: str | None = DEFAULT,
    image_size: int | None = None,
    scales: Sequence[float] = SCALES,
) -> Lite0SSD:
    """Return a light detector on EfficientNet-Lite0.

    Args:
        num_classes: With background.
        weights: Of the trunk: "DEFAULT" for ImageNet's, which the extra `pretrained` installs;
            "none"; or the path of a state_dict.
        image_size: Side of its square input in pixels; None for 256.
        scales: Sides of its square default boxes, six increasing fractions of the image.

    Raises:
        InvalidSetting: A size or scales that are out of range, or as `lite0_trunk`.
    """
    size = image_size or IMAGE_SIZE
    check_whole_number("backbone.image_size", size, low=64, high=1024)
    trunk = lite0_trunk(weights=weights)
    try:
        return Lite0SSD(num_classes, trunk, size, scales)
    except (ValueError, TypeError) as error:
        raise InvalidSetting(f"backbone.detection.scales: {error}") from None
