"""Networks that take more than a constructor: SSD300, DRNs for segmentation, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError

from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.settings.checks import check_whole_number
from vendored.checkpoints import read_state_dict
from vendored.drn import IMAGENET_URLS, MODEL_NAMES, DRNSeg, SamplingDropout
from vendored.ssd_pytorch import SSD, LightSSD, build_ssd, trunk_from_torchvision
from vendored.ssd_pytorch.light import MIN_SIZE_PIXELS

TORCHVISION = "torchvision"
SCRATCH = "scratch"
IMAGENET = "imagenet"


def ssd300(num_classes: int, *, trunk: object) -> SSD:
    """SSD300 on VGG16, as published.

    Args:
        num_classes: With background. 21 gets the default boxes of VOC, any other those of COCO.
        trunk: Path of `vgg16_reducedfc.pth`, or of a state_dict of torchvision's `vgg16`;
            "torchvision" for torchvision's ImageNet weights, fetched (528 MB) where its cache lacks
            them; "scratch" for fresh weights (He et al., arXiv 1502.01852).

    Raises:
        InvalidSetting: The weights are not there, or are not of VGG16.
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
            f"{key}: the weights that SSD300 starts from are not to be had ({error}): put "
            f"vgg16_reducedfc.pth (https://s3.amazonaws.com/amdegroot-models/vgg16_reducedfc.pth, "
            f"82 MB) {place}, or use backbone=light_ssd, which needs none"
        ) from None
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidSetting(f"{key}={trunk} has no weights of VGG16: {reason}") from None
    return net


def light_ssd(num_classes: int, *, size: int, scales: Sequence[float]) -> LightSSD:
    """A detector of a million parameters that learns from scratch.

    Args:
        num_classes: With background.
        size: Side of its square input, pixels.
        scales: Sides of its square default boxes, five increasing fractions of the image.

    Raises:
        InvalidSetting: A size or scales that it cannot have.
    """
    check_whole_number("backbone.detection.size", size, low=MIN_SIZE_PIXELS, high=1024)
    try:
        return LightSSD(num_classes, size, scales=scales)
    except (ValueError, TypeError) as error:
        raise InvalidSetting(f"backbone.detection.scales: {error}") from None


class WholeImageDRN(DRNSeg):
    """A DRNSeg whose log-probabilities are of the size of the images, whatever that is.

    Differs: upstream's are rounded up to multiples of 8 pixels; the pixels beyond are cut off here.
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `DRNSeg`: log-probabilities (b, k, h, w), and the scores at 1/8."""
        log_probs, scores = super().forward(x)
        return log_probs[:, :, : x.shape[2], : x.shape[3]], scores


def drn_seg(
    num_classes: int, *, model_name: str, weights: str = SCRATCH, add_dropout: bool = False
) -> WholeImageDRN:
    """A dilated residual network for segmentation.

    Args:
        num_classes: Classes of a pixel.
        model_name: One of `vendored.drn.MODEL_NAMES`.
        weights: What the backbone starts from: "imagenet" for the published ones, fetched (60 to
            200 MB) where torch.hub's cache lacks them, "scratch", or the path of a file with the
            weights of the classification network.
        add_dropout: End every residual stage with dropout of 0.5; in eval mode it is off, but for
            `dropout_sampling`.

    Raises:
        InvalidSetting: The network or its weights are not to be had.
    """
    key = "backbone.segmentation"
    if model_name not in MODEL_NAMES:
        raise InvalidSetting(
            f"{key}.model_name must be one of {', '.join(MODEL_NAMES)}, got {model_name!r}"
        )
    if not isinstance(weights, str) or not weights:
        raise InvalidSetting(f"{key}.weights must be imagenet, scratch or a path, got {weights!r}")
    if weights == IMAGENET and model_name not in IMAGENET_URLS:
        raise InvalidSetting(
            f"{key}.weights: none are published for {model_name}; set {key}.weights=scratch"
        )
    try:
        net = WholeImageDRN(
            model_name,
            num_classes,
            pretrained_model=(
                None if weights in (SCRATCH, IMAGENET) else Path(weights).expanduser()
            ),
            pretrained=weights == IMAGENET,
            add_dropout=add_dropout,
        )
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InvalidSetting(
            f"{key}.weights={weights}: {reason}; or set {key}.weights=scratch, which needs none"
        ) from None
    for layer in net.modules():
        if isinstance(layer, SamplingDropout):
            layer.sampling = False  # as any dropout: what is evaluated is one network
    return net
