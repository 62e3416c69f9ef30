"""EfficientNet-Lite0, a small ImageNet network whose weights are a package of the Python index.

A clean-room implementation after Tan and Le, "EfficientNet" (arXiv 1905.11946); see README.md for
the origin of the weights and for what differs.
"""

from vendored.efficientnet_lite.network import (
    IMAGE_SIZE,
    MEAN,
    STD,
    TAP_STRIDES,
    EfficientNetLite0,
    EfficientNetLite0Trunk,
)
from vendored.efficientnet_lite.weights import (
    WEIGHTS_PACKAGE,
    imagenet_weights,
    installed_weights_file,
)

__all__ = [
    "IMAGE_SIZE",
    "MEAN",
    "STD",
    "TAP_STRIDES",
    "WEIGHTS_PACKAGE",
    "EfficientNetLite0",
    "EfficientNetLite0Trunk",
    "imagenet_weights",
    "installed_weights_file",
]
