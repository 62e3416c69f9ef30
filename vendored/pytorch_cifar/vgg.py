"""VGG: Simonyan and Zisserman, "Very Deep Convolutional Networks" (arXiv 1409.1556, table 1).

These are configurations A, B, D and E with batch norm, and with one linear layer in place of the
paper's three, as in kuangliu/pytorch-cifar @ 49b7aa9.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from vendored.taps import TappedClassifier, global_average

__all__ = ["VGG"]

WIDTHS = (64, 128, 256, 512, 512)
NUM_CONVOLUTIONS = {
    "VGG11": (1, 1, 2, 2, 2),
    "VGG13": (2, 2, 2, 2, 2),
    "VGG16": (2, 2, 3, 3, 3),
    "VGG19": (2, 2, 4, 4, 4),
}
"""Convolutions of each of the five stages, which end with max pooling."""


class VGG(TappedClassifier):
    """Five stages of 3x3 convolutions; the features are the maps before each pooling.

    Differs: upstream's ``features`` end with an average pool of one pixel, which does nothing.

    Args:
        vgg_name: "VGG11", "VGG13", "VGG16" or "VGG19".
        num_classes: Number of class scores.

    Raises:
        ValueError: The name is unknown, or ``num_classes`` is below 1.
    """

    classifier_name: ClassVar[str] = "classifier"

    def __init__(self, vgg_name: str, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        if vgg_name not in NUM_CONVOLUTIONS:
            raise ValueError(f"vgg_name is {vgg_name!r}; it must be one of {[*NUM_CONVOLUTIONS]}")
        layers: list[nn.Module] = []
        in_channels = 3
        for width, count in zip(WIDTHS, NUM_CONVOLUTIONS[vgg_name], strict=True):
            for _ in range(count):
                convolution = nn.Conv2d(in_channels, width, 3, padding=1)
                layers += [convolution, nn.BatchNorm2d(width), nn.ReLU()]
                in_channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_channels, num_classes)
        self.tap_channels = WIDTHS

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The last feature map of each stage, before its pooling, and the embedding."""
        features = []
        x = images
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                features.append(x)
            x = layer(x)
        return features, global_average(x)
