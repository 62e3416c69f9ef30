"""LeNet-5: LeCun et al., "Gradient-Based Learning Applied to Document Recognition".

The paper is Proc. IEEE 86(11), 1998; it has no arXiv number. Here there are three input channels,
ReLU and max pooling, as in kuangliu/pytorch-cifar @ 49b7aa9.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu

from vendored.taps import TappedClassifier

__all__ = ["LeNet"]


class LeNet(TappedClassifier):
    """Two convolutions and three linear layers, 62 thousand parameters, for 32x32 images only.

    The features are the two pooled maps and the two hidden layers, the latter as maps of one pixel.

    Args:
        num_classes: Number of class scores.
    """

    classifier_name: ClassVar[str] = "fc3"

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)
        self.tap_channels = (6, 16, 120, 84)

    def embed(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """The four hidden layers as (b, c, h, w), and the last of them as (b, 84)."""
        first = max_pool2d(relu(self.conv1(images)), 2)
        second = max_pool2d(relu(self.conv2(first)), 2)
        third = relu(self.fc1(second.flatten(1)))
        fourth = relu(self.fc2(third))
        return [first, second, third[:, :, None, None], fourth[:, :, None, None]], fourth
