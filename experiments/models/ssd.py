"""SSD300 and its light relative, and the weights that SSD300 starts from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

from torch import nn

from al_core.errors import InvalidSetting
from experiments.models.starting_weights import SCRATCH, weights_argument
from experiments.settings.checks import check_whole_number
from vendored.checkpoints import read_state_dict
from vendored.ssd_pytorch import SSD, LightSSD, build_ssd, trunk_from_torchvision
from vendored.ssd_pytorch.light import MIN_SIZE_PIXELS

TORCHVISION = "torchvision"


@weights_argument("trunk")
def ssd300(num_classes: int, *, trunk: object) -> SSD:
    """Return SSD300 on VGG16, as published.

    Args:
        num_classes: With background. 21 gets the default boxes of VOC, any other those of COCO.
        trunk: Path of `vgg16_reducedfc.pth`, or of a state_dict of torchvision's `vgg16`;
            "torchvision" for torchvision's ImageNet weights, downloaded (528 MB) if its cache does
            not have them; "scratch" for fresh weights (He et al., arXiv 1502.01852).

    Raises:
        InvalidSetting: The weights cannot be loaded, or are not of VGG16.
    """
    key = "backbone.detection.trunk"
    net = build_ssd("train", 300, num_classes)
    if trunk == SCRATCH:
        for layer in net.vgg:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        return net
    if not isinstance(trunk, str) or not trunk:
        raise InvalidSetting(f"{key} must be a path, torchvision or scratch; it is {trunk!r}")
    try:
        if trunk == TORCHVISION:
            from torchvision.models import VGG16_Weights  # 1.3 s to import

            state = VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True)
        else:
            state = read_state_dict(Path(trunk).expanduser())
        if "classifier.0.weight" in state:
            state = trunk_from_torchvision(state)
        net.vgg.load_state_dict(state)
    except (FileNotFoundError, URLError) as error:
        if trunk == TORCHVISION:
            place = f"anywhere and set {key} to its path"
        else:
            place = f"at {Path(trunk).absolute()}, or set {key}={TORCHVISION} to fetch ImageNet's"
        raise InvalidSetting(
            f"{key}: the weights that SSD300 starts from could not be loaded ({error}): put "
            f"vgg16_reducedfc.pth (https://s3.amazonaws.com/amdegroot-models/vgg16_reducedfc.pth, "
            f"82 MB) {place}, or use backbone=light_ssd, which needs none"
        ) from None
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidSetting(f"{key}={trunk} has no weights of VGG16: {reason}") from None
    return net


def light_ssd(num_classes: int, *, size: int, scales: Sequence[float]) -> LightSSD:
    """Return a detector of a million parameters that learns from scratch.

    Args:
        num_classes: With background.
        size: Side of its square input, pixels.
        scales: Sides of its square default boxes, five increasing fractions of the image.

    Raises:
        InvalidSetting: A size or scales that are out of range.
    """
    check_whole_number("backbone.detection.size", size, low=MIN_SIZE_PIXELS, high=1024)
    try:
        return LightSSD(num_classes, size, scales=scales)
    except (ValueError, TypeError) as error:
        raise InvalidSetting(f"backbone.detection.scales: {error}") from None
